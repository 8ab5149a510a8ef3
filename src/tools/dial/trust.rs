//! The certificates of servers that are trusted.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use thiserror::Error;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use super::ConnectError;
use super::error_text::{CA_AS_SERVER, io_error_text};

/// Longest file of certificates that is read, in bytes: more than those of any system, and less than a
/// device without an end.
const MAX_FILE: u64 = 8 << 20;

/// The options of every tool that connects to servers.
#[derive(Args, Clone, Debug, Default)]
pub struct TrustArgs {
    /// Trust the certificates of this file (PEM or DER) instead of those of the system, for wss:// and https://
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub cacert: Option<PathBuf>,
    /// Trust any certificate, for wss:// and https://: anybody can then pose as the server
    #[arg(long)]
    pub insecure: bool,
    /// Certificate of this client (PEM), for servers with --client-ca; without --client-key, its key as well
    #[arg(long, value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// Private key of --client-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}

impl TrustArgs {
    /// Returns what makes TLS of a TCP connection.
    pub(super) fn connector(&self) -> Result<TlsConnector, ConnectError> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self.insecure {
            true => Arc::new(AnyCertificate(Arc::clone(&provider))),
            false => Arc::new(TrustedCertificates::new(self.certificates()?, Arc::clone(&provider))?),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConnectError::Certificates(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &self.client_cert {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let unusable =
                    |file: &Path, problem| ConnectError::ClientCertificate { file: file.to_owned(), problem };
                let chain = read(file).map_err(|problem| unusable(file, problem))?;
                let key_file = self.client_key.as_ref().unwrap_or(file);
                let key = read_key(key_file).map_err(|problem| unusable(key_file, problem))?;
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|_| unusable(key_file, CertificateFileError::Key))?
            }
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
        let Some(file) = &self.cacert else {
            let found = rustls_native_certs::load_native_certs();
            let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
            return match found.certs.is_empty() {
                true => Err(ConnectError::Certificates(match errors.is_empty() {
                    true => "none is found".to_owned(),
                    false => errors.join("; "),
                })),
                false => Ok(found.certs),
            };
        };
        read(file).map_err(|problem| ConnectError::Cacert { file: file.clone(), problem })
    }
}

/// The reason why a file of certificates is not usable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertificateFileError {
    /// The file cannot be read.
    #[error("{}", io_error_text(.0))]
    Io(io::Error),
    /// The file is longer than any of certificates.
    #[error("it has more than {} MiB", MAX_FILE >> 20)]
    TooLong,
    /// The file has no certificate.
    #[error("there is no certificate in it")]
    Empty,
    /// The file has no private key.
    #[error("there is no PEM private key in it, unencrypted")]
    NoKey,
    /// The private key is unusable.
    #[error("the private key is not that of the certificate, or of no supported kind")]
    Key,
    /// The file is no PEM file, or damaged.
    #[error("it is damaged, or no PEM file")]
    Damaged,
}

fn read_bytes(file: &Path) -> Result<Vec<u8>, CertificateFileError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(file).map(|file| file.take(MAX_FILE.saturating_add(1)));
    file.and_then(|mut file| file.read_to_end(&mut bytes)).map_err(CertificateFileError::Io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(CertificateFileError::TooLong);
    }
    Ok(bytes)
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateFileError> {
    PrivateKeyDer::from_pem_slice(&read_bytes(file)?).map_err(|_| CertificateFileError::NoKey)
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateFileError> {
    let bytes = read_bytes(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) if bytes.starts_with(&[0x30]) => Ok(vec![CertificateDer::from(bytes)]),
        Ok(_) => Err(CertificateFileError::Empty),
        Err(_) => Err(CertificateFileError::Damaged),
    }
}

/// Accepts what the trusted authorities signed, and a certificate that is itself trusted.
struct TrustedCertificates {
    by_authority: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl TrustedCertificates {
    fn new(
        trusted: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, ConnectError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let by_authority = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let unusable =
            |_| ConnectError::Certificates("no certificate is one of an authority or a server".to_owned());
        Ok(TrustedCertificates { by_authority: by_authority.map_err(unusable)?, trusted })
    }
}

impl fmt::Debug for TrustedCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedCertificates({})", self.trusted.len())
    }
}

impl ServerCertVerifier for TrustedCertificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verified =
            self.by_authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // `openssl req -x509` makes such a certificate by default. Its period was found to be valid.
            Err(TlsError::InvalidCertificate(CertificateError::Other(other)))
                if other.0.to_string() == CA_AS_SERVER && self.trusted.contains(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.by_authority.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.by_authority.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

/// Accepts every certificate, one that cannot be parsed included.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
