//! Connections and requests that are refused: each is counted and is a line at `debug`; those that an
//! operator may have to mend are a line at `info` as well, at most one a minute for each cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use strum::VariantArray;

use super::client_endpoint::ClientEndpoint;
use super::clock;
use super::log_limit::LogLimit;
use super::reloadable::ReloadableLogIp;

/// Cause of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum RefusalCause {
    /// A page of an origin that is not allowed.
    ForeignOrigin,
    /// A header of the PROXY protocol that the port does not expect, or not from this peer.
    ProxyHeader,
    /// No header of the PROXY protocol from a trusted proxy, though each connection has to begin with one.
    MissingProxyHeader,
    /// A header of the PROXY protocol that is malformed or too long.
    InvalidProxyHeader,
    /// A client without a token, though clients need one.
    MissingToken,
    /// A token that is unknown, malformed, wrongly signed, or not for this server.
    InvalidToken,
    /// A token whose time is over.
    ExpiredToken,
    /// A token that is not for the room key.
    ForbiddenKey,
    /// A client that the program that decides about tokens refuses for a while.
    TooManyTokenRequests,
    /// No answer of the program that decides about tokens.
    AuthUnavailable,
    /// TLS to a port of plain text.
    TlsOnPlainPort,
    /// HTTP in plain text to a port of TLS.
    HttpOnTlsPort,
    /// A client without a certificate, though clients need one.
    MissingClientCertificate,
    /// A client's certificate that is of no known authority, expired, revoked, or not its own.
    InvalidClientCertificate,
    /// A TLS handshake that failed.
    TlsHandshake,
    /// A TLS handshake or a request that did not arrive in time.
    Timeout,
    /// A client of a node of a cluster whose address another node has taken.
    Replaced,
    /// The beginning of HTTP/2, which is not served.
    Http2,
    /// Bytes that are no HTTP request, or one that is too long.
    InvalidHttp,
    /// A request with a response of status 4xx.
    Request,
}

impl RefusalCause {
    /// Number of causes.
    const COUNT: usize = RefusalCause::VARIANTS.len();

    /// Returns the name in the JSON status.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns a description of the cause.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            RefusalCause::ForeignOrigin => "the origin of the page is not allowed",
            RefusalCause::ProxyHeader => "a PROXY protocol header, which this port does not expect",
            RefusalCause::MissingProxyHeader => "no PROXY protocol header of a trusted proxy",
            RefusalCause::InvalidProxyHeader => "a PROXY protocol header that is malformed",
            RefusalCause::MissingToken => "no token",
            RefusalCause::InvalidToken => "an invalid token",
            RefusalCause::ExpiredToken => "an expired token",
            RefusalCause::ForbiddenKey => "a token that is not for the room key",
            RefusalCause::TooManyTokenRequests => {
                "too many requests, according to the program of --auth callout"
            }
            RefusalCause::AuthUnavailable => "no usable answer of the program of --auth callout",
            RefusalCause::TlsOnPlainPort => "TLS to a port of plain text",
            RefusalCause::HttpOnTlsPort => "plain text to a port of TLS",
            RefusalCause::MissingClientCertificate => "no certificate of the client",
            RefusalCause::InvalidClientCertificate => "a certificate of the client that is not valid here",
            RefusalCause::TlsHandshake => "the TLS handshake failed",
            RefusalCause::Timeout => "no TLS handshake or request in time",
            RefusalCause::Replaced => "another node of the cluster has the address of this one",
            RefusalCause::Http2 => "HTTP/2, which this server does not speak",
            RefusalCause::InvalidHttp => "not an HTTP request, or too long",
            RefusalCause::Request => "a request that this server does not grant",
        }
    }

    /// Returns true if the operator may have to mend a configuration.
    const fn is_for_operators(self) -> bool {
        match self {
            RefusalCause::ForeignOrigin
            | RefusalCause::ProxyHeader
            | RefusalCause::MissingProxyHeader
            | RefusalCause::InvalidProxyHeader
            | RefusalCause::AuthUnavailable
            | RefusalCause::TlsOnPlainPort
            | RefusalCause::HttpOnTlsPort
            | RefusalCause::Replaced
            | RefusalCause::Http2 => true,
            RefusalCause::TlsHandshake
            | RefusalCause::MissingClientCertificate
            | RefusalCause::InvalidClientCertificate
            | RefusalCause::MissingToken
            | RefusalCause::InvalidToken
            | RefusalCause::ExpiredToken
            | RefusalCause::ForbiddenKey
            | RefusalCause::TooManyTokenRequests
            | RefusalCause::Timeout
            | RefusalCause::InvalidHttp
            | RefusalCause::Request => false,
        }
    }
}

/// Counts of refusals by cause.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: [AtomicU64; RefusalCause::COUNT],
    lines: Mutex<[LogLimit; RefusalCause::COUNT]>,
    log_ip: Arc<ReloadableLogIp>,
}

impl Refusals {
    pub(crate) fn new(log_ip: &Arc<ReloadableLogIp>) -> Self {
        Refusals { log_ip: Arc::clone(log_ip), ..Refusals::default() }
    }

    /// Counts and logs a refusal. `status` is that of the HTTP response, if there was one.
    pub(crate) fn refuse(&self, cause: RefusalCause, endpoint: ClientEndpoint, status: Option<u16>) {
        let (index, description) = (cause as usize, cause.description());
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        let remote = || endpoint.remote.and_then(|remote| self.log_ip.get().format(remote));
        tracing::debug!(remote = remote(), tls = endpoint.tls, status, cause = description, "refused");
        if cause.is_for_operators()
            && let Some(count) = self.lines.lock()[index].count(clock::now())
        {
            tracing::info!(
                count,
                cause = description,
                "refused connections or requests; at most one line a minute for each cause"
            );
        }
    }

    /// Returns the number of refusals so far, by cause.
    pub(crate) fn counts(&self) -> Vec<(RefusalCause, u64)> {
        let count = |cause: &RefusalCause| (*cause, self.counts[*cause as usize].load(Ordering::Relaxed));
        RefusalCause::VARIANTS.iter().map(count).collect()
    }
}
