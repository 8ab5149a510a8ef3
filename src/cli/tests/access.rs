//! The options of access, and their values that the test of all options gives.

use std::time::Duration;

use super::{config, defaults, failure};
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
            callout_timeout: Duration::from_millis(30),
            callout_cache: Duration::from_secs(31),
            ..AuthConfig::default()
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

#[test]
fn settings_of_signed_tokens_reach_the_configuration() {
    let args = ["--auth", "jwt:k", "--auth-jwt-claim", "rooms", "--auth-jwt-audience", "sigver"];
    let auth = AuthConfig {
        method: AuthMethod::Jwt("k".into()),
        jwt_claim: "rooms".into(),
        jwt_audience: Some("sigver".into()),
        ..AuthConfig::default()
    };
    let config = config(&args, &[]);
    assert_eq!(config.access.auth, auth);
    let differing = config.differing_options(&defaults());
    assert_eq!(differing, ["auth", "auth-jwt-claim", "auth-jwt-audience"]);
}

#[test]
fn settings_of_tokens_that_are_not_needed_are_errors() {
    for (args, message) in [
        (
            ["--auth-jwt-claim", "rooms"],
            "'--auth-jwt-claim' is for '--auth jwt:<path>': add that, or remove it",
        ),
        (
            ["--auth-callout-timeout", "9"],
            "'--auth-callout-timeout' is for '--auth callout:<url>': add that, or",
        ),
    ] {
        let error = failure(&args, &[]);
        assert!(error.contains(message), "{error}");
    }
}
