//! Options of access: which clients may connect.

use super::Section::Access;
use super::{OptionSpec, file, set};
use crate::config::{AllowedOrigins, AuthMethod, ProxyProtocol, TrustedProxies, parse};

pub(super) const ALLOWED_ORIGINS: OptionSpec = set("allowed-origins", "list", "*", |d, v| {
    AllowedOrigins::parse(v).map(|v| d.config.access.allowed_origins = v)
})
.help(
    Access,
    "Origins of the pages that may connect, with commas: https://example.org, example.org (any scheme and port), \
     *.example.org, null, /expression/ for whole origins, or * for any. Requests without an Origin are not from pages",
);

pub(super) const TRUSTED_PROXIES: OptionSpec = set("trusted-proxies", "list", "", |d, v| {
    TrustedProxies::parse(v).map(|v| d.config.access.trusted_proxies = v)
})
.help(
    Access,
    "Proxies that report the addresses of their clients in X-Forwarded-For or Forwarded: addresses and networks \
     such as 10.0.0.0/8, with commas; unix is every peer of a Unix socket. Logs and limits by address are of the \
     right-most address that is none of these",
);

pub(super) const PROXY_PROTOCOL: OptionSpec = set("proxy-protocol", "off|optional|required", "off", |d, v| {
    ProxyProtocol::parse(v).map(|v| d.config.access.proxy_protocol = v)
})
.help(
    Access,
    "PROXY protocol (version 1 or 2), in front of TLS. optional: a connection of --trusted-proxies may begin with a \
     header, which has the address of the client; others may connect without one. required: only --trusted-proxies \
     may connect, each time with a header",
);

pub(super) const CLIENT_CA: OptionSpec = file("client-ca", |d| &mut d.client_ca).help(
    Access,
    "Certificates of the authorities of clients: with TLS, a client without a valid certificate of one of them is \
     refused in the handshake. The file may have their revocation lists, too. Not for Unix sockets",
);

pub(super) const AUTH: OptionSpec = set("auth", "method", "none", |d, v| {
    AuthMethod::parse(v).map(|v| d.config.access.auth.method = v)
})
.help(
    Access,
    "Tokens that clients need: token-file:<path> (lines of a token and its room keys), jwt:<path> (signed with a public \
     key or a secret in this file), callout:<url> (a program of yours decides), or none",
);

pub(super) const AUTH_JWT_CLAIM: OptionSpec = set("auth-jwt-claim", "name", "keys", |d, v| {
    d.config.access.auth.jwt_claim = v.to_owned();
    Ok(())
})
.help(
    Access,
    "Claim of a JSON Web Token that names the room keys: a text or a list, with * for any characters",
);

pub(super) const AUTH_JWT_AUDIENCE: OptionSpec = set("auth-jwt-audience", "name", "", |d, v| {
    d.config.access.auth.jwt_audience = Some(v.to_owned());
    Ok(())
})
.help(
    Access,
    "Audience (aud) that a JSON Web Token must have; without it, tokens for an audience are refused",
);

pub(super) const AUTH_CALLOUT_TIMEOUT: OptionSpec = set("auth-callout-timeout", "ms", "2000", |d, v| {
    parse::milliseconds(v).map(|v| d.config.access.auth.callout_timeout = v)
})
.help(Access, "Longest time for an answer of the program of --auth callout, and before that for a turn to ask it; clients get 503 then");

pub(super) const AUTH_CALLOUT_CACHE: OptionSpec = set("auth-callout-cache", "seconds", "60", |d, v| {
    parse::short_seconds(v).map(|v| d.config.access.auth.callout_cache = v)
})
.help(Access, "Time for which the answers of the program are kept, refusals for 10 s at most; 0 keeps none");
