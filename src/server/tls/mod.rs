//! TLS: reads and checks the PEM files, and sets up `rustls`.

mod certificate;
mod charged_stream;
mod client_auth;
mod expiry;
mod pem;
mod reloadable;

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{Error as RustlsError, ServerConfig};

use self::certificate::CertificateFacts;
pub(crate) use self::charged_stream::{ChargedStream, CountedStream};
pub(crate) use self::client_auth::handshake_failure;
pub(crate) use self::expiry::CertificateExpiry;
use self::pem::PemError;
use self::pem::Section;
pub(crate) use self::reloadable::ReloadableTls;
use crate::config::io_text::read_error_text;
use crate::config::{PemSource, TlsFiles};
use crate::server::regular_file;

/// Longest file that is read, in bytes: more than any chain.
const MAX_FILE: u64 = 1 << 20;

/// Failure to set up TLS, in one line that names the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is missing or not readable.
    #[error("cannot read the {role} {path}: {}", read_error_text(source))]
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
    /// Authorities of clients' certificates.
    ClientCa,
}

impl fmt::Display for FileRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileRole::Key => "private key",
            FileRole::Cert => "certificate",
            FileRole::Ca => "intermediate certificates",
            FileRole::ClientCa => "authorities of clients",
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
    #[error("its kind is not supported; use RSA of 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519")]
    UnsupportedKey,
    /// A certificate that cannot be parsed.
    #[error("the certificate on line {line} is damaged, or no X.509 certificate")]
    InvalidCert {
        /// Line of its beginning.
        line: usize,
    },
    /// A certificate that cannot be that of an authority.
    #[error("the certificate {number} in it cannot be that of an authority")]
    NoAuthority {
        /// Place in the file, from 1.
        number: usize,
    },
    /// A revocation list that cannot be parsed.
    #[error("a revocation list (X509 CRL) in it is damaged, or of a kind that is not supported")]
    RevocationList,
    /// Certificates in another format.
    #[error("it is a PKCS#7 file; write its certificates to another file with 'openssl pkcs7 -print_certs'")]
    Pkcs7,
    /// Key and certificates in one file of another format.
    #[error("it is a PKCS#12 file; write its parts to another file with 'openssl pkcs12 -nodes'")]
    Pkcs12,
    /// Invalid PEM.
    #[error(transparent)]
    Pem(#[from] PemError),
}

/// Loads the files into a configuration for all connections.
///
/// TLS 1.2 and 1.3, ALPN `http/1.1` (a client that offers only other protocols is refused, as by the Node.js
/// servers); keys in PKCS#8, PKCS#1 or SEC1, files in PEM or DER. The chain is that of `cert`, then the
/// certificates that `ca` has in addition. The files are read at once, blocking.
///
/// Sessions are resumed by tickets, whose keys change every six hours. A resumption saves the signature, the
/// most expensive part of a handshake, and the certificates on the wire. The default of `rustls`, a cache of
/// 256 sessions, is of no use with thousands of clients. One ticket is sent instead of two: browsers
/// reconnect with one connection, and receive a new ticket on it.
///
/// With authorities of clients there are no tickets, as a resumed session would outlive the certificate by
/// which its client was admitted.
///
/// # Errors
///
/// A file cannot be read, or does not contain what it should.
fn load(files: &TlsFiles) -> Result<LoadedTls, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let (pair, warning, expiry) = certified_key(files, &provider)?;
    if let Some(warning) = warning {
        tracing::warn!("clients may reject the certificate {}: {warning}", files.cert);
    }
    let clients = files.client_ca.as_ref().map(|path| client_auth::verifier(path, &provider)).transpose()?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let resumes = clients.is_none();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = usize::from(resumes);
    if resumes {
        config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
    }
    Ok(LoadedTls { config: Arc::new(config), expiry })
}

/// The setup for connections, by the files at one time.
struct LoadedTls {
    config: Arc<ServerConfig>,
    /// Expiry of the certificate, if that can be read.
    expiry: Option<CertificateExpiry>,
}

/// A reason for which clients may reject a certificate that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CertificateWarning {
    /// The version of X.509, if it is not 3.
    Version(u8),
    /// A part that `rustls` does not understand.
    Unusual,
}

impl fmt::Display for CertificateWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateWarning::Version(version) => write!(
                f,
                "it is of X.509 version {version}, without the names that version 3 has; browsers and most \
                 other clients reject it"
            ),
            CertificateWarning::Unusual => {
                f.write_str("it has a critical extension or another part that strict clients reject")
            }
        }
    }
}

/// Returns the certificate chain with its key, after checking that they match, a reason for which clients may
/// reject it, and its expiry, if that can be read.
///
/// Clients judge certificates, not servers: the chain is sent as it is. `rustls` is asked for a warning only.
fn certified_key(
    files: &TlsFiles,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, Option<CertificateWarning>, Option<CertificateExpiry>), TlsError> {
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
    let facts = pair.cert.first().and_then(|leaf| CertificateFacts::parse(leaf));
    let own = pair.key.public_key();
    if let (Some(facts), Some(own)) = (&facts, own.as_deref().and_then(certificate::public_key))
        && !certificate::is_same_key(facts.public_key, own)
    {
        return Err(TlsError::Mismatch { key: files.key.clone(), cert: files.cert.clone() });
    }
    let expiry = facts.as_ref().and_then(|facts| facts.not_after).map(CertificateExpiry);
    let warning = match facts.map(|facts| facts.version) {
        Some(version) if version != 3 => Some(CertificateWarning::Version(version)),
        _ => pair.keys_match().is_err().then_some(CertificateWarning::Unusual),
    };
    Ok((pair, warning, expiry))
}

/// Returns all certificates of a file, PEM or DER.
fn certificates(role: FileRole, path: &PemSource) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(role, path)?;
    let certificate = |der: &[u8], line| match CertificateFacts::parse(der) {
        Some(facts) => Ok(CertificateDer::from(facts.der.to_vec())),
        None => Err(content(role, path, ContentError::InvalidCert { line })),
    };
    if certificate::is_pkcs12(&bytes) {
        return Err(content(role, path, ContentError::Pkcs12));
    }
    if certificate::is_der(&bytes) {
        return Ok(vec![certificate(&bytes, 1)?]);
    }
    let sections = pem::sections(&bytes).map_err(|error| content(role, path, error.into()))?;
    let has = |kinds: &[&str]| sections.iter().any(|section| kinds.contains(&&*section.label));
    let found: Vec<_> = sections
        .iter()
        // The second has attributes of OpenSSL behind it, which no client is sent.
        .filter(|section| {
            ["CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"].contains(&&*section.label)
        })
        .map(|section| certificate(&section.der, section.line))
        .collect::<Result<_, _>>()?;
    let problem = match found.is_empty() {
        false => return Ok(found),
        true if has(&["PKCS7", "CMS"]) => ContentError::Pkcs7,
        true if sections.iter().any(is_private_key) => ContentError::KeyInsteadOfCert,
        true => ContentError::NoCert,
    };
    Err(content(role, path, problem))
}

fn is_private_key(section: &Section) -> bool {
    section.label.ends_with("PRIVATE KEY")
}

/// Returns the first private key of a file, PEM or DER.
fn private_key(path: &PemSource) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(FileRole::Key, path)?;
    let problem = |problem| content(FileRole::Key, path, problem);
    if certificate::is_der(&bytes) {
        if certificate::is_pkcs12(&bytes) {
            return Err(problem(ContentError::Pkcs12));
        }
        let unusable = match CertificateFacts::parse(&bytes) {
            Some(_) => ContentError::CertInsteadOfKey,
            None => ContentError::UnsupportedKey,
        };
        return PrivateKeyDer::try_from(bytes).map_err(|_| problem(unusable));
    }
    let mut sections = pem::sections(&bytes).map_err(|error| problem(error.into()))?;
    let Some(at) = sections.iter().position(is_private_key) else {
        return Err(problem(match sections.iter().any(|section| section.label.ends_with("CERTIFICATE")) {
            true => ContentError::CertInsteadOfKey,
            false => ContentError::NoKey,
        }));
    };
    let Section { label, der, encrypted, .. } = sections.swap_remove(at);
    match &*label {
        _ if encrypted => Err(problem(ContentError::Encrypted)),
        "ENCRYPTED PRIVATE KEY" => Err(problem(ContentError::Encrypted)),
        "PRIVATE KEY" => Ok(PrivatePkcs8KeyDer::from(der).into()),
        "RSA PRIVATE KEY" => Ok(PrivatePkcs1KeyDer::from(der).into()),
        "EC PRIVATE KEY" => Ok(PrivateSec1KeyDer::from(der).into()),
        _ => Err(problem(ContentError::UnsupportedKey)),
    }
}

fn read(role: FileRole, path: &PemSource) -> Result<Vec<u8>, TlsError> {
    let text = match path {
        PemSource::Inline(text) => text.clone().into_bytes(),
        PemSource::File(file) => {
            let read = regular_file::read(file, MAX_FILE);
            read.map_err(|source| TlsError::Read { role, path: path.clone(), source })?
        }
    };
    Ok(text)
}

fn content(role: FileRole, path: &PemSource, source: ContentError) -> TlsError {
    TlsError::Content { role, path: path.clone(), source }
}

#[cfg(test)]
mod tests;
