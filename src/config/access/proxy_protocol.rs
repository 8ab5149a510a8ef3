//! Use of the PROXY protocol.

use crate::config::parse::ValueError;

/// Use of the PROXY protocol, by which trusted proxies report the addresses of their clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// A header is an error.
    #[default]
    Off,
    /// A trusted proxy may send a header, of version 1 or 2.
    Optional,
    /// Each connection has to be that of a trusted proxy, and to begin with a header.
    Required,
}

impl ProxyProtocol {
    /// Parses `off`, `optional` or `required`.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| ValueError::Word("off, optional or required"))
    }
}
