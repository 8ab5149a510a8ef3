//! The values of the options of access that the test of all options gives.

use std::time::Duration;

use crate::config::{
    AccessConfig, AllowedOrigins, AuthConfig, AuthMethod, ProxyProtocol, TlsFiles, TrustedProxies,
};

pub(super) fn expected() -> AccessConfig {
    AccessConfig {
        allowed_origins: AllowedOrigins::parse("https://a.example,*.b.example").unwrap(),
        trusted_proxies: TrustedProxies::parse("10.0.0.0/8,unix").unwrap(),
        proxy_protocol: ProxyProtocol::Required,
        auth: AuthConfig {
            method: AuthMethod::Callout("http://a/b".into()),
            jwt_claim: "rooms".into(),
            jwt_audience: Some("sigver".into()),
            callout_timeout: Duration::from_millis(30),
            callout_cache: Duration::from_secs(31),
        },
    }
}

/// Returns the files that the table of all options sets.
pub(super) fn expected_tls() -> TlsFiles {
    TlsFiles {
        key: "k.pem".into(),
        cert: "c.pem".into(),
        ca: Some("a.pem".into()),
        client_ca: Some("o.pem".into()),
    }
}
