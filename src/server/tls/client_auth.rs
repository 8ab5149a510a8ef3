//! Certificates of clients: who may connect, and why a handshake failed.

use std::io;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::CertificateRevocationListDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{Error as RustlsError, RootCertStore};

use super::{ContentError, FileRole, TlsError, certificates, content, pem, read};
use crate::config::PemSource;
use crate::server::refusals::RefusalCause;

/// Returns a verifier that requires a certificate of one of the authorities in the file, which none of the
/// revocation lists in it names. A certificate of an authority without a list is valid.
pub(super) fn verifier(
    path: &PemSource,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let problem = |problem| content(FileRole::ClientCa, path, problem);
    let mut authorities = RootCertStore::empty();
    for (number, certificate) in (1..).zip(certificates(FileRole::ClientCa, path)?) {
        authorities.add(certificate).map_err(|_| problem(ContentError::NoAuthority { number }))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(provider))
        .with_crls(revocation_lists(path)?)
        .only_check_end_entity_revocation()
        .allow_unknown_revocation_status()
        .build()
        .map_err(|_| problem(ContentError::RevocationList))
}

fn revocation_lists(path: &PemSource) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = read(FileRole::ClientCa, path)?;
    // A file in DER is one certificate.
    let sections = pem::sections(&bytes).unwrap_or_default();
    let lists = sections.into_iter().filter(|section| section.label == "X509 CRL");
    Ok(lists.map(|section| section.der.into()).collect())
}

/// Returns the cause to refuse a connection whose handshake failed.
pub(crate) fn handshake_failure(error: &io::Error) -> RefusalCause {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(RustlsError::NoCertificatesPresented) => RefusalCause::MissingClientCertificate,
        Some(RustlsError::InvalidCertificate(_)) => RefusalCause::InvalidClientCertificate,
        _ => RefusalCause::TlsHandshake,
    }
}
