//! HTTP of the event streams: which requests are theirs, who sent them, and what is answered. How frames look in
//! requests and events, [`crate::protocol::dialect::sse`] says; what they mean, the rooms.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Body as _;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_rustls::rustls::crypto::{SecureRandom, ring};

use super::{Body, NOT_FOUND, StreamLifecycle, plain};
use crate::config::EnabledTransports;
use crate::protocol::detect::Policy;
use crate::protocol::dialect::UpgradeRequest;
use crate::protocol::dialect::sse::{
    EventWriter, FINAL_EVENT_ID, SEND_ACK, SseSender, SseVariant, parse_post, parse_query,
};
use crate::protocol::frame::Message;
use crate::server::conn::{self, Shared};
use crate::server::transport::sse_body::{self, EventStream, body, inbox};

/// How long a client may take for the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a frame may wait for the client's stream to take it.
const DELIVERY: Duration = Duration::from_secs(10);
/// How long the answer to a GET that sends is held open, as the originals do for ever: less than a keep-alive.
const HELD: Duration = Duration::from_secs(15);
/// Room for the id before a message in the body of a POST, in bytes.
const MAX_ID: usize = 64;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// By what a client names its stream.
type StreamId = (SseVariant, u64);

/// The event streams of this server.
pub struct SseRegistry {
    shared: Arc<Shared>,
    /// What a client of each style may speak; `None` if that style is not served.
    query: Option<Arc<Policy>>,
    auth: Option<Arc<Policy>>,
    /// Nothing but event streams is served.
    only: bool,
    max_message: usize,
    streams: Mutex<HashMap<StreamId, mpsc::Sender<Message>>>,
    random: &'static dyn SecureRandom,
}

impl fmt::Debug for SseRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("streams", &self.streams.lock().len()).finish_non_exhaustive()
    }
}

/// What is to be done about a request.
#[derive(Debug)]
pub(super) enum Route {
    /// It is none of ours.
    Pass,
    /// Answer it.
    Answer(Response<Body>),
    /// Begin a stream, whose client has said this.
    Open(SseVariant, Option<Message>),
    /// Take a frame to the stream of its sender.
    Send(SseSender, Message),
    /// Its body says the rest.
    Post,
}

/// A stream's place in the list of streams.
struct RegistrationGuard {
    events: Arc<SseRegistry>,
    name: StreamId,
}

impl Drop for RegistrationGuard {
    fn drop(&mut self) {
        self.events.streams.lock().remove(&self.name);
    }
}

/// Nothing takes what a client sends, for too long.
struct Congested;

impl SseRegistry {
    /// The event streams, if there can be any.
    pub fn new(shared: &Arc<Shared>, transports: EnabledTransports, max_message: usize) -> Option<Arc<Self>> {
        let only = match transports {
            EnabledTransports::WebSocket => return None,
            EnabledTransports::All => false,
            EnabledTransports::EventStream => true,
        };
        let policy = |style: SseVariant| {
            let releases = style.releases(shared.policy.releases);
            (!releases.is_empty()).then(|| Arc::new(Policy { releases, ..(*shared.policy).clone() }))
        };
        let (query, auth) = (policy(SseVariant::V8_1), policy(SseVariant::V9));
        (query.is_some() || auth.is_some()).then(|| {
            Arc::new(SseRegistry {
                shared: Arc::clone(shared),
                query,
                auth,
                only,
                max_message,
                streams: Mutex::default(),
                random: ring::default_provider().secure_random,
            })
        })
    }

    /// What is to be done about a request.
    pub(super) fn route<B>(&self, request: &Request<B>) -> Route {
        let headers = request.headers();
        if request.uri().path() != "/" {
            return Route::Pass;
        }
        match *request.method() {
            Method::GET => {
                let wanted = self.only || accepts_events(headers);
                let route = match request.uri().query() {
                    None if self.auth.is_some() && wanted => Route::Open(SseVariant::V9, None),
                    Some(query) if self.query.is_some() => {
                        let asked = parse_query(query);
                        match asked.sender {
                            Some(sender) => Route::Send(sender, asked.message),
                            None if wanted => Route::Open(SseVariant::V8_1, Some(asked.message)),
                            None => Route::Pass,
                        }
                    }
                    None | Some(_) => Route::Pass,
                };
                match route {
                    Route::Open(..) | Route::Send(..)
                        if headers.get(LAST_EVENT_ID).is_some_and(|id| id == FINAL_EVENT_ID) =>
                    {
                        // It is the browser that asks again, not the page; this is how it learns not to.
                        Route::Answer(empty(StatusCode::NO_CONTENT, headers))
                    }
                    route => route,
                }
            }
            Method::POST if self.auth.is_some() => Route::Post,
            Method::OPTIONS if headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) => {
                Route::Answer(preflight(headers))
            }
            _ => Route::Pass,
        }
    }

    /// Begins a stream, and answers with it.
    pub(super) fn open(
        self: &Arc<Self>,
        style: SseVariant,
        first: Option<Message>,
        headers: &HeaderMap,
        ends: &StreamLifecycle,
    ) -> Response<Body> {
        let policy = match style {
            SseVariant::V8_1 => &self.query,
            SseVariant::V9 => &self.auth,
        };
        let Some(policy) = policy.as_ref().map(Arc::clone) else {
            return plain(StatusCode::NOT_FOUND, NOT_FOUND).map(Body::Whole);
        };
        let Some((name, inbox, frames)) = self.list(style) else {
            return empty(StatusCode::SERVICE_UNAVAILABLE, headers);
        };
        let mut writer = EventWriter::new(style, name.1);
        let (queue, body) = body(ends.begin());
        for piece in writer.preamble() {
            // The client is not gone yet.
            let _ = queue.push(piece);
        }
        let write = move |outgoing| {
            let written = writer.encode(outgoing);
            (written.event, written.last)
        };
        let stream = EventStream::new(queue, frames, write);
        if let Some(first) = first {
            // There is room for one.
            let _ = inbox.try_send(first);
        }
        let listed = RegistrationGuard { events: Arc::clone(self), name };
        let (shared, alive) = (Arc::clone(&self.shared), ends.alive.clone());
        let upgrade = UpgradeRequest { path: "/".to_owned(), favored: false };
        tokio::spawn(conn::run(stream, ends.endpoint, upgrade, |_| policy, shared, (listed, alive)));
        events(body, headers)
    }

    /// Takes a frame to the stream of its sender, and answers a GET that did nothing else.
    pub(super) async fn sent(
        self: Arc<Self>,
        sender: SseSender,
        message: Message,
        headers: HeaderMap,
        ends: StreamLifecycle,
    ) -> Response<Body> {
        if let SseSender::Id(id) = sender
            && self.deliver(SseVariant::V8_1, id, message).await.is_err()
        {
            return empty(StatusCode::SERVICE_UNAVAILABLE, &headers);
        }
        let (queue, body) = body(ends.begin());
        // The client is not gone yet.
        let _ = queue.push(Bytes::from_static(SEND_ACK.as_bytes()));
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(HELD) => {}
                () = queue.gone() => {}
                () = self.shared.shutdown.begun() => {}
            }
            drop(queue);
            drop(ends);
        });
        events(body, &headers)
    }

    /// Takes what a POST says to the stream of its sender.
    pub(super) async fn post(self: Arc<Self>, request: Request<hyper::body::Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let limit = self.max_message + MAX_ID;
        if body.size_hint().lower() > limit as u64 {
            return empty(StatusCode::PAYLOAD_TOO_LARGE, &head.headers);
        }
        let body = match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return empty(StatusCode::PAYLOAD_TOO_LARGE, &head.headers);
            }
            Ok(Err(_)) => return empty(StatusCode::BAD_REQUEST, &head.headers),
            Err(_) => return empty(StatusCode::REQUEST_TIMEOUT, &head.headers),
        };
        let status = match parse_post(&body) {
            Some((_, Message::Text(text))) if text.len() > self.max_message => StatusCode::PAYLOAD_TOO_LARGE,
            Some((id, message)) => match self.deliver(SseVariant::V9, id, message).await {
                // As in the originals also if there is no such stream: who only guesses ids learns nothing.
                Ok(()) => StatusCode::OK,
                Err(Congested) => StatusCode::SERVICE_UNAVAILABLE,
            },
            None if self.only => StatusCode::OK,
            None => return plain(StatusCode::NOT_FOUND, NOT_FOUND).map(Body::Whole),
        };
        empty(status, &head.headers)
    }

    async fn deliver(&self, style: SseVariant, id: u64, message: Message) -> Result<(), Congested> {
        let inbox = self.streams.lock().get(&(style, id)).cloned();
        let Some(inbox) = inbox else {
            return Ok(());
        };
        match tokio::time::timeout(DELIVERY, inbox.send(message)).await {
            // If the stream has ended meanwhile, that is as if it had never been.
            Ok(Ok(()) | Err(_)) => Ok(()),
            Err(_) => Err(Congested),
        }
    }

    /// A new stream's place in the list, and both ends of its inbox. `None` if the system has no random numbers.
    fn list(&self, style: SseVariant) -> Option<(StreamId, mpsc::Sender<Message>, mpsc::Receiver<Message>)> {
        let (inbox, frames) = inbox();
        let mut streams = self.streams.lock();
        loop {
            let name = (style, self.draw()?);
            if let Entry::Vacant(place) = streams.entry(name) {
                place.insert(inbox.clone());
                return Some((name, inbox, frames));
            }
        }
    }

    /// An id that nobody can guess: it is all that a client has to show. As large as a number of JavaScript can be
    /// and still be exact.
    fn draw(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes) >> 11)
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Lets the page that asked read the answer.
fn allow_origin(response: &mut Response<Body>, headers: &HeaderMap) {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let answer = response.headers_mut();
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// An answer without a body.
fn empty(status: StatusCode, headers: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Full::default()));
    *response.status_mut() = status;
    allow_origin(&mut response, headers);
    response
}

/// The head of an event stream.
fn events(body: sse_body::BodyReceiver, headers: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::Events(body));
    allow_origin(&mut response, headers);
    let answer = response.headers_mut();
    if headers.contains_key(header::ORIGIN) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream;charset=UTF-8"));
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    response
}

/// What a browser wants to know before a request that no form could send.
fn preflight(headers: &HeaderMap) -> Response<Body> {
    let mut response = empty(StatusCode::NO_CONTENT, headers);
    let answer = response.headers_mut();
    if headers.contains_key(header::ORIGIN) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    if let Some(names) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}
