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
