//! HTTP of event streams: routes their requests, opens streams, and delivers messages that clients send by
//! GET and POST.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Notify;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::body::ResponseBody;
use super::cors;
#[cfg(feature = "cluster")]
use super::other_nodes;
use super::receive_charge::REQUEST_WITH_BODY;
use super::sse_registry::{Congested, SseRegistry, StreamId};
use super::upgrade::{self, LAST_EVENT_ID, is_of_page};
use crate::config::EnabledTransports;
use crate::protocol::detect::Policy;
use crate::protocol::dialect::UpgradeRequest;
use crate::protocol::dialect::sse::{
    EventWriter, FINAL_EVENT_ID, SEND_ACK, SseRequest, SseSender, SseVariant, parse_post, parse_query,
};
use crate::protocol::frame::Message;
use crate::server::client_endpoint::ClientEndpoint;
use crate::server::conn::{self, AdmittedClient, Shared};
use crate::server::memory::{BudgetExhausted, MemoryCharge};
use crate::server::telemetry::LimitKind;
use crate::server::transport::sse_body::{EventStream, Posted, body_channel};

/// Time for which the response to a GET that sends is kept open: below the timeouts of proxies. The Node.js
/// servers never end it.
const GET_HOLD: Duration = Duration::from_secs(15);
/// Longest id before a message in the body of a POST, in bytes.
const MAX_ID: usize = 64;

const NO_STREAM_ID: &str = "404 Not Found: the body has to be the id of an event stream, @ and a message\n";
const STREAM_ENDED: &str = "410 Gone: the event stream has ended\n";

/// The event streams of one connection.
#[derive(Clone, Debug)]
pub(super) struct StreamLifecycle {
    /// Notified when a stream ends.
    pub(super) ended: Arc<Notify>,
    /// True once a stream was started.
    pub(super) started: Arc<AtomicBool>,
    alive: TaskTrackerToken,
}

impl StreamLifecycle {
    pub(super) fn new(alive: TaskTrackerToken) -> Self {
        StreamLifecycle { ended: Arc::default(), started: Arc::default(), alive }
    }

    /// Registers a new stream. Returns what is to be notified when it ends.
    fn start(&self) -> Arc<Notify> {
        self.started.store(true, Ordering::Relaxed);
        Arc::clone(&self.ended)
    }
}

/// The event streams of a server.
#[derive(Debug)]
pub(crate) struct SseService {
    shared: Arc<Shared>,
    registry: Arc<SseRegistry>,
    /// Policies of the clients of each variant; `None` if the variant is not served.
    v8_1: Option<Arc<Policy>>,
    v9: Option<Arc<Policy>>,
    /// Only event streams are served, and no WebSockets.
    exclusive: bool,
    max_message: usize,
}

/// Handling of a request.
#[derive(Debug)]
pub(super) enum SseRoute {
    /// The request does not belong to an event stream.
    NotAnEventStream,
    /// The response is known.
    Respond(Response<ResponseBody>),
    /// Opens a stream, with the first message of its client.
    Open(SseVariant, Option<Message>),
    /// Delivers a message to the stream of its sender.
    Send(SseSender, Message),
    /// The body contains the message.
    Post,
}

impl SseService {
    /// Returns the event streams, or `None` if none can be served.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        transports: EnabledTransports,
        max_message: usize,
    ) -> Option<Arc<Self>> {
        let exclusive = match transports {
            EnabledTransports::WebSocket => return None,
            EnabledTransports::All => false,
            EnabledTransports::EventStream => true,
        };
        let policy = |variant: SseVariant| {
            let releases = variant.releases(shared.policy.releases);
            (!releases.is_empty()).then(|| Arc::new(Policy { releases, ..(*shared.policy).clone() }))
        };
        let (v8_1, v9) = (policy(SseVariant::V8_1), policy(SseVariant::V9));
        (v8_1.is_some() || v9.is_some()).then(|| {
            let (shared, registry) = (Arc::clone(shared), SseRegistry::new());
            Arc::new(SseService { shared, registry, v8_1, v9, exclusive, max_message })
        })
    }

    /// Decides how a request is handled.
    pub(super) fn route<B>(&self, request: &Request<B>) -> SseRoute {
        let headers = request.headers();
        if request.uri().path() != "/" {
            return SseRoute::NotAnEventStream;
        }
        match *request.method() {
            Method::GET => {
                let wants_stream = accepts_event_stream(headers) || self.exclusive && is_of_page(headers);
                let query = request.uri().query().map(parse_query);
                let has_ended = headers.get(LAST_EVENT_ID).is_some_and(|id| id == FINAL_EVENT_ID);
                let polyfill_has_ended = query.as_ref().is_some_and(|query| query.has_ended);
                let route = match query.filter(|query| !query.is_blank) {
                    None if self.v9.is_some() && wants_stream => SseRoute::Open(SseVariant::V9, None),
                    Some(SseRequest { sender: Some(sender), message, .. }) if self.v8_1.is_some() => {
                        SseRoute::Send(sender, message)
                    }
                    Some(request) if self.v8_1.is_some() && (wants_stream || self.exclusive) => {
                        SseRoute::Open(SseVariant::V8_1, Some(request.message))
                    }
                    None | Some(_) => SseRoute::NotAnEventStream,
                };
                match route {
                    // The client reconnects on its own after the end of a stream; 204 makes it stop.
                    SseRoute::Open(..) | SseRoute::Send(..) if has_ended => {
                        SseRoute::Respond(cors::empty(StatusCode::NO_CONTENT, headers))
                    }
                    // A polyfill on top of `fetch` fails to read a response without a body, and asks again.
                    SseRoute::Open(..) | SseRoute::Send(..) if polyfill_has_ended => {
                        SseRoute::Respond(cors::text(StatusCode::GONE, STREAM_ENDED, headers))
                    }
                    route => route,
                }
            }
            Method::POST if self.v9.is_some() => SseRoute::Post,
            Method::OPTIONS if headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) => {
                SseRoute::Respond(cors::preflight(headers))
            }
            _ => SseRoute::NotAnEventStream,
        }
    }

    /// Opens a stream for a client, and returns the response that carries it.
    pub(super) fn open(
        &self,
        variant: SseVariant,
        first: Option<Message>,
        headers: &HeaderMap,
        client: AdmittedClient,
        streams: &StreamLifecycle,
    ) -> Response<ResponseBody> {
        let policy = match variant {
            SseVariant::V8_1 => &self.v8_1,
            SseVariant::V9 => &self.v9,
        };
        let Some(policy) = policy.as_ref().map(Arc::clone) else {
            return not_found();
        };
        let permit = match self.shared.admission.admit_stream(client.endpoint) {
            Ok(permit) => permit,
            Err(kind) => return limited(kind, headers),
        };
        let Some((registration, id, sender, inbox)) = self.registry.register(variant) else {
            return cors::empty(StatusCode::SERVICE_UNAVAILABLE, headers);
        };
        let mut writer = EventWriter::new(variant, id);
        let (body, receiver) = body_channel(streams.start());
        for chunk in writer.preamble() {
            // Cannot fail: the receiver still exists.
            let _ = body.push(chunk);
        }
        let encode = move |outgoing| {
            let encoded = writer.encode(outgoing);
            (encoded.event, encoded.last)
        };
        let stream = EventStream::new(body, inbox, encode);
        if let Some(first) = first {
            // Cannot fail: the inbox is empty.
            let _ = sender.try_send(first.into());
        }
        let (shared, alive) = (Arc::clone(&self.shared), streams.alive.clone());
        let upgrade = UpgradeRequest { path: "/".to_owned(), favored: false, from_page: true };
        let guard = (registration, permit, alive);
        tokio::spawn(conn::run(stream, client, upgrade, |_| policy, shared, guard));
        cors::event_stream(receiver, headers)
    }

    /// Delivers a message that was sent by GET, and returns the response, which counts as an event stream of
    /// the client's address: it is one, though a short one.
    pub(super) async fn deliver_get(
        &self,
        sender: SseSender,
        message: Message,
        headers: &HeaderMap,
        client: ClientEndpoint,
        streams: &StreamLifecycle,
    ) -> Response<ResponseBody> {
        let permit = match self.shared.admission.admit_sending(client) {
            Ok(permit) => permit,
            Err(kind) => return limited(kind, headers),
        };
        if let SseSender::Id(id) = sender
            && self.deliver((SseVariant::V8_1, id), message.into()).await.is_err()
        {
            return cors::empty(StatusCode::SERVICE_UNAVAILABLE, headers);
        }
        let (body, receiver) = body_channel(streams.start());
        // Cannot fail: the receiver still exists.
        let _ = body.push(Bytes::from_static(SEND_ACK.as_bytes()));
        let (shared, alive) = (Arc::clone(&self.shared), streams.alive.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(GET_HOLD) => {}
                () = body.closed() => {}
                () = shared.shutdown.closing() => {}
            }
            drop(body);
            drop((alive, permit));
        });
        cors::event_stream(receiver, headers)
    }

    /// Delivers a message to a stream of this server, or of another node of its cluster.
    async fn deliver(&self, id: StreamId, posted: Posted) -> Result<(), Congested> {
        #[cfg(feature = "cluster")]
        if let Some(node) = self.shared.cluster.get().filter(|_| !self.registry.has(id))
            && let Message::Text(text) = &posted.message
        {
            let is_taken = node.post(other_nodes::stream_name(id), text.clone()).await;
            return is_taken.then_some(()).ok_or(Congested);
        }
        self.registry.deliver(id, posted).await
    }

    /// Returns the open event streams.
    #[cfg(feature = "cluster")]
    pub(super) fn registry(&self) -> &Arc<SseRegistry> {
        &self.registry
    }

    /// Delivers the message in the body of a POST, and returns the response.
    pub(super) async fn deliver_post(
        &self,
        request: Request<Incoming>,
        client: ClientEndpoint,
        head_charge: MemoryCharge,
    ) -> Response<ResponseBody> {
        let headers = cors::copy_origin(request.headers());
        // While the body arrives, nothing else of the head is kept.
        let body = request.into_body();
        drop(head_charge);
        let status = match self.try_deliver_post(body).await {
            Ok(Some(status)) => status,
            Ok(None) => return upgrade::plain(StatusCode::NOT_FOUND, NO_STREAM_ID).map(ResponseBody::Full),
            Err(PostError::Invalid) => StatusCode::BAD_REQUEST,
            Err(PostError::Limit(kind)) => {
                self.shared.telemetry.count_limit_of(kind, client);
                match kind {
                    LimitKind::MessageSize => StatusCode::PAYLOAD_TOO_LARGE,
                    LimitKind::MessageTimeout => StatusCode::REQUEST_TIMEOUT,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                }
            }
        };
        cors::empty(status, &headers)
    }

    /// Delivers the message in a body. Returns the status of the response; `None` if it is for no stream.
    async fn try_deliver_post(&self, body: Incoming) -> Result<Option<StatusCode>, PostError> {
        let limit = self.max_message + MAX_ID;
        if body.size_hint().lower() > limit as u64 {
            return Err(PostError::Limit(LimitKind::MessageSize));
        }
        let mut charge = self.shared.memory.empty_charge();
        let body = receive_body(Limited::new(body, limit), &mut charge);
        let body = tokio::time::timeout(self.shared.limits.stall_timeout, body).await;
        let body = body.map_err(|_| PostError::Limit(LimitKind::MessageTimeout))??;
        match parse_post(&body) {
            Some((_, Message::Text(text))) if text.len() > self.max_message => {
                Err(PostError::Limit(LimitKind::MessageSize))
            }
            Some((id, message)) => {
                let posted = Posted { message, _charge: Some(charge) };
                let delivered = self.deliver((SseVariant::V9, id), posted).await;
                // Also if there is no such stream, as in the Node.js servers: ids cannot be found by trying.
                let granted = delivered.map(|()| Some(StatusCode::OK));
                granted.map_err(|Congested| PostError::Limit(LimitKind::StreamRequests))
            }
            None if self.exclusive => Ok(Some(StatusCode::OK)),
            None => Ok(None),
        }
    }
}

/// Failure to deliver the body of a POST.
enum PostError {
    /// The body is not one of HTTP.
    Invalid,
    /// A limit was reached.
    Limit(LimitKind),
}

/// Receives a body, which is charged as it grows.
async fn receive_body(mut body: Limited<Incoming>, charge: &mut MemoryCharge) -> Result<Bytes, PostError> {
    let mut received = BytesMut::new();
    // At most the limit.
    let longest = body.size_hint().upper().and_then(|longest| usize::try_from(longest).ok());
    let exhausted = |BudgetExhausted| PostError::Limit(LimitKind::Memory);
    charge.resize(REQUEST_WITH_BODY).map_err(exhausted)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => PostError::Limit(LimitKind::MessageSize),
            false => PostError::Invalid,
        })?;
        if let Ok(data) = frame.into_data() {
            let (before, needed) = (received.capacity(), received.len() + data.len());
            if needed > before {
                let capacity = needed.max((2 * before).min(longest.unwrap_or(usize::MAX)));
                // What was received is copied: there are two buffers for a moment.
                charge.resize(REQUEST_WITH_BODY + before + capacity).map_err(exhausted)?;
                // Reserving would take up to twice as much.
                let mut larger = BytesMut::with_capacity(capacity);
                larger.extend_from_slice(&received);
                received = larger;
            }
            received.extend_from_slice(&data);
            charge.resize(REQUEST_WITH_BODY + received.capacity()).map_err(exhausted)?;
        }
    }
    charge.resize(received.capacity()).map_err(exhausted)?;
    Ok(received.freeze())
}

/// Returns the response to a client that is refused because of a limit of connections.
fn limited(kind: LimitKind, headers: &HeaderMap) -> Response<ResponseBody> {
    match kind.is_of_address() {
        true => retry_later(StatusCode::TOO_MANY_REQUESTS, headers),
        false => retry_later(StatusCode::SERVICE_UNAVAILABLE, headers),
    }
}

/// Returns the response to a client that is to ask again a second later.
fn retry_later(status: StatusCode, headers: &HeaderMap) -> Response<ResponseBody> {
    let mut response = cors::empty(status, headers);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn not_found() -> Response<ResponseBody> {
    upgrade::plain(StatusCode::NOT_FOUND, upgrade::NOT_FOUND).map(ResponseBody::Full)
}

fn accepts_event_stream(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|media_type| media_type.trim().eq_ignore_ascii_case("text/event-stream"))
}
