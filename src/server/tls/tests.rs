//! Files of every kind, sound and not, and handshakes with what is sound. Tests only.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, version};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A directory that is removed after the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sigver-tls-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

fn files(key: impl Into<PemSource>, cert: impl Into<PemSource>) -> TlsFiles {
    TlsFiles { key: key.into(), cert: cert.into(), ca: None, client_ca: None }
}

/// Returns the setup for connections.
fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    Ok(super::load(files)?.config)
}

fn refusal(files: &TlsFiles) -> String {
    match load(files) {
        Ok(_) => panic!("{files:?} was accepted"),
        Err(error) => error.to_string(),
    }
}

/// A root, an intermediate and a leaf for `localhost`: the root to trust, and PEM of key, leaf, rest.
fn issue() -> (CertificateDer<'static>, String, String, String) {
    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let (root_key, middle_key, key) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut root = authority();
    root.distinguished_name.push(rcgen::DnType::CommonName, "root");
    let root_cert = root.self_signed(&root_key).unwrap();
    let root = Issuer::new(root, root_key);
    let middle_cert = authority().signed_by(&middle_key, &root).unwrap();
    let middle = Issuer::new(authority(), middle_key);
    let leaf = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &middle).unwrap();
    (root_cert.der().clone(), key.serialize_pem(), leaf.pem(), middle_cert.pem())
}

struct Shaken {
    version: Option<ProtocolVersion>,
    alpn: Option<Vec<u8>>,
    kind: Option<HandshakeKind>,
    chain: usize,
}

/// One connection that exchanges a byte, so that tickets have arrived too.
async fn shake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> io::Result<Shaken> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let acceptor = TlsAcceptor::from(Arc::clone(server));
    let accepting = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        let _ = stream.read(&mut [0]).await;
        io::Result::Ok(())
    });
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, near).await?;
    stream.read_exact(&mut [0]).await?;
    let session = stream.get_ref().1;
    let shaken = Shaken {
        version: session.protocol_version(),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        kind: session.handshake_kind(),
        chain: session.peer_certificates().map_or(0, <[_]>::len),
    };
    drop(stream);
    accepting.await??;
    Ok(shaken)
}

fn client(
    root: CertificateDer<'static>,
    versions: &[&'static tokio_rustls::rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

#[tokio::test]
async fn chain_is_sent_and_sessions_resume_by_ticket() {
    let dir = Dir::new();
    let (root, key, cert, rest) = issue();
    let mut files = files(dir.file("key", &key), dir.file("cert", &cert));
    let incomplete = load(&files).unwrap();
    // A certificate which is in both files is sent once.
    files.ca = Some(dir.file("ca", &format!("{cert}{rest}")).into());
    let server = load(&files).unwrap();
    for version in [&version::TLS13, &version::TLS12] {
        let client = client(root.clone(), &[version], &[b"h2", b"http/1.1"]);
        assert!(shake(&incomplete, &client).await.is_err());
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let shaken = shake(&server, &client).await.unwrap();
            assert_eq!(shaken.version, Some(version.version));
            assert_eq!(shaken.alpn.as_deref(), Some(&b"http/1.1"[..]));
            assert_eq!(shaken.kind, Some(kind));
            assert_eq!(shaken.chain, 2);
        }
    }
    let without = client(root.clone(), &[&version::TLS13], &[]);
    assert_eq!(shake(&server, &without).await.unwrap().alpn, None);
    assert!(shake(&server, &client(root, &[&version::TLS13], &[b"h2"])).await.is_err());
}

#[test]
fn every_key_format_is_read() {
    let dir = Dir::new();
    load(&files(fixture("rsa-pkcs1.key"), fixture("rsa.crt"))).unwrap();
    load(&files(fixture("ec-sec1.key"), fixture("ec.crt"))).unwrap();
    let ed = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let cert = CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&ed).unwrap();
    load(&files(dir.file("ed", &ed.serialize_pem()), dir.file("ed.crt", &cert.pem()))).unwrap();
    // Both in one file, with the comments and line ends that tools leave.
    let both = format!("Bag Attributes\n{}{}", cert.pem(), ed.serialize_pem()).replace('\n', "\r\n");
    let both = dir.file("both", &both);
    load(&files(&both, &both)).unwrap();
}

#[test]
fn failures_name_the_file_and_the_cause() {
    let dir = Dir::new();
    let (key, cert) = (fixture("ec-sec1.key"), fixture("ec.crt"));
    let name = |path: &Path| path.display().to_string();
    let none = dir.0.join("none");
    let junk = dir.file("junk", "nothing of interest");
    let archive = dir.file("archive", "0\u{7}\u{2}\u{1}\u{3}0\u{2}\u{5}\0");
    let endless = PathBuf::from("/dev/zero");
    let cut = dir.file("cut", "-----BEGIN PRIVATE KEY-----\nAAAA\n");
    let base64 = dir.file("base64", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n");
    let unsound = dir.file("unsound", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let bundle = dir.file("bundle", "-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n");
    let whole = fs::read_to_string(&cert).unwrap();
    let half =
        dir.file("half", &format!("{whole}\n-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"));
    let old = dir.file(
        "old",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
         -----END RSA PRIVATE KEY-----\n",
    );
    for (file, start, end) in [
        (&none, "cannot read the private key", "there is no such file"),
        (&dir.0, "cannot read the private key", "it is a directory"),
        (&junk, "cannot use the private key", "there is no PEM private key in it"),
        (&archive, "cannot use the private key", "to another file with 'openssl pkcs12 -nodes'"),
        (&endless, "cannot read the private key", "it is no regular file"),
        (&cert, "cannot use the private key", "it holds a certificate and no private key"),
        (&cut, "cannot use the private key", "on line 1 has no line '-----END PRIVATE KEY-----'"),
        (&old, "cannot use the private key", "encrypted; write an unencrypted copy with 'openssl pkey'"),
        (
            &fixture("ec-encrypted.key"),
            "cannot use the private key",
            "encrypted; write an unencrypted copy with 'openssl pkey'",
        ),
        (&fixture("rsa-1024.key"), "cannot use the private key", "P-384, or Ed25519"),
    ] {
        let message = refusal(&files(file, &cert));
        assert!(message.starts_with(&format!("{start} {}: ", name(file))), "{message}");
        assert!(message.ends_with(end), "{message}");
    }
    for (file, start, end) in [
        (&none, "cannot read the certificate", "there is no such file"),
        (&archive, "cannot use the certificate", "to another file with 'openssl pkcs12 -nodes'"),
        (&endless, "cannot read the certificate", "it is no regular file"),
        (&junk, "cannot use the certificate", "there is no PEM certificate in it"),
        (&key, "cannot use the certificate", "it holds a private key and no certificate"),
        (&base64, "cannot use the certificate", "the 'CERTIFICATE' that begins on line 1 is not base64"),
        (
            &unsound,
            "cannot use the certificate",
            "the certificate on line 1 is damaged, or no X.509 certificate",
        ),
        (&bundle, "cannot use the certificate", "to another file with 'openssl pkcs7 -print_certs'"),
        (
            &half,
            "cannot use the certificate",
            "the certificate on line 13 is damaged, or no X.509 certificate",
        ),
    ] {
        let message = refusal(&files(&key, file));
        assert!(message.starts_with(&format!("{start} {}: ", name(file))), "{message}");
        assert!(message.ends_with(end) && !message.contains('\n'), "{message}");
    }
    let ca = TlsFiles { ca: Some(none.clone().into()), ..files(&key, &cert) };
    assert_eq!(
        refusal(&ca),
        format!("cannot read the intermediate certificates {}: there is no such file", name(&none))
    );
    assert_eq!(
        refusal(&files(&key, fixture("rsa.crt"))),
        format!(
            "the private key {} does not match the first certificate in {}",
            name(&key),
            name(&fixture("rsa.crt"))
        )
    );
}

#[tokio::test]
async fn whole_chain_is_read_from_files_as_they_are() {
    let dir = Dir::new();
    let (root, key, cert, rest) = issue();
    let key = dir.file("key", &key);
    let trimmed = |text: &str| text.trim_end().to_owned();
    let both = [&cert, &rest].map(|pem| trimmed(pem));
    for text in [
        // Files without a last line end, one after the other.
        both.concat(),
        format!("\u{feff}{}", both.join("\n")),
        both.join("\n").replace('\n', "\r\n"),
        format!("Certificate:\n    Data:\n{}\n# the rest\n{}\nrubbish", both[0], both[1]),
        both.concat().replace("CERTIFICATE", "X509 CERTIFICATE"),
    ] {
        let server = load(&files(&key, dir.file("chain", &text))).unwrap();
        let client = client(root.clone(), &[&version::TLS13], &[]);
        assert_eq!(shake(&server, &client).await.unwrap().chain, 2, "{text}");
    }
    // One certificate and a key in DER.
    let der = |pem: &str| pem::sections(pem.as_bytes()).unwrap().swap_remove(0).der;
    let path = |name: &str, bytes: Vec<u8>| {
        let path = dir.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let (leaf, middle) = (path("leaf.der", der(&cert)), path("middle.der", der(&rest)));
    let key = path("key.der", der(&fs::read_to_string(&key).unwrap()));
    let server = load(&TlsFiles { ca: Some(middle.into()), ..files(&key, &leaf) }).unwrap();
    assert_eq!(shake(&server, &client(root, &[&version::TLS13], &[])).await.unwrap().chain, 2);
    assert!(refusal(&files(&leaf, &leaf)).ends_with("it holds a certificate and no private key"));
}

#[test]
fn certificates_that_clients_may_reject_have_a_warning() {
    let dir = Dir::new();
    let provider = ring::default_provider();
    let warning = |files: &TlsFiles| certified_key(files, &provider).unwrap().1;
    assert_eq!(warning(&files(fixture("ec-sec1.key"), fixture("ec.crt"))), None);
    let old = files(fixture("ec-sec1.key"), fixture("ec-v1.crt"));
    assert_eq!(warning(&old), Some(CertificateWarning::Version(1)));

    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
    let cert = params.self_signed(&key).unwrap();
    let critical = files(dir.file("key", &key.serialize_pem()), dir.file("cert", &cert.pem()));
    assert_eq!(warning(&critical), Some(CertificateWarning::Unusual));

    for files in [&old, &critical] {
        load(files).unwrap();
    }
    // Also of such certificates, the key must match.
    assert!(refusal(&TlsFiles { key: fixture("rsa-pkcs1.key").into(), ..old }).contains("does not match"));
    for warning in [CertificateWarning::Version(1), CertificateWarning::Unusual] {
        assert!(warning.to_string().contains("clients reject it") || warning.to_string().ends_with("reject"));
    }
}

/// Writes a key as tools and variables spoil it. Each is read, or named without a character of it.
#[test]
fn spoilt_keys_are_understood_and_never_quoted() {
    let dir = Dir::new();
    let (_, key, cert, rest) = issue();
    let cert_file = dir.file("cert", &cert);
    let line = key.lines().nth(1).unwrap();
    let secret = &line[30..50];
    let escaped = key.replace('\n', "\\n");
    for (at, text) in [
        escaped.clone(),
        key.replace('\n', "\\r\\n"),
        key.replace('\n', " "),
        key.replace('\n', ""),
        format!("\"{escaped}\""),
        format!("'{}'\n", key.trim()),
        format!("\u{feff}{key}"),
        key.replace('\n', "\r"),
        key.replace('\n', "\n\n"),
        key.lines().map(|line| format!("    {line}\n")).collect(),
    ]
    .into_iter()
    .enumerate()
    {
        load(&files(dir.file(&format!("key{at}"), &text), &cert_file)).unwrap();
        load(&files(text.as_str(), cert.replace('\n', "\\n").as_str())).unwrap();
    }
    // What cannot be understood.
    for text in [
        key.replace("-----END", "----END"),
        key.replace("KEY-----", "KEY----"),
        key.replace("-----BEGIN", "-----BEGIN X"),
        key.replace(line, &format!("{line}!")),
        key.replace(line, &format!("x{line}")),
        key.replace(line, ""),
        key.replace('\n', "_"),
        key.replace('\n', "%0A"),
        format!("{}-----", key.replace('\n', "-----")),
        line.to_owned(),
        format!("-----BEGIN {line}"),
        format!("-----BEGIN {line}-----\nAAAA\n"),
        format!("-----BEGIN PRIVATE KEY-----{line}-----"),
    ] {
        for refused in [
            files(text.as_str(), &cert_file),
            files(dir.file("key", &text), &cert_file),
            files(dir.file("key", &key), text.as_str()),
        ] {
            // Some of them are only a text around a sound key.
            let Err(error) = load(&refused) else { continue };
            let message = format!("{error} {error:?} {refused:?}");
            assert!(!message.contains(secret), "{message}");
        }
    }
    let glued = dir.file("glued", &format!("{}{}", cert.trim(), rest.trim()));
    assert_eq!(certificates(FileRole::Cert, &glued.into()).unwrap().len(), 2);
}
