//! TLS: reads and checks the PEM files, and sets up `rustls`.

mod pem_text;

use std::fmt;
use std::fs;
use std::io;
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{Error as RustlsError, ServerConfig};

use crate::config::{PemSource, TlsFiles};
use pem_text::with_line_breaks;

/// Failure to set up TLS, in one line that names the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is missing or not readable.
    #[error("cannot read the {role} {path}: {}", io_text(source))]
    Read {
        /// Role of the file.
        role: FileRole,
        /// Path of the file.
        path: PemSource,
        /// Cause.
        source: io::Error,
    },
    /// A file does not contain what it should.
    #[error("cannot use the {role} {path}: {source}")]
    Content {
        /// Role of the file.
        role: FileRole,
        /// Path of the file.
        path: PemSource,
        /// Cause.
        source: ContentError,
    },
    /// The private key is not that of the certificate.
    #[error("the private key {key} does not match the first certificate in {cert}")]
    Mismatch {
        /// File of the private key.
        key: PemSource,
        /// File of the certificate.
        cert: PemSource,
    },
    /// The system has no randomness for keys.
    #[error("cannot set up TLS: {0}")]
    Setup(#[source] RustlsError),
}

/// Role of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRole {
    /// The private key.
    Key,
    /// The certificate.
    Cert,
    /// Intermediate certificates.
    Ca,
}

impl fmt::Display for FileRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileRole::Key => "private key",
            FileRole::Cert => "certificate",
            FileRole::Ca => "intermediate certificates",
        })
    }
}

/// A problem with the content of a file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContentError {
    /// A private key instead of a certificate.
    #[error("it holds a private key and no certificate")]
    KeyInsteadOfCert,
    /// A certificate instead of a private key.
    #[error("it holds a certificate and no private key")]
    CertInsteadOfKey,
    /// No certificate in PEM.
    #[error("there is no PEM certificate in it")]
    NoCert,
    /// No private key in PEM.
    #[error("there is no PEM private key in it")]
    NoKey,
    /// An encrypted private key.
    #[error("it is encrypted; write an unencrypted copy with 'openssl pkey'")]
    Encrypted,
    /// A private key of an unsupported kind.
    #[error("of no supported kind, which are RSA of 2048 to 4096 bits, ECDSA P-256 and P-384, and Ed25519")]
    UnsupportedKey,
    /// A certificate that cannot be parsed.
    #[error("its first certificate is unsound ({0})")]
    InvalidCert(#[source] RustlsError),
    /// Invalid PEM.
    #[error(transparent)]
    Pem(#[from] PemProblem),
}

/// A problem with PEM text, without the text: the parser's own errors quote it, which may be a private key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PemProblem {
    /// A section without an end.
    #[error("it is cut short: a line '-----END …-----' is missing")]
    MissingEnd,
    /// A first line that does not end in dashes.
    #[error("a line of it begins like '-----BEGIN …-----' and ends otherwise")]
    MalformedBegin,
    /// A section that is no base64.
    #[error("a section of its PEM is not base64")]
    NotBase64,
    /// Anything else.
    #[error("it is not PEM")]
    Other,
}

impl From<pem::Error> for PemProblem {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::MissingSectionEnd { .. } => PemProblem::MissingEnd,
            pem::Error::IllegalSectionStart { .. } => PemProblem::MalformedBegin,
            pem::Error::Base64Decode(_) => PemProblem::NotBase64,
            _ => PemProblem::Other,
        }
    }
}

/// Loads the files into a configuration for all connections.
///
/// TLS 1.2 and 1.3, ALPN `http/1.1` (a client that offers only other protocols is refused, as by the Node.js
/// servers); keys in PKCS#8, PKCS#1 or SEC1. The chain is that of `cert`, then the certificates that `ca` has
/// in addition. The files are read once, blocking: a renewed certificate takes a restart.
///
/// Sessions are resumed by tickets, whose keys change every six hours. A resumption saves the signature, the
/// most expensive part of a handshake, and the certificates on the wire. The default of `rustls`, a cache of
/// 256 sessions, is of no use with thousands of clients. One ticket is sent instead of two: browsers
/// reconnect with one connection, and receive a new ticket on it.
///
/// # Errors
///
/// A file cannot be read, or does not contain what it should.
pub(crate) fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let pair = certified_key(files, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Returns the certificate chain with its key, after checking that they match.
fn certified_key(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let mut chain = certificates(FileRole::Cert, &files.cert)?;
    if let Some(ca) = &files.ca {
        for certificate in certificates(FileRole::Ca, ca)? {
            if !chain.contains(&certificate) {
                chain.push(certificate);
            }
        }
    }
    let key = private_key(&files.key)?;
    let unusable = |_| content(FileRole::Key, &files.key, ContentError::UnsupportedKey);
    let pair = CertifiedKey::new(chain, provider.key_provider.load_private_key(key).map_err(unusable)?);
    match pair.keys_match() {
        Ok(()) => Ok(pair),
        Err(RustlsError::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { key: files.key.clone(), cert: files.cert.clone() })
        }
        Err(error) => Err(content(FileRole::Cert, &files.cert, ContentError::InvalidCert(error))),
    }
}

fn certificates(role: FileRole, path: &PemSource) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(role, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => {
            let problem = match PrivateKeyDer::from_pem_slice(&text) {
                Ok(_) => ContentError::KeyInsteadOfCert,
                Err(_) => ContentError::NoCert,
            };
            Err(content(role, path, problem))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(content(role, path, ContentError::Pem(error.into()))),
    }
}

fn private_key(path: &PemSource) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(FileRole::Key, path)?;
    let problem = match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => return Ok(key),
        Err(pem::Error::NoItemsFound) if contains(&text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") => {
            ContentError::Encrypted
        }
        Err(pem::Error::NoItemsFound) if CertificateDer::from_pem_slice(&text).is_ok() => {
            ContentError::CertInsteadOfKey
        }
        Err(pem::Error::NoItemsFound) => ContentError::NoKey,
        // A PKCS#1 or SEC1 key with headers inside the section, which are no base64.
        Err(_) if contains(&text, b"Proc-Type: 4,ENCRYPTED") => ContentError::Encrypted,
        Err(error) => ContentError::Pem(error.into()),
    };
    Err(content(FileRole::Key, path, problem))
}

fn read(role: FileRole, path: &PemSource) -> Result<Vec<u8>, TlsError> {
    let text = match path {
        PemSource::Inline(text) => text.clone().into_bytes(),
        PemSource::File(file) => {
            fs::read(file).map_err(|source| TlsError::Read { role, path: path.clone(), source })?
        }
    };
    Ok(with_line_breaks(&text).into_owned())
}

fn content(role: FileRole, path: &PemSource, source: ContentError) -> TlsError {
    TlsError::Content { role, path: path.clone(), source }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
