//! Settings of access: which clients may connect.

mod origins;
mod trusted_proxies;

pub use origins::{AllowedOrigins, OriginPattern};
pub use trusted_proxies::{IpNetwork, TrustedProxies};

/// Settings of who may connect. By default every client may.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct AccessConfig {
    /// Origins of the pages that may connect.
    pub allowed_origins: AllowedOrigins,
    /// Proxies whose reports of their clients' addresses are believed.
    pub trusted_proxies: TrustedProxies,
}

impl AccessConfig {
    /// Returns the long names of all options of access, each with true if its value differs in `other`.
    pub(super) fn differences(&self, other: &AccessConfig) -> Vec<(&'static str, bool)> {
        // Taken apart, so that a new setting does not compile until it has a name here.
        let AccessConfig { allowed_origins, trusted_proxies } = self;
        vec![
            ("allowed-origins", *allowed_origins != other.allowed_origins),
            ("trusted-proxies", *trusted_proxies != other.trusted_proxies),
        ]
    }
}
