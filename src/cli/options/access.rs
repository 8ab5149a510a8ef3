//! Options of access: which clients may connect.

use super::Section::Access;
use super::{OptionSpec, set};
use crate::config::{AllowedOrigins, ProxyProtocol, TrustedProxies};

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
    "PROXY protocol (version 1 or 2) of --trusted-proxies, in front of TLS: they may send a header with the address \
     of the client, or each connection has to be theirs and begin with one",
);
