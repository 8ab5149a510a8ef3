//! Responses to the requests of event streams, with the CORS headers that let the page of any origin read
//! them.

use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::ResponseBody;
use crate::server::transport::sse_body::BodyReceiver;

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Returns a response without a body. `request` are the headers of the request, as for all functions here.
pub(super) fn empty(status: StatusCode, request: &HeaderMap) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(Full::default()));
    *response.status_mut() = status;
    allow_origin(&mut response, request);
    response
}

/// Returns a response of plain text.
pub(super) fn text(status: StatusCode, text: &'static str, request: &HeaderMap) -> Response<ResponseBody> {
    let mut response = empty(status, request);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    *response.body_mut() = ResponseBody::Full(Full::from(text));
    response
}

/// Returns the response of an event stream.
pub(super) fn event_stream(body: BodyReceiver, request: &HeaderMap) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::EventStream(body));
    allow_origin(&mut response, request);
    allow_credentials(&mut response, request);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream;charset=UTF-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    // nginx buffers responses by default, and forwards nothing until it has some kilobytes.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Returns the response to a preflight request.
pub(super) fn preflight(request: &HeaderMap) -> Response<ResponseBody> {
    let mut response = empty(StatusCode::NO_CONTENT, request);
    allow_credentials(&mut response, request);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    if let Some(names) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// Returns a copy of the headers on which [`empty`] depends. It keeps nothing of the rest of the request.
pub(super) fn copy_origin(request: &HeaderMap) -> HeaderMap {
    let mut copy = HeaderMap::new();
    if let Some(origin) = request.get(header::ORIGIN)
        && let Ok(origin) = HeaderValue::from_bytes(origin.as_bytes())
    {
        copy.insert(header::ORIGIN, origin);
    }
    copy
}

/// Lets the page read the response that sent the request.
pub(super) fn allow_origin<B>(response: &mut Response<B>, request: &HeaderMap) {
    if let Some(origin) = request.get(header::ORIGIN) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
}

fn allow_credentials(response: &mut Response<ResponseBody>, request: &HeaderMap) {
    if request.contains_key(header::ORIGIN) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}
