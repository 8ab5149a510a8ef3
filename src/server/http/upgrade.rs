//! The WebSocket handshake (RFC 6455 §4.2), and responses to plain requests.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::protocol::dialect::UpgradeRequest;

const GREETING: &str = "sigver: a WebRTC signaling server; connect with a WebSocket\n";
const UPGRADE_REQUIRED: &str = "426 Upgrade Required: on this path there are WebSockets only\n";
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
pub(super) const SHORT_OF_MEMORY: &str = "503 Service Unavailable: this server is short of memory\n";
pub(super) const STOPPING: &str = "503 Service Unavailable: this server is stopping\n";
pub(super) const NOT_FOUND: &str = "404 Not Found: connections are opened by GET\n";

/// Returns true if the request is of a page or continues a stream, though its library may not send what
/// it accepts. Health checkers send none of these headers.
pub(super) fn is_of_page(headers: &HeaderMap) -> bool {
    [header::ORIGIN, header::REFERER, LAST_EVENT_ID].iter().any(|name| headers.contains_key(name))
}

/// Returns the response to a request, and the request for a WebSocket that the response grants.
pub(super) fn respond<B>(request: &Request<B>) -> (Response<Full<Bytes>>, Option<UpgradeRequest>) {
    if request.method() == Method::GET && is_upgrade(request) {
        return match accept(request) {
            Ok(response) => (response, Some(parse_upgrade(request))),
            Err(response) => (*response, None),
        };
    }
    let response = match *request.method() {
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

/// Returns the response to a new client of a server that is stopping, or has no memory for it.
pub(super) fn unavailable(text: &'static str) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Returns the response to a health check, which is any plain `GET`, `HEAD` or `OPTIONS` for the path `/`, or
/// `OPTIONS *`. A plain `GET` is one that asks for no WebSocket, if these are served. If only event streams
/// are, requests of pages get the responses of the Node.js servers.
pub(super) fn health_check<B>(request: &Request<B>, websockets: bool) -> Option<Response<Full<Bytes>>> {
    match (request.method(), request.uri().path()) {
        _ if !websockets && is_of_page(request.headers()) => None,
        (&Method::GET, "/") if websockets && is_upgrade(request) => None,
        (&Method::GET | &Method::HEAD, "/") => Some(plain(StatusCode::OK, GREETING)),
        (&Method::OPTIONS, "/" | "*") => {
            let mut response = plain(StatusCode::OK, GREETING);
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS, POST"));
            Some(response)
        }
        _ => None,
    }
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

/// Returns true if the request asks for an upgrade to WebSocket, by whatever method and version of HTTP: a
/// proxy may speak HTTP/1.0 to the server, though its client does not.
pub(super) fn is_upgrade<B>(request: &Request<B>) -> bool {
    has_token(request.headers(), header::CONNECTION, "upgrade")
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
    // Version 8 is a draft with the frames of 13, which every Node.js server granted.
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13" && version != "8") {
        return bad_request("400 Bad Request: the WebSocket version must be 13\n");
    }
    let Some(accept_key) = accept_key(headers) else {
        return bad_request("400 Bad Request: Sec-WebSocket-Key is missing, repeated or malformed\n");
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

/// Returns the value of `Sec-WebSocket-Accept`, or `None` unless the request has exactly one key, as long as
/// 16 bytes in base64. Its characters are not checked, as in the Node.js servers up to sigver 18.
pub(super) fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|key| key.len() == 24 && keys.next().is_none())?;
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

/// Encodes a response of status 101. Its version is 1.1 also if that of the request is 1.0.
pub(super) fn encode<B>(response: &Response<B>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
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
    fn upgrade_over_http_1_0_and_of_version_8_is_accepted() {
        let mut old = request("/k", &UPGRADE);
        *old.version_mut() = hyper::Version::HTTP_10;
        old.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("8"));
        let (response, upgrade) = respond(&old);
        assert_eq!(response.status(), 101);
        assert_eq!(upgrade, Some(UpgradeRequest { path: "/k".into(), favored: false, from_page: false }));
        assert!(encode(&response).starts_with(b"HTTP/1.1 101 "));
    }

    #[test]
    fn malformed_upgrade_is_rejected() {
        let twice = [&UPGRADE[..], &[UPGRADE[2]]].concat();
        assert_eq!(respond(&request("/k", &twice)).0.status(), 400);
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
            (request("/abc", &[]), 426),
            (Request::post("/").body(()).unwrap(), 404),
            (Request::options("/x").body(()).unwrap(), 404),
        ] {
            assert!(health_check(&request, true).is_none());
            let (response, upgrade) = respond(&request);
            assert_eq!((response.status().as_u16(), upgrade), (status, None));
            assert_eq!(response.headers()["access-control-allow-origin"], "*");
        }
    }

    #[test]
    fn health_check_is_a_plain_request_for_the_root() {
        for request in [
            request("/", &[]),
            request("/?check=1", &[]),
            Request::head("/").body(()).unwrap(),
            Request::options("/").body(()).unwrap(),
            Request::options("*").body(()).unwrap(),
        ] {
            assert_eq!(health_check(&request, true).unwrap().status(), 200, "{request:?}");
        }
        let upgrade = request("/", &UPGRADE);
        assert!(health_check(&upgrade, true).is_none());
        assert!(health_check(&upgrade, false).is_some());
    }
}
