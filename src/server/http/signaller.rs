//! HTTP on the signaller paths, with the responses of signallerd (measured).

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::UpgradeTarget;
use super::signaller_admission::{Rejection, SignallerRequest, admit};
use super::upgrade::{accept_key, has_token, is_upgrade, switching_protocols};
use crate::protocol::signaller::handle::Endpoint;
use crate::server::signaller::Signaller;

/// Returns the response to a request for an endpoint of signaller, and the WebSocket that it grants.
/// `origin_is_listed` is true if the origin is one of those that are allowed for all protocols.
pub(super) async fn respond<B>(
    signaller: &Arc<Signaller>,
    endpoint: Endpoint,
    request: &Request<B>,
    origin_is_listed: bool,
) -> (Response<Full<Bytes>>, Option<UpgradeTarget>) {
    let headers = request.headers();
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let accept_key = accept_key(headers);
    let facts = SignallerRequest {
        get: request.method() == Method::GET,
        upgrade: is_upgrade(request),
        version: has_token(headers, header::SEC_WEBSOCKET_VERSION, "13"),
        key: accept_key.is_some(),
        origin: text(header::ORIGIN),
        origin_is_listed,
        host: request
            .uri()
            .authority()
            .map_or_else(|| text(header::HOST).unwrap_or_default(), |authority| authority.as_str()),
    };
    match (admit(signaller, endpoint, &facts).await, accept_key) {
        (Ok(admitted), Some(accept_key)) => {
            let target = UpgradeTarget::Signaller(Arc::clone(signaller), admitted);
            (switching_protocols(accept_key), Some(target))
        }
        // Unreachable: a request without a key is rejected.
        (Ok(_), None) => (reject(Rejection::NoUpgrade), None),
        (Err(rejection), _) => (reject(rejection), None),
    }
}

/// Returns the response to a request that is not admitted.
pub(super) fn reject(rejection: Rejection) -> Response<Full<Bytes>> {
    let (status, text, has_version) = match rejection {
        Rejection::NoSuchPath => (StatusCode::NOT_FOUND, "404 page not found\n", false),
        Rejection::HandleTaken => (StatusCode::CONFLICT, "", false),
        Rejection::NoListener => (StatusCode::NOT_FOUND, "", false),
        Rejection::NoUpgrade => (StatusCode::BAD_REQUEST, "Bad Request\n", true),
        Rejection::Method => (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n", true),
        Rejection::Origin => (StatusCode::FORBIDDEN, "Forbidden\n", true),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if !text.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    if has_version {
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}
