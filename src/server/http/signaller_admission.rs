//! Admission of signaller clients: the checks of signallerd in its order, before there is a WebSocket.

use crate::config::OriginPattern;
use crate::protocol::signaller::handle::Endpoint;
use crate::server::signaller::{Admitted, Signaller};

/// The parts of a request that admission depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignallerRequest<'a> {
    /// The method is GET.
    pub(super) get: bool,
    /// The request is an HTTP/1.1 upgrade to a WebSocket.
    pub(super) upgrade: bool,
    /// The protocol version is 13.
    pub(super) version: bool,
    /// There is a valid `Sec-WebSocket-Key`.
    pub(super) key: bool,
    /// The first `Origin` header; empty if it is not ASCII.
    pub(super) origin: Option<&'a str>,
    /// The origin is one of those that are allowed for all protocols.
    pub(super) origin_is_listed: bool,
    /// The requested host, with its port if the client sent one.
    pub(super) host: &'a str,
}

/// The reason why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// The path is none of signaller's, or the handle in it is malformed.
    NoSuchPath,
    /// The handle has a listener.
    HandleTaken,
    /// The handle has no listener.
    NoListener,
    /// The request is not a valid one for a WebSocket.
    NoUpgrade,
    /// The method is not GET.
    Method,
    /// The origin is not allowed.
    Origin,
}

/// Returns the endpoint of a path, or `None` if the request is for another part of the server.
///
/// # Errors
/// Only the signaller protocol is served, and the path is none of its paths.
pub(super) fn match_path(signaller: &Signaller, path: &str) -> Result<Option<Endpoint>, Rejection> {
    match Endpoint::parse(path) {
        None if signaller.is_exclusive() => Err(Rejection::NoSuchPath),
        endpoint => Ok(endpoint),
    }
}

/// Admits a request, which takes the handle. A request that is rejected takes nothing, so that no listener is
/// lost to a connection that fails; a rejection because of the handle goes before others.
pub(super) async fn admit(
    signaller: &Signaller,
    endpoint: Endpoint,
    request: &SignallerRequest<'_>,
) -> Result<Admitted, Rejection> {
    match (endpoint, check(signaller, request)) {
        (Endpoint::Listen(handle), Ok(())) => signaller.listen(handle).await.ok_or(Rejection::HandleTaken),
        (Endpoint::Connect(handle), Ok(())) => signaller.connect(&handle).await.ok_or(Rejection::NoListener),
        (Endpoint::Listen(handle), Err(rejection)) => match signaller.has_listener(&handle).await {
            true => Err(Rejection::HandleTaken),
            false => Err(rejection),
        },
        (Endpoint::Connect(handle), Err(rejection)) => match signaller.has_listener(&handle).await {
            true => Err(rejection),
            false => Err(Rejection::NoListener),
        },
    }
}

/// Checks a request, whatever its handle.
fn check(signaller: &Signaller, request: &SignallerRequest<'_>) -> Result<(), Rejection> {
    if !request.upgrade {
        return Err(Rejection::NoUpgrade);
    }
    if !request.get {
        return Err(Rejection::Method);
    }
    if !request.version {
        return Err(Rejection::NoUpgrade);
    }
    let allowed = signaller.allowed_origin();
    let is_listed = allowed.is_none() && request.origin_is_listed;
    if !is_listed && !is_allowed(allowed, request.origin, request.host) {
        return Err(Rejection::Origin);
    }
    if request.key { Ok(()) } else { Err(Rejection::NoUpgrade) }
}

/// Returns true if the origin is allowed.
///
/// signallerd panicked and closed the connection if there is an expression and the request has no `Origin`.
/// It is rejected here, as an expression means that the origin of each client is to be known.
fn is_allowed(allowed: Option<&OriginPattern>, origin: Option<&str>, host: &str) -> bool {
    match (allowed, origin) {
        (Some(pattern), Some(origin)) => pattern.matches(origin),
        (Some(_), None) => false,
        (None, Some(origin)) => host_of(origin).eq_ignore_ascii_case(host),
        (None, None) => true,
    }
}

/// Returns the host and port of a URL; empty if it has none, as the origin `null`, which then equals no host.
fn host_of(origin: &str) -> &str {
    let authority = origin.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use regex_lite::Regex;

    use super::*;
    use crate::config::SignallerConfig;

    const GOOD: SignallerRequest<'_> = SignallerRequest {
        get: true,
        upgrade: true,
        version: true,
        key: true,
        origin: None,
        origin_is_listed: false,
        host: "x",
    };

    fn ask(signaller: &Signaller, path: &str, request: SignallerRequest<'_>) -> Result<Admitted, Rejection> {
        let admission = admit(signaller, Endpoint::parse(path).unwrap(), &request);
        // One server never waits.
        futures_util::FutureExt::now_or_never(admission).unwrap()
    }

    // The recording of signallerd, scenario `http`.
    #[test]
    fn checks_have_the_order_of_signallerd() {
        let signaller = Signaller::new(SignallerConfig::default(), false);
        let plain = SignallerRequest { upgrade: false, version: false, key: false, ..GOOD };
        assert_eq!(ask(&signaller, "/listen/abc", plain).unwrap_err(), Rejection::NoUpgrade);
        assert_eq!(ask(&signaller, "/connect/abc", plain).unwrap_err(), Rejection::NoListener);
        let post = SignallerRequest { get: false, ..plain };
        assert_eq!(ask(&signaller, "/listen/abc", post).unwrap_err(), Rejection::NoUpgrade);
        let post = SignallerRequest { get: false, ..GOOD };
        assert_eq!(ask(&signaller, "/listen/abc", post).unwrap_err(), Rejection::Method);
        let (version, key) =
            (SignallerRequest { version: false, ..GOOD }, SignallerRequest { key: false, ..GOOD });
        assert_eq!(ask(&signaller, "/listen/abc", version).unwrap_err(), Rejection::NoUpgrade);
        assert_eq!(ask(&signaller, "/listen/abc", key).unwrap_err(), Rejection::NoUpgrade);

        let admitted = ask(&signaller, "/listen/abc", GOOD).unwrap();
        assert!(matches!(admitted, Admitted::Listen(_)));
        assert_eq!(ask(&signaller, "/listen/abc", plain).unwrap_err(), Rejection::HandleTaken);
        assert_eq!(ask(&signaller, "/listen/abc", GOOD).unwrap_err(), Rejection::HandleTaken);
        assert_eq!(ask(&signaller, "/connect/abc", plain).unwrap_err(), Rejection::NoUpgrade);
        assert!(matches!(ask(&signaller, "/connect/abc", GOOD), Ok(Admitted::Connect(_))));
        assert_eq!(ask(&signaller, "/connect/abc", GOOD).unwrap_err(), Rejection::NoListener);
        assert!(ask(&signaller, "/listen/abc", GOOD).is_ok());
    }

    #[test]
    fn without_an_expression_the_origin_must_be_the_server() {
        for (origin, host, allowed) in [
            (None, "x", true),
            (Some("http://x"), "x", true),
            (Some("https://X.example:8000"), "x.example:8000", true),
            (Some("http://x:80"), "x", false),
            (Some("http://evil.example"), "x", false),
            (Some("http://x@evil.example"), "x", false),
            (Some("http://evil.example/://x"), "x", false),
            (Some("http://xy"), "x", false),
            (Some("null"), "x", false),
            (Some(""), "x", false),
            (Some("x"), "x", false),
        ] {
            assert_eq!(is_allowed(None, origin, host), allowed, "{origin:?} at {host}");
        }
    }

    // The recording of signallerd, scenario `origin_re`; there a request without an origin got no response.
    #[test]
    fn expression_alone_decides() {
        let expression = Regex::new(r"^https://ok\.example$").unwrap();
        let expression = OriginPattern::Expression(expression);
        let allows = |origin| is_allowed(Some(&expression), origin, "x");
        assert!(allows(Some("https://ok.example")));
        assert!(!allows(Some("https://bad.example")));
        assert!(!allows(Some("http://x")));
        assert!(!allows(None));
    }

    #[test]
    fn listed_origin_needs_no_other_rule() {
        let request =
            SignallerRequest { origin: Some("https://app.example"), origin_is_listed: true, ..GOOD };
        let signaller = Signaller::new(SignallerConfig::default(), false);
        assert!(ask(&signaller, "/listen/abc", request).is_ok());
        let origin = Some(OriginPattern::Expression(Regex::new("^https://other").unwrap()));
        let signaller = Signaller::new(SignallerConfig { origin, ..SignallerConfig::default() }, false);
        assert_eq!(ask(&signaller, "/listen/abc", request).unwrap_err(), Rejection::Origin);
    }

    #[test]
    fn other_paths_are_rejected_only_by_an_exclusive_server() {
        let shared = Signaller::new(SignallerConfig::default(), false);
        let alone = Signaller::new(SignallerConfig::default(), true);
        for path in ["/", "/listen/ab", "/some-key"] {
            assert_eq!(match_path(&shared, path), Ok(None), "{path}");
            assert_eq!(match_path(&alone, path), Err(Rejection::NoSuchPath), "{path}");
        }
        let target = Endpoint::parse("/listen/abc");
        assert!(target.is_some());
        assert_eq!(match_path(&shared, "/listen/abc"), Ok(target.clone()));
        assert_eq!(match_path(&alone, "/listen/abc"), Ok(target));
    }
}
