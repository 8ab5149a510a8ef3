//! Who is admitted: the checks of the original, in its order, on what a request says. Pure but for the handles it
//! takes. The wording of HTTP is the server's business.

use std::sync::Arc;

use regex_lite::Regex;

use super::registry::{ConnectorSlot, ListenerGuard, Registry};
use super::task::PipeSocket;
use crate::protocol::signaller::handle::Endpoint;

/// What matters of a request on one of the relay's paths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignallerRequest<'a> {
    /// Its method is GET.
    pub get: bool,
    /// It asks for a WebSocket, in HTTP/1.1.
    pub upgrade: bool,
    /// It asks for version 13 of the protocol.
    pub version: bool,
    /// It has a key from which to make the answer.
    pub key: bool,
    /// The first `Origin` header, as far as it is text.
    pub origin: Option<&'a str>,
    /// The host that the client wanted to reach, with its port if it named one.
    pub host: &'a str,
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The path is none of the relay's, or its handle is malformed.
    NoSuchPath,
    /// Somebody else listens there.
    HandleTaken,
    /// Nobody listens there.
    NoListener,
    /// It is no proper request for a WebSocket.
    NoUpgrade,
    /// It is one, but not with GET.
    Method,
    /// Its origin is not allowed here.
    Origin,
}

/// A request that was admitted.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// It listens.
    Listen(ListenerGuard<PipeSocket>),
    /// It will be the guest of a listener.
    Connect(ConnectorSlot<PipeSocket>),
}

/// Decides about a request, and takes the handle if it is admitted. A request that is refused takes nothing: a
/// listener is not lost to a connection that never could be.
pub(super) fn knock(
    registry: &Arc<Registry<PipeSocket>>,
    allowed: Option<&Regex>,
    target: Endpoint,
    knock: &SignallerRequest<'_>,
) -> Result<Admitted, Rejection> {
    match (&target, registry.has(target.handle())) {
        (Endpoint::Listen(_), true) => return Err(Rejection::HandleTaken),
        (Endpoint::Connect(_), false) => return Err(Rejection::NoListener),
        (Endpoint::Listen(_), false) | (Endpoint::Connect(_), true) => {}
    }
    if !knock.upgrade {
        return Err(Rejection::NoUpgrade);
    }
    if !knock.get {
        return Err(Rejection::Method);
    }
    if !knock.version {
        return Err(Rejection::NoUpgrade);
    }
    if !is_allowed(allowed, knock.origin, knock.host) {
        return Err(Rejection::Origin);
    }
    if !knock.key {
        return Err(Rejection::NoUpgrade);
    }
    // Somebody may have been faster since we looked.
    match target {
        Endpoint::Listen(handle) => {
            registry.listen(handle).map(Admitted::Listen).ok_or(Rejection::HandleTaken)
        }
        Endpoint::Connect(handle) => {
            registry.claim(&handle).map(Admitted::Connect).ok_or(Rejection::NoListener)
        }
    }
}

/// Whether an origin may come in.
///
/// The original panicked where there is an expression and the request has no `Origin`, and hung up. We refuse: who
/// sets an expression wants to know where each client comes from, and nobody ever got in without saying so.
/// (To let such clients in, an expression would have to match the absence of a header.)
fn is_allowed(allowed: Option<&Regex>, origin: Option<&str>, host: &str) -> bool {
    match (allowed, origin) {
        (Some(expression), Some(origin)) => expression.is_match(origin),
        (Some(_), None) => false,
        (None, Some(origin)) => host_of(origin).eq_ignore_ascii_case(host),
        (None, None) => true,
    }
}

/// The host and port of a URL; nothing if it has none, as `null` (which then is no host's origin).
fn host_of(origin: &str) -> &str {
    let authority = origin.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: SignallerRequest<'_> =
        SignallerRequest { get: true, upgrade: true, version: true, key: true, origin: None, host: "x" };

    fn ask(
        registry: &Arc<Registry<PipeSocket>>,
        path: &str,
        request: SignallerRequest<'_>,
    ) -> Result<Admitted, Rejection> {
        knock(registry, None, Endpoint::parse(path).unwrap(), &request)
    }

    // The recording of signallerd, scenario `http`.
    #[test]
    fn the_checks_have_their_order() {
        let registry = Arc::default();
        let plain = SignallerRequest { upgrade: false, version: false, key: false, ..GOOD };
        assert_eq!(ask(&registry, "/listen/abc", plain).unwrap_err(), Rejection::NoUpgrade);
        assert_eq!(ask(&registry, "/connect/abc", plain).unwrap_err(), Rejection::NoListener);
        let post = SignallerRequest { get: false, ..plain };
        assert_eq!(ask(&registry, "/listen/abc", post).unwrap_err(), Rejection::NoUpgrade);
        let post = SignallerRequest { get: false, ..GOOD };
        assert_eq!(ask(&registry, "/listen/abc", post).unwrap_err(), Rejection::Method);
        let (version, key) =
            (SignallerRequest { version: false, ..GOOD }, SignallerRequest { key: false, ..GOOD });
        assert_eq!(ask(&registry, "/listen/abc", version).unwrap_err(), Rejection::NoUpgrade);
        assert_eq!(ask(&registry, "/listen/abc", key).unwrap_err(), Rejection::NoUpgrade);

        let listening = ask(&registry, "/listen/abc", GOOD).unwrap();
        assert!(matches!(listening, Admitted::Listen(_)));
        assert_eq!(ask(&registry, "/listen/abc", plain).unwrap_err(), Rejection::HandleTaken);
        assert_eq!(ask(&registry, "/listen/abc", GOOD).unwrap_err(), Rejection::HandleTaken);
        assert_eq!(ask(&registry, "/connect/abc", plain).unwrap_err(), Rejection::NoUpgrade);
        assert!(matches!(ask(&registry, "/connect/abc", GOOD), Ok(Admitted::Connect(_))));
        assert_eq!(ask(&registry, "/connect/abc", GOOD).unwrap_err(), Rejection::NoListener);
        assert!(ask(&registry, "/listen/abc", GOOD).is_ok());
    }

    #[test]
    fn without_an_expression_the_origin_is_the_server_itself() {
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

    // The recording of signallerd, scenario `origin_re`; there a missing origin got no answer at all.
    #[test]
    fn an_expression_decides_alone() {
        let expression = Regex::new(r"^https://ok\.example$").unwrap();
        let allows = |origin| is_allowed(Some(&expression), origin, "x");
        assert!(allows(Some("https://ok.example")));
        assert!(!allows(Some("https://bad.example")));
        assert!(!allows(Some("http://x")));
        assert!(!allows(None));
    }
}
