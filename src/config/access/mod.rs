//! Settings of access: which clients may connect.

mod origins;

pub use origins::{AllowedOrigins, OriginPattern};

/// Settings of who may connect. By default every client may.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct AccessConfig {
    /// Origins of the pages that may connect.
    pub allowed_origins: AllowedOrigins,
}
