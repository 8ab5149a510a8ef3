//! The token of a request, which is taken out of it: nothing that reads or logs the request sees it.

use std::fmt;

use hyper::Request;
use hyper::header::{self, HeaderValue};
use hyper::http::uri::PathAndQuery;

/// Name of the query's parameter.
const PARAMETER: &str = "token";
/// Beginning of the subprotocol that is a token.
const SUBPROTOCOL: &str = "token.";

/// The token of a client. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RequestToken(String);

impl RequestToken {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
impl From<&str> for RequestToken {
    fn from(token: &str) -> Self {
        RequestToken(token.to_owned())
    }
}

impl fmt::Debug for RequestToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestToken({} bytes)", self.0.len())
    }
}

/// Takes the token out of a request: `Authorization: Bearer TOKEN`, the subprotocol `token.TOKEN`, or
/// `?token=`; the first of these if there are several. All are removed.
pub(crate) fn take_token<B>(request: &mut Request<B>) -> Option<RequestToken> {
    let authorization = take_authorization(request);
    let subprotocol = take_subprotocol(request);
    let parameter = take_parameter(request);
    authorization.or(subprotocol).or(parameter).filter(|token| !token.is_empty()).map(RequestToken)
}

fn take_authorization<B>(request: &mut Request<B>) -> Option<String> {
    let value = request.headers_mut().remove(header::AUTHORIZATION)?;
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

fn take_subprotocol<B>(request: &mut Request<B>) -> Option<String> {
    let headers = request.headers();
    let offered =
        headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let names = offered.flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty());
    let (tokens, others): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with(SUBPROTOCOL));
    let token = tokens.first()?.strip_prefix(SUBPROTOCOL).map(str::to_owned);
    let others = HeaderValue::from_str(&others.join(", ")).ok().filter(|others| !others.is_empty());
    let headers = request.headers_mut();
    match others {
        Some(others) => {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, others);
        }
        None => {
            headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        }
    }
    token
}

fn take_parameter<B>(request: &mut Request<B>) -> Option<String> {
    let query = request.uri().query()?;
    let is_token = |pair: &&str| pair.split('=').next() == Some(PARAMETER);
    let pair = query.split('&').find(is_token)?;
    let path = request.uri().path();
    let (pair, target) = match appended_key(path, query) {
        Some((pair, target)) => (pair, target),
        None => {
            let rest: Vec<&str> = query.split('&').filter(|pair| !is_token(pair)).collect();
            (pair, if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) })
        }
    };
    let token = form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned());
    let mut parts = request.uri().clone().into_parts();
    // Parts of a target that was valid are.
    parts.path_and_query = Some(PathAndQuery::try_from(target).unwrap_or(PathAndQuery::from_static("/")));
    *request.uri_mut() = hyper::Uri::from_parts(parts).unwrap_or_default();
    token
}

/// Returns the parameter and the target that are meant if a client has appended a slash and its key to a URL
/// that ends in the token, as those of netflux 1.1.0-beta.7 to 4 do: `/?token=TOKEN/KEY`.
fn appended_key<'a>(path: &str, query: &'a str) -> Option<(&'a str, String)> {
    let mut start = 0;
    let pair = query.split('&').find(|pair| {
        let is_token = pair.strip_prefix(PARAMETER).is_some_and(|rest| rest.starts_with('='));
        start += if is_token { 0 } else { pair.len() + 1 };
        is_token
    })?;
    let (pair, _) = pair.split_once('/').filter(|_| path == "/")?;
    let (before, rest) = query.split_at(start);
    let (_, key) = rest.split_once('/')?;
    // The only character that a query may have and a path may not.
    let key = key.replace('`', "%60");
    let separator = match (before.is_empty(), key.contains('?')) {
        (true, _) => "",
        (false, true) => "&",
        (false, false) => "?",
    };
    Some((pair, format!("/{key}{separator}{}", before.trim_end_matches('&'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(uri: &str, headers: &[(&str, &str)]) -> (Option<String>, String, String) {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        let token = take_token(&mut request).map(|token| token.0);
        assert!(!request.headers().contains_key("authorization"));
        let offered = request.headers().get("sec-websocket-protocol");
        let offered = offered.map_or(String::new(), |offered| offered.to_str().unwrap().to_owned());
        (token, request.uri().to_string(), offered)
    }

    #[test]
    fn token_is_found_and_removed() {
        let protocol = "sec-websocket-protocol";
        for (uri, headers, token, rest, offered) in [
            ("/k", &[][..], None, "/k", ""),
            ("/k?token=abc", &[], Some("abc"), "/k", ""),
            ("/k?a=1&token=a%2Bb&favored", &[], Some("a+b"), "/k?a=1&favored", ""),
            ("/?token=a&open=k%201&token=b", &[], Some("a"), "/?open=k%201", ""),
            ("/?tokens=a&x=token", &[], None, "/?tokens=a&x=token", ""),
            ("/?token", &[], None, "/", ""),
            ("/?token=", &[], None, "/", ""),
            ("/k", &[("authorization", "Bearer abc")], Some("abc"), "/k", ""),
            ("/k", &[("authorization", "bearer  abc ")], Some("abc"), "/k", ""),
            ("/k", &[("authorization", "Basic abc")], None, "/k", ""),
            ("/k", &[(protocol, "chat, token.a.b.c")], Some("a.b.c"), "/k", "chat"),
            ("/k", &[(protocol, "token.a"), (protocol, "x,y")], Some("a"), "/k", "x, y"),
            ("/k", &[(protocol, "token.a")], Some("a"), "/k", ""),
            ("/k", &[(protocol, "x,y")], None, "/k", "x,y"),
            ("/k?token=c", &[("authorization", "Bearer a"), (protocol, "token.b,x")], Some("a"), "/k", "x"),
            ("http://host/k?token=c", &[], Some("c"), "http://host/k", ""),
            ("http://host/?token=c/k", &[], Some("c"), "http://host/k", ""),
            ("/?token=a/k", &[], Some("a"), "/k", ""),
            ("/?token=a/", &[], Some("a"), "/", ""),
            ("/?token=a%2Fb%2B/k%201/c&d", &[], Some("a/b+"), "/k%201/c&d", ""),
            ("/?token=a/k?favored", &[], Some("a"), "/k?favored", ""),
            ("/?token=a/k/?token=b", &[], Some("a"), "/k/?token=b", ""),
            ("/?x=1&y&token=a/k", &[], Some("a"), "/k?x=1&y", ""),
            ("/?x=/&token=a/k?favored", &[], Some("a"), "/k?favored&x=/", ""),
            ("/?token=a/{`}", &[], Some("a"), "/{%60}", ""),
            ("/?token=a&x=/k", &[], Some("a"), "/?x=/k", ""),
            ("/?x=/k&token=a", &[], Some("a"), "/?x=/k", ""),
            ("/k?token=a/b", &[], Some("a/b"), "/k", ""),
            ("/?token=a/k", &[(protocol, "token.b")], Some("b"), "/k", ""),
        ] {
            let expected = (token.map(str::to_owned), rest.to_owned(), offered.to_owned());
            assert_eq!(taken(uri, headers), expected, "{uri} {headers:?}");
        }
    }

    #[test]
    fn debug_output_has_no_token() {
        assert_eq!(format!("{:?}", RequestToken::from("secret")), "RequestToken(6 bytes)");
    }
}
