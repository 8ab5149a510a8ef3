//! The WebSocket handshake (RFC 6455 §4.2), and responses to plain requests.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::protocol::dialect::UpgradeRequest;

const GREETING: &str = "sigver: a WebRTC signaling server; connect with a WebSocket\n";
const UPGRADE_REQUIRED: &str = "426 Upgrade Required: on this path there are WebSockets only\n";
pub(super) const NOT_FOUND: &str = "404 Not Found: connections are opened by GET\n";

/// Returns the response to a request, and the request for a WebSocket that the response grants.
pub(super) fn respond<B>(request: &Request<B>) -> (Response<Full<Bytes>>, Option<UpgradeRequest>) {
    if request.method() == Method::GET && is_upgrade(request) {
        return match accept(request) {
            Ok(response) => (response, Some(parse_upgrade(request))),
            Err(response) => (*response, None),
        };
    }
    let root = request.uri().path() == "/";
    let response = match *request.method() {
        Method::GET | Method::HEAD if root => plain(StatusCode::OK, GREETING),
        Method::GET | Method::HEAD => {
            let mut response = plain(StatusCode::UPGRADE_REQUIRED, UPGRADE_REQUIRED);
            let headers = response.headers_mut();
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            response
        }
        _ => plain(StatusCode::NOT_FOUND, NOT_FOUND),
    };
    (response, None)
}

/// Returns a response of plain text.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Returns true if the request asks for an upgrade to WebSocket, by whatever method.
pub(super) fn is_upgrade<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && has_token(request.headers(), header::CONNECTION, "upgrade")
        && has_token(request.headers(), header::UPGRADE, "websocket")
}

/// Returns true if one of the comma-separated values of a header is `token`.
pub(super) fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Returns the response to a request for a WebSocket: that of sigver 20.1.0 (measured), which declines
/// extensions and selects the first subprotocol offered.
fn accept<B>(request: &Request<B>) -> Result<Response<Full<Bytes>>, Box<Response<Full<Bytes>>>> {
    let headers = request.headers();
    let bad_request = |text| {
        let mut response = plain(StatusCode::BAD_REQUEST, text);
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        Err(Box::new(response))
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return bad_request("400 Bad Request: the WebSocket version must be 13\n");
    }
    let Some(accept_key) = accept_key(headers) else {
        return bad_request("400 Bad Request: Sec-WebSocket-Key is missing or malformed\n");
    };
    let mut response = switching_protocols(accept_key);
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    if let Some(first) = offered.and_then(|list| list.split(',').map(str::trim).find(|name| !name.is_empty()))
        && let Ok(first) = HeaderValue::from_str(first)
    {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, first);
    }
    Ok(response)
}

/// Returns the value of `Sec-WebSocket-Accept`, or `None` if the request has no key of 16 bytes in base64.
pub(super) fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

/// Returns the response that grants a WebSocket.
pub(super) fn switching_protocols(accept_key: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_key);
    response
}

fn parse_upgrade<B>(request: &Request<B>) -> UpgradeRequest {
    let uri = request.uri();
    let mut names =
        uri.query().unwrap_or_default().split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    UpgradeRequest {
        path: uri.path().to_owned(),
        favored: names.any(|name| name == "favored"),
        from_page: request.headers().contains_key(header::ORIGIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    const UPGRADE: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];

    #[test]
    fn upgrade_is_accepted() {
        let (response, upgrade) = respond(&request("/k%20%2Fx?a=1&favored=false", &UPGRADE));
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
        assert_eq!(
            upgrade,
            Some(UpgradeRequest { path: "/k%20%2Fx".into(), favored: true, from_page: false })
        );
    }

    #[test]
    fn first_subprotocol_is_selected() {
        let headers = [&UPGRADE[..], &[("sec-websocket-protocol", "aaa, bbb")]].concat();
        assert_eq!(respond(&request("/k", &headers)).0.headers()["sec-websocket-protocol"], "aaa");
    }

    #[test]
    fn malformed_upgrade_is_rejected() {
        for (at, value) in [(3, "12"), (2, "short")] {
            let mut headers = UPGRADE;
            headers[at].1 = value;
            let (response, upgrade) = respond(&request("/k", &headers));
            assert_eq!((response.status(), upgrade), (StatusCode::BAD_REQUEST, None));
        }
    }

    #[test]
    fn plain_requests_get_a_text() {
        for (request, status) in [
            (request("/", &[]), 200),
            (request("/abc", &[]), 426),
            (Request::post("/").body(()).unwrap(), 404),
            (Request::options("/x").body(()).unwrap(), 404),
        ] {
            let (response, upgrade) = respond(&request);
            assert_eq!((response.status().as_u16(), upgrade), (status, None));
            assert_eq!(response.headers()["access-control-allow-origin"], "*");
        }
    }
}
