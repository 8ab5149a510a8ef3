//! TLS: from the PEM files of the command line to what `rustls` accepts connections with.
//!
//! Reading, checking and explaining what is wrong with the files, and the choices of our TLS. No connection
//! is handled here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{Error as RustlsError, ServerConfig};

use crate::config::TlsFiles;

/// Why TLS cannot be served. Each message is one line, which names the file.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is missing, or may not be read.
    #[error("cannot read the {role} {}: {}", path.display(), reason(source))]
    Read {
        /// What the file is for.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is there, but does not hold what it should.
    #[error("cannot use the {role} {}: {reason}", path.display())]
    Content {
        /// What the file is for.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Both files are sound, and belong to different pairs.
    #[error("the private key {} does not match the first certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The file of the private key.
        key: PathBuf,
        /// The file of the certificate.
        cert: PathBuf,
    },
    /// The system gives no randomness to make keys of.
    #[error("cannot set up TLS: {0}")]
    Setup(RustlsError),
}

const KEY: &str = "private key";
const CERT: &str = "certificate";
const CA: &str = "intermediate certificates";

/// Loads the files into a configuration which is shared by all connections.
///
/// TLS 1.2 and 1.3, ALPN `http/1.1` (a client that offers only something else is refused, as the originals
/// do); keys in PKCS#8, PKCS#1 or SEC1. The chain which is sent is that of `cert`, then what `ca` has more.
/// The files are read once, blocking: a renewed certificate takes a restart.
///
/// Clients resume by tickets which they keep themselves, sealed with keys that change every six hours. A
/// client that comes back (a lost network, the next room) saves the server a signature, by far the most
/// expensive part of a handshake, and 2 to 4 kB of certificates on the wire. `rustls` would by default rather
/// remember the last 256 sessions, which costs memory and serves nobody when thousands are connected. One
/// ticket is sent instead of two: browsers come back with one connection, and get a new ticket on it.
///
/// # Errors
///
/// [`TlsError`] says which file is at fault, and why.
pub fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
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

/// Reads the files, and checks that key and certificate belong together.
fn certified_key(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let mut chain = certificates(CERT, &files.cert)?;
    if let Some(ca) = &files.ca {
        for certificate in certificates(CA, ca)? {
            if !chain.contains(&certificate) {
                chain.push(certificate);
            }
        }
    }
    let key = private_key(&files.key)?;
    let unusable = |_| {
        content(
            KEY,
            &files.key,
            "of no supported kind, which are RSA of 2048 to 4096 bits, ECDSA P-256 and P-384, and Ed25519",
        )
    };
    let pair = CertifiedKey::new(chain, provider.key_provider.load_private_key(key).map_err(unusable)?);
    match pair.keys_match() {
        Ok(()) => Ok(pair),
        Err(RustlsError::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { key: files.key.clone(), cert: files.cert.clone() })
        }
        Err(error) => Err(content(CERT, &files.cert, format!("its first certificate is unsound ({error})"))),
    }
}

fn certificates(role: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(role, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => {
            let reason = match PrivateKeyDer::from_pem_slice(&text) {
                Ok(_) => "it holds a private key and no certificate",
                Err(_) => "there is no PEM certificate in it",
            };
            Err(content(role, path, reason))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(content(role, path, syntax(&error))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(KEY, path)?;
    let reason = match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => return Ok(key),
        Err(pem::Error::NoItemsFound) if contains(&text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") => {
            "it is encrypted; write an unencrypted copy with 'openssl pkey'".to_owned()
        }
        Err(pem::Error::NoItemsFound) if CertificateDer::from_pem_slice(&text).is_ok() => {
            "it holds a certificate and no private key".to_owned()
        }
        Err(pem::Error::NoItemsFound) => "there is no PEM private key in it".to_owned(),
        // A PKCS#1 or SEC1 key whose encryption is told by headers inside the section, which is no base64.
        Err(_) if contains(&text, b"Proc-Type: 4,ENCRYPTED") => {
            "it is encrypted; write an unencrypted copy with 'openssl pkey'".to_owned()
        }
        Err(error) => syntax(&error),
    };
    Err(content(KEY, path, reason))
}

fn read(role: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { role, path: path.to_owned(), source })
}

fn content(role: &'static str, path: &Path, reason: impl Into<String>) -> TlsError {
    TlsError::Content { role, path: path.to_owned(), reason: reason.into() }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

fn syntax(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!(
                "it is cut short, its line '-----END {}-----' is missing",
                String::from_utf8_lossy(end_marker).trim()
            )
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("bad PEM line '{}'", String::from_utf8_lossy(line).trim())
        }
        pem::Error::Base64Decode(error) => format!("bad base64 in its PEM ({error})"),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
