//! The causes for which there is no link to another node.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::wire::OtherVersions;

/// The cause of the failure of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkFault {
    /// This node does not know the key of the process that answers.
    UnknownKey,
    /// The other node does not know the key of this one.
    Refused,
    /// The other node ended the connection.
    Ended,
    /// The process that answers speaks no TLS.
    NoTls,
    /// The other node works with other versions of the messages.
    Versions,
    /// Any other.
    Other,
}

impl LinkFault {
    /// Returns the cause of an error.
    pub(super) fn of(error: &io::Error) -> LinkFault {
        if error.get_ref().is_some_and(|source| source.is::<OtherVersions>()) {
            return LinkFault::Versions;
        }
        match error.get_ref().and_then(|source| source.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => LinkFault::UnknownKey,
            Some(Error::AlertReceived(AlertDescription::UnknownCA)) => LinkFault::Refused,
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => LinkFault::NoTls,
            _ if error.kind() == io::ErrorKind::UnexpectedEof => LinkFault::Ended,
            _ => LinkFault::Other,
        }
    }

    /// Returns the text for an error of this cause.
    pub(super) fn describe(self, error: &io::Error) -> String {
        match self {
            LinkFault::UnknownKey => "this node does not know the key of what answers there yet".to_owned(),
            LinkFault::Refused => "the other node does not know the key of this one yet".to_owned(),
            LinkFault::Ended => "the other node ended the connection".to_owned(),
            LinkFault::NoTls => "what answers there is no port for nodes".to_owned(),
            LinkFault::Versions | LinkFault::Other => error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_links_are_explained() {
        let eof = io::Error::new(io::ErrorKind::UnexpectedEof, "peer closed: https://example.org");
        let tls = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let unknown = tls(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let cases = [
            (eof, LinkFault::Ended, "the other node ended the connection"),
            (unknown, LinkFault::UnknownKey, "key of what answers"),
            (tls(Error::AlertReceived(AlertDescription::UnknownCA)), LinkFault::Refused, "key of this one"),
            (
                tls(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
                LinkFault::NoTls,
                "no port for nodes",
            ),
            (io::Error::other("refused"), LinkFault::Other, "refused"),
        ];
        for (error, fault, words) in cases {
            assert_eq!(LinkFault::of(&error), fault);
            assert!(fault.describe(&error).contains(words), "{error}");
        }
    }
}
