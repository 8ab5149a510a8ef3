//! Addresses to listen on.

use std::fmt;
use std::path::PathBuf;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddress {
    /// A TCP port.
    Tcp {
        /// IPv4 or IPv6 address, or a name to resolve. Empty means every interface of both families.
        host: String,
        /// Port; 0 lets the system choose one.
        port: u16,
    },
    /// A Unix domain socket at this path, always without TLS.
    Unix(PathBuf),
    /// A socket of this name that systemd opened (`FileDescriptorName=` of its unit).
    Inherited(String),
}

impl ListenAddress {
    /// Parses `unix:PATH`, `fd:NAME`, or `HOST:PORT` with an IPv6 address in brackets. Returns `None` if the
    /// text is another.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return (!path.is_empty()).then(|| ListenAddress::Unix(path.into()));
        }
        if let Some(name) = text.strip_prefix("fd:") {
            return (!name.is_empty()).then(|| ListenAddress::Inherited(name.to_owned()));
        }
        let (host, port) = text.rsplit_once(':')?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let port = port.parse().ok()?;
        (bracketed || !host.contains(':')).then(|| ListenAddress::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp { host, port } => write!(f, "{host}:{port}"),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenAddress::Inherited(name) => write!(f, "fd:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        let tcp = |host: &str, port| Some(ListenAddress::Tcp { host: host.to_owned(), port });
        for (text, address) in [
            ("127.0.0.1:80", tcp("127.0.0.1", 80)),
            ("[::1]:8000", tcp("[::1]", 8000)),
            (":0", tcp("", 0)),
            ("localhost:1", tcp("localhost", 1)),
            ("unix:/run/s", Some(ListenAddress::Unix("/run/s".into()))),
            ("fd:sigver.socket", Some(ListenAddress::Inherited("sigver.socket".to_owned()))),
            ("unix:", None),
            ("fd:", None),
            ("80", None),
            ("::1:80", None),
            ("host:99999", None),
            ("", None),
        ] {
            assert_eq!(ListenAddress::parse(text), address, "{text}");
            if let Some(address) = address {
                assert_eq!(address.to_string(), text);
            }
        }
    }
}
