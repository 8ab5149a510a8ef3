//! Certificates of clients: who has none that is valid is refused in the handshake.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use sigver::config::{PemSource, TlsFiles};
use sigver::server::RefusalCause;
use sigver::server::RefusalCause::{InvalidClientCertificate, MissingClientCertificate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::{default_provider, sign::any_supported_type};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};

use crate::common::process::{Served, log_line, run};
use crate::common::ws::{Got, Ws};
use crate::common::{TestGateway, eventually, soon};

/// An authority, which signs the certificate of the server and those of clients.
struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    /// Returns a revocation list with this serial number.
    fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Returns the files of a server that trusts clients of these authorities.
    fn files(&self, clients: &str) -> TlsFiles {
        let server = self.issue(|_| {});
        TlsFiles {
            key: PemSource::from(server.key.serialize_pem()),
            cert: PemSource::from(server.certificate.pem()),
            ca: None,
            client_ca: Some(PemSource::from(clients)),
        }
    }

    /// Returns what connects to a server of this authority.
    fn connector(
        &self,
        client: Option<&Identity>,
        version: &'static SupportedProtocolVersion,
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                // One of a key that is not its own as well.
                let pair =
                    CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key).unwrap());
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

async fn connect(to: SocketAddr, connector: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    connector.connect("localhost".try_into().unwrap(), TcpStream::connect(to).await.unwrap()).await
}

/// Asks for the health of the server. Returns the first bytes of the response.
async fn get(to: SocketAddr, connector: &TlsConnector, path: &str) -> io::Result<String> {
    let mut stream = connect(to, connector).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(String::from_utf8_lossy(&status).into_owned())
}

#[tokio::test]
async fn clients_without_a_valid_certificate_are_refused_in_the_handshake() {
    let (authority, other) = (Authority::new("own"), Authority::new("other"));
    let clients = authority.certificate.pem() + &authority.revoke(66);
    let gateway = TestGateway::configured(|config| config.tls = Some(authority.files(&clients))).await;
    let valid = authority.issue(|_| {});
    let mut refused = [0, 0];
    for version in [&TLS13, &TLS12] {
        let trusted = authority.connector(Some(&valid), version);
        let mut ws = Ws::open(soon("TLS", connect(gateway.address, &trusted)).await.unwrap(), "/").await;
        expect_pong(&mut ws).await;
        for path in ["/", "/?open=k"] {
            let status = soon("an answer", get(gateway.address, &trusted, path)).await.unwrap();
            assert_eq!(status, "HTTP/1.1 200", "{path}");
        }
        // A resumed session would not show the certificate again.
        let again = connect(gateway.address, &trusted).await.unwrap();
        assert_eq!(again.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));

        for (client, cause) in [
            (None, MissingClientCertificate),
            (Some(other.issue(|_| {})), InvalidClientCertificate),
            (
                Some(authority.issue(|cert| cert.not_after = date_time_ymd(2020, 1, 1))),
                InvalidClientCertificate,
            ),
            (
                Some(authority.issue(|cert| cert.not_before = date_time_ymd(3000, 1, 1))),
                InvalidClientCertificate,
            ),
            (Some(authority.issue(|cert| cert.serial_number = Some(66.into()))), InvalidClientCertificate),
            (Some(stolen(&valid)), InvalidClientCertificate),
            (Some(self_signed()), InvalidClientCertificate),
        ] {
            let connector = authority.connector(client.as_ref(), version);
            assert!(soon("a refusal", get(gateway.address, &connector, "/")).await.is_err());
            refused[usize::from(cause == InvalidClientCertificate)] += 1;
            let counts =
                || [MissingClientCertificate, InvalidClientCertificate].map(|of| gateway.refused(of));
            eventually("the refusal", || counts() == refused).await;
        }
    }
    assert_eq!(gateway.refused(RefusalCause::TlsHandshake), 0);
    gateway.stop().await;
}

/// Checks that the connection is served.
async fn expect_pong(ws: &mut Ws<TlsStream<TcpStream>>) {
    ws.ping(b"served").await;
    // The server measures the round trip of a new connection by a ping.
    while ws.next().await != Got::Pong(b"served".to_vec()) {}
}

/// Returns a certificate with a key that is not its own.
fn stolen(valid: &Identity) -> Identity {
    Identity { certificate: valid.certificate.clone(), key: KeyPair::generate().unwrap() }
}

fn self_signed() -> Identity {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Identity { certificate: made.cert, key: made.signing_key }
}

/// A folder with files. Removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let folder = std::env::temp_dir().join(format!("sigver-client-ca-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn authorities_of_clients_are_read_again_and_health_checks_need_a_certificate() {
    let (authority, other) = (Authority::new("own"), Authority::new("other"));
    let folder = Folder::new();
    let server = authority.issue(|_| {});
    let key = folder.write("key.pem", &server.key.serialize_pem());
    let cert = folder.write("cert.pem", &server.certificate.pem());
    let clients = folder.write("clients.pem", &authority.certificate.pem());
    let tls = ["--key", &key, "--cert", &cert, "--client-ca", &clients];
    let options = ["-h", "127.0.0.1", "-p", "0", "--control", "off"];
    let mut served = Served::start(&[&options[..], &tls[..]].concat()).await;
    let address = SocketAddr::from(([127, 0, 0, 1], served.port()));
    let [first, second] = [&authority, &other].map(|of| of.issue(|_| {}));
    let [mine, others] = [&first, &second].map(|identity| authority.connector(Some(identity), &TLS13));
    let mut ws = Ws::open(connect(address, &mine).await.unwrap(), "/").await;

    // Health checks.
    let port = served.port().to_string();
    let pem = folder.write("me.pem", &(first.certificate.pem() + &first.key.serialize_pem()));
    let (code, _, errors) = run(&["healthcheck", "--port", &port]).await;
    assert_eq!(code, Some(1));
    let advice = "the server refuses clients without a certificate: --client-cert FILE has one";
    assert!(errors.contains(advice), "{errors}");
    let (code, _, errors) = run(&["healthcheck", "--port", &port, "--client-cert", &pem]).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let (code, _, errors) =
        run(&["healthcheck", "--port", &port, "--client-cert", &pem, "--client-key", &key]).await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("the private key is not that of the certificate"), "{errors}");

    // A bad file changes nothing.
    folder.write("clients.pem", "");
    served.signal("HUP").await;
    log_line(&mut served.stderr, "cannot use the authorities of clients").await;
    assert!(soon("an answer", get(address, &mine, "/")).await.is_ok());
    folder.write("clients.pem", &other.certificate.pem());
    served.signal("HUP").await;
    log_line(&mut served.stderr, "reloaded").await;
    assert!(soon("a refusal", get(address, &mine, "/")).await.is_err());
    assert!(soon("an answer", get(address, &others, "/")).await.is_ok());
    // Open connections stay.
    expect_pong(&mut ws).await;
}

#[tokio::test]
async fn authorities_of_clients_without_tls_are_an_error() {
    let (code, _, errors) = run(&["--client-ca", "clients.pem"]).await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("'--client-ca <file path>' was given without TLS"), "{errors}");
}
