//! Settings of access: which clients may connect.

mod auth;
mod origins;
mod proxy_protocol;
mod trusted_proxies;

use super::ConfigError;
pub use auth::{AuthConfig, AuthMethod, DEFAULT_CALLOUT_CACHE, DEFAULT_CALLOUT_TIMEOUT, DEFAULT_JWT_CLAIM};
pub use origins::{AllowedOrigins, OriginPattern};
pub use proxy_protocol::ProxyProtocol;
pub use trusted_proxies::{IpNetwork, TrustedProxies};

/// Settings of who may connect. By default every client may.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct AccessConfig {
    /// Origins of the pages that may connect.
    pub allowed_origins: AllowedOrigins,
    /// Proxies whose reports of their clients' addresses are believed.
    pub trusted_proxies: TrustedProxies,
    /// Use of the PROXY protocol by these.
    pub proxy_protocol: ProxyProtocol,
    /// Authentication of clients.
    pub auth: AuthConfig,
}

impl AccessConfig {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// [`ConfigError::ProxyProtocolWithoutProxies`] or [`ConfigError::AuthMethodMissing`].
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.proxy_protocol != ProxyProtocol::Off && self.trusted_proxies.is_empty() {
            return Err(ConfigError::ProxyProtocolWithoutProxies);
        }
        self.auth.check()
    }

    /// Returns the long names of all options of access, each with true if its value differs in `other`.
    pub(super) fn differences(&self, other: &AccessConfig) -> Vec<(&'static str, bool)> {
        // Taken apart, so that a new setting does not compile until it has a name here.
        let AccessConfig { allowed_origins, trusted_proxies, proxy_protocol, auth } = self;
        let AuthConfig { method, jwt_claim, jwt_audience, callout_timeout, callout_cache } = auth;
        vec![
            ("auth", *method != other.auth.method),
            ("auth-jwt-claim", *jwt_claim != other.auth.jwt_claim),
            ("auth-jwt-audience", *jwt_audience != other.auth.jwt_audience),
            ("auth-callout-timeout", *callout_timeout != other.auth.callout_timeout),
            ("auth-callout-cache", *callout_cache != other.auth.callout_cache),
            ("allowed-origins", *allowed_origins != other.allowed_origins),
            ("proxy-protocol", *proxy_protocol != other.proxy_protocol),
            ("trusted-proxies", *trusted_proxies != other.trusted_proxies),
        ]
    }

    /// Takes over from `newer` what a running gateway can adopt: the tokens and keys of a gateway that has
    /// authentication, as long as that is of some kind, and other allowed origins in place of some.
    pub(super) fn adopt(&mut self, newer: &AccessConfig) {
        if self.auth.method != AuthMethod::None && newer.auth.method != AuthMethod::None {
            self.auth = newer.auth.clone();
        }
        // A gateway that allows any does not look at them.
        let is_any = |access: &AccessConfig| access.allowed_origins == AllowedOrigins::Any;
        if !is_any(self) && !is_any(newer) {
            self.allowed_origins = newer.allowed_origins.clone();
        }
    }
}
