//! HTTP on the paths of the relay, in the words of the original. Who is admitted, [`crate::server::signaller`] decides.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::{UpgradeTarget, accept_key, has_token, switching};
use crate::server::signaller::Signaller;
use crate::server::signaller::admission::{Rejection, SignallerRequest};

/// The relay's answer to a request; `None` if the request is not the relay's to answer.
pub(super) fn answer<B>(
    signaller: Option<&Arc<Signaller>>,
    request: &Request<B>,
) -> Option<(Response<Full<Bytes>>, Option<UpgradeTarget>)> {
    let signaller = signaller?;
    let headers = request.headers();
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let target = match signaller.claims(request.uri().path()) {
        Ok(None) => return None,
        Ok(Some(target)) => target,
        Err(refusal) => return Some((refused(refusal), None)),
    };
    let accepted = accept_key(headers);
    let knock = SignallerRequest {
        get: request.method() == Method::GET,
        upgrade: request.version() == Version::HTTP_11
            && has_token(headers, header::CONNECTION, "upgrade")
            && has_token(headers, header::UPGRADE, "websocket"),
        version: has_token(headers, header::SEC_WEBSOCKET_VERSION, "13"),
        key: accepted.is_some(),
        origin: text(header::ORIGIN),
        host: request
            .uri()
            .authority()
            .map_or_else(|| text(header::HOST).unwrap_or_default(), |authority| authority.as_str()),
    };
    Some(match (signaller.knock(target, &knock), accepted) {
        (Ok(call), Some(accepted)) => {
            (switching(accepted), Some(UpgradeTarget::Relay(Arc::clone(signaller), call)))
        }
        // Nobody is admitted without a key.
        (Ok(_), None) => (refused(Rejection::NoUpgrade), None),
        (Err(refusal), _) => (refused(refusal), None),
    })
}

fn refused(refusal: Rejection) -> Response<Full<Bytes>> {
    let (status, text, is_upgrade) = match refusal {
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
    if is_upgrade {
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}
