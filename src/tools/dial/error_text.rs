//! Texts for errors of connections, with a remedy.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError};

use crate::config::redact::displayed;

/// Beginning of the system's messages about names.
const LOOKUP: &str = "failed to lookup address information: ";
/// Error of `webpki` for a certificate of an authority that a server presents.
pub(super) const CA_AS_SERVER: &str = "CaUsedAsEndEntity";
/// Most names of a certificate that are shown.
const MAX_NAMES: usize = 5;
const TRUST: &str = "--cacert FILE trusts the certificates of a file, --insecure trusts any";
const TRUST_ANY: &str = "--insecure trusts any";

/// Returns the message of an error and of all its causes, separated by `": "`, each once. Errors of
/// connections have a text of their own.
pub(crate) fn error_chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for cause in std::iter::successors(Some(error), |error| (*error).source()) {
        let raw = cause.to_string();
        let io = cause.downcast_ref::<io::Error>();
        let own = io.map_or_else(|| raw.clone(), io_error_text);
        if text.is_empty() {
            text = own;
        } else if !text.ends_with(&raw) && !text.ends_with(&own) {
            text = format!("{text}: {own}");
        }
        // The text includes the causes.
        if io.is_some() {
            break;
        }
    }
    text
}

/// Returns the text for an error of a connection.
pub(crate) fn io_error_text(error: &io::Error) -> String {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        return tls_error_text(tls);
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused: no program listens there".to_owned(),
        ErrorKind::ConnectionReset => "the connection was reset".to_owned(),
        ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        // Of a file with certificates or a token.
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error ").next().unwrap_or_default();
            text.strip_prefix(LOOKUP).unwrap_or(text).to_owned()
        }
    }
}

fn tls_error_text(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(error) => certificate_error_text(error),
        TlsError::InvalidMessage(_) => {
            "the answer is not TLS; a port without TLS needs ws:// or http://".to_owned()
        }
        TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server refuses clients without a certificate: --client-cert FILE has one".to_owned()
        }
        TlsError::AlertReceived(alert) => {
            format!("the server refuses the TLS handshake: {}", separated(&format!("{alert:?}")))
        }
        TlsError::PeerIncompatible(why) => {
            format!("the server's TLS is too old or too different: {}", separated(&format!("{why:?}")))
        }
        TlsError::PeerMisbehaved(why) => {
            format!("the server violates the TLS protocol: {}", separated(&format!("{why:?}")))
        }
        TlsError::NoCertificatesPresented => "the server has no certificate".to_owned(),
        TlsError::UnsupportedNameType => "a certificate cannot be for this host name".to_owned(),
        other => format!("TLS failed: {other}"),
    }
}

fn certificate_error_text(error: &CertificateError) -> String {
    let problem = match error {
        CertificateError::ExpiredContext { time, not_after } => {
            let seconds = time.as_secs().saturating_sub(not_after.as_secs());
            format!("expired {} ago", rounded(Duration::from_secs(seconds)))
        }
        CertificateError::Expired => "has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "is self-signed, or of an authority that this machine does not trust, or lacks an intermediate \
             certificate"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } if presented.is_empty() => {
            format!(
                "names no host; make one with -addext subjectAltName={}:{}",
                if matches!(expected, ServerName::IpAddress(_)) { "IP" } else { "DNS" },
                displayed(&expected.to_str())
            )
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            format!("is not for {}, but for {}", displayed(&expected.to_str()), names(presented))
        }
        CertificateError::NotValidForName => "is for another host name".to_owned(),
        CertificateError::Revoked => "is revoked".to_owned(),
        CertificateError::UnhandledCriticalExtension => {
            "has a critical extension that this program does not know".to_owned()
        }
        CertificateError::BadEncoding => "is damaged, or no X.509 certificate".to_owned(),
        CertificateError::BadSignature => {
            "is not signed by the trusted authority of that name, or is damaged".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for servers, by its extendedKeyUsage".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed by an algorithm that this program does not support".to_owned()
        }
        CertificateError::Other(other) => match other.0.to_string().as_str() {
            CA_AS_SERVER => "is that of an authority (CA:TRUE), and not of a server".to_owned(),
            version if version.starts_with("UnsupportedCertVersion") => {
                "is of an old X.509 version, without host names".to_owned()
            }
            other => format!("cannot be checked: {}", separated(other)),
        },
        other => format!("cannot be checked: {}", separated(&format!("{other:?}"))),
    };
    let is_unknown = match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => true,
        CertificateError::Other(other) => other.0.to_string() == CA_AS_SERVER,
        _ => false,
    };
    format!("the server's certificate {problem}; {}", if is_unknown { TRUST } else { TRUST_ANY })
}

/// Returns the host names of a certificate, as `webpki` names them: `DnsName("h")`.
fn names(presented: &[String]) -> String {
    let name = |name: &String| displayed(name.split('"').nth(1).unwrap_or(name)).to_string();
    let more = if presented.len() > MAX_NAMES { " and others" } else { "" };
    let shown: Vec<String> = presented.iter().take(MAX_NAMES).map(name).collect();
    format!("{}{more}", shown.join(", "))
}

/// Returns the name of a variant as separate text: `HandshakeFailure` as `handshake failure`.
fn separated(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars().take_while(|character| character.is_ascii_alphanumeric()) {
        if character.is_ascii_uppercase() && text.ends_with(|last: char| last.is_ascii_lowercase()) {
            text.push(' ');
        }
        text.push(character.to_ascii_lowercase());
    }
    text
}

fn rounded(duration: Duration) -> String {
    let hours = duration.as_secs() / 3600;
    match hours {
        0 => "less than an hour".to_owned(),
        1..48 => format!("{hours} hours"),
        _ => format!("{} days", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    enum Outer {
        #[error("outer: {0}")]
        Repeats(#[source] Inner),
        #[error("outer")]
        Names(#[source] Inner),
    }

    #[derive(Debug, Error)]
    #[error("inner: {source}")]
    struct Inner {
        source: io::Error,
    }

    fn inner() -> Inner {
        Inner { source: io::Error::from_raw_os_error(111) }
    }

    #[test]
    fn causes_are_named_once() {
        let refused = "inner: Connection refused (os error 111)";
        assert_eq!(error_chain(&Outer::Repeats(inner())), format!("outer: {refused}"));
        assert_eq!(error_chain(&Outer::Names(inner())), format!("outer: {refused}"));
        assert_eq!(error_chain(&inner().source), "connection refused: no program listens there");
    }

    #[test]
    fn errors_of_libraries_have_a_text() {
        let text = |error: TlsError| io_error_text(&io::Error::new(ErrorKind::InvalidData, error));
        let alert = text(TlsError::AlertReceived(AlertDescription::HandshakeFailure));
        assert_eq!(alert, "the server refuses the TLS handshake: handshake failure");
        let expired = CertificateError::Expired;
        assert!(text(TlsError::InvalidCertificate(expired)).contains("certificate has expired; --insecure"));
        assert_eq!(io_error_text(&io::Error::from_raw_os_error(113)), "No route to host");
        assert_eq!(rounded(Duration::from_secs(86_400 * 3)), "3 days");
    }
}
