//! Who is admitted: the checks of the original, in its order, on what a request says. Pure but for the handles it
//! takes. The wording of HTTP is the server's business.

use std::sync::Arc;

use regex_lite::Regex;

use super::handle::Target;
use super::registry::{Claim, Listening, Registry};
use super::task::Line;

/// What matters of a request on one of the relay's paths.
#[derive(Clone, Copy, Debug)]
pub struct Knock<'a> {
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
pub enum Refusal {
    /// The path is none of the relay's, or its handle is malformed.
    NoSuchPath,
    /// Somebody else listens there.
    Taken,
    /// Nobody listens there.
    Unknown,
    /// It is no proper request for a WebSocket.
    NoUpgrade,
    /// It is one, but not with GET.
    Method,
    /// Its origin is not allowed here.
    Origin,
}

/// A request that was admitted.
#[derive(Debug)]
pub enum Call {
    /// It listens.
    Listen(Listening<Line>),
    /// It will be the guest of a listener.
    Connect(Claim<Line>),
}

/// Decides about a request, and takes the handle if it is admitted. A request that is refused takes nothing: a
/// listener is not lost to a connection that never could be.
pub(super) fn knock(
    registry: &Arc<Registry<Line>>,
    allowed: Option<&Regex>,
    target: Target,
    knock: &Knock<'_>,
) -> Result<Call, Refusal> {
    match (&target, registry.has(target.handle())) {
        (Target::Listen(_), true) => return Err(Refusal::Taken),
        (Target::Connect(_), false) => return Err(Refusal::Unknown),
        (Target::Listen(_), false) | (Target::Connect(_), true) => {}
    }
    if !knock.upgrade {
        return Err(Refusal::NoUpgrade);
    }
    if !knock.get {
        return Err(Refusal::Method);
    }
    if !knock.version {
        return Err(Refusal::NoUpgrade);
    }
    if !is_allowed(allowed, knock.origin, knock.host) {
        return Err(Refusal::Origin);
    }
    if !knock.key {
        return Err(Refusal::NoUpgrade);
    }
    // Somebody may have been faster since we looked.
    match target {
        Target::Listen(handle) => registry.listen(handle).map(Call::Listen).ok_or(Refusal::Taken),
        Target::Connect(handle) => registry.claim(&handle).map(Call::Connect).ok_or(Refusal::Unknown),
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

    const GOOD: Knock<'_> =
        Knock { get: true, upgrade: true, version: true, key: true, origin: None, host: "x" };

    fn ask(registry: &Arc<Registry<Line>>, path: &str, request: Knock<'_>) -> Result<Call, Refusal> {
        knock(registry, None, Target::parse(path).unwrap(), &request)
    }

    // The recording of signallerd, scenario `http`.
    #[test]
    fn the_checks_have_their_order() {
        let registry = Arc::default();
        let plain = Knock { upgrade: false, version: false, key: false, ..GOOD };
        assert_eq!(ask(&registry, "/listen/abc", plain).unwrap_err(), Refusal::NoUpgrade);
        assert_eq!(ask(&registry, "/connect/abc", plain).unwrap_err(), Refusal::Unknown);
        let post = Knock { get: false, ..plain };
        assert_eq!(ask(&registry, "/listen/abc", post).unwrap_err(), Refusal::NoUpgrade);
        let post = Knock { get: false, ..GOOD };
        assert_eq!(ask(&registry, "/listen/abc", post).unwrap_err(), Refusal::Method);
        let (version, key) = (Knock { version: false, ..GOOD }, Knock { key: false, ..GOOD });
        assert_eq!(ask(&registry, "/listen/abc", version).unwrap_err(), Refusal::NoUpgrade);
        assert_eq!(ask(&registry, "/listen/abc", key).unwrap_err(), Refusal::NoUpgrade);

        let listening = ask(&registry, "/listen/abc", GOOD).unwrap();
        assert!(matches!(listening, Call::Listen(_)));
        assert_eq!(ask(&registry, "/listen/abc", plain).unwrap_err(), Refusal::Taken);
        assert_eq!(ask(&registry, "/listen/abc", GOOD).unwrap_err(), Refusal::Taken);
        assert_eq!(ask(&registry, "/connect/abc", plain).unwrap_err(), Refusal::NoUpgrade);
        assert!(matches!(ask(&registry, "/connect/abc", GOOD), Ok(Call::Connect(_))));
        assert_eq!(ask(&registry, "/connect/abc", GOOD).unwrap_err(), Refusal::Unknown);
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
