//! HTTP/1.1 on the port of the gateway: the upgrade to a WebSocket, event streams, and a short text for other
//! requests.

mod access;
mod body;
mod cors;
pub(crate) mod fast_upgrade;
mod forwarded;
mod misdirected;
#[cfg(feature = "cluster")]
mod other_nodes;
mod receive_charge;
mod signaller;
mod signaller_admission;
mod sse;
mod sse_registry;
mod upgrade;

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::protocol::dialect::UpgradeRequest;
use crate::protocol::signaller::handle::Endpoint;
use crate::server::admission::{Admission, ConnectionPermit};
use crate::server::auth::{Grant, RequestToken};
use crate::server::client_endpoint::ClientEndpoint;
use crate::server::conn::{AdmittedClient, Shutdown};
use crate::server::memory::{BudgetExhausted, MemoryCharge};
use crate::server::refusals::{RefusalCause, Refusals};
use crate::server::reloadable::ReloadableTime;
use crate::server::signaller::{Admitted, Signaller};
use crate::server::telemetry::{LimitKind, Telemetry};
pub(crate) use access::AccessControl;
use access::Refused;
use body::ResponseBody;
use fast_upgrade::{FirstRead, Rewind};
pub(crate) use misdirected::{HEALTHCHECK_START, detect_on_tls_port, reject};
use receive_charge::{discard, headers_size};
use signaller_admission::match_path;
use sse::SseRoute;
pub(crate) use sse::SseService;

/// Longest request head, in bytes: room for a key of 512 escaped characters, and cookies.
const MAX_HEAD: usize = 16 * 1024;
/// Most headers of a request. Node.js servers take 2,000, and no more bytes than these.
const MAX_HEADERS: usize = 500;
/// Longest time for the delivery of the end of an event stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

const EVENT_STREAMS_ONLY: &str = "404 Not Found: this server serves event streams only, on the path /\n";
const TWO_HOSTS: &str = "400 Bad Request: there is more than one Host header\n";
const UPGRADE_BODY: &str = "400 Bad Request: a request for a WebSocket has no body\n";

/// An HTTP connection that became a WebSocket.
#[derive(Debug)]
pub(crate) struct Upgraded<S> {
    /// The stream behind the handshake.
    pub(crate) stream: S,
    /// Bytes received after the request.
    pub(crate) prefetched: Bytes,
    pub(crate) granted: GrantedUpgrade,
}

/// An upgrade that is granted to a client.
#[derive(Debug)]
pub(crate) struct GrantedUpgrade {
    /// The response that grants the WebSocket, still to be sent.
    pub(crate) response: Vec<u8>,
    /// Purpose of the WebSocket.
    pub(crate) target: UpgradeTarget,
    /// The client's end, which may be another than the connection's.
    pub(crate) client: ClientEndpoint,
    /// The permit of a client behind a proxy, which replaces that of the connection.
    pub(crate) permit: Option<ConnectionPermit>,
    /// The rights of the client; `None` if all have all.
    pub(crate) grant: Option<Box<Grant>>,
}

/// Purpose of a WebSocket.
#[derive(Debug)]
pub(crate) enum UpgradeTarget {
    /// A room, which the path or the first messages name.
    Room(UpgradeRequest),
    /// The signaller, which admitted the client.
    Signaller(Arc<Signaller>, Admitted),
}

/// The services behind the port.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    /// True if WebSockets are served.
    pub(crate) websockets: bool,
    /// The signaller, which answers on its paths.
    pub(crate) signaller: Option<Arc<Signaller>>,
    /// The event streams.
    pub(crate) events: Option<Arc<SseService>>,
    /// The end of the server, in which new clients on used connections are refused.
    pub(crate) shutdown: Arc<Shutdown>,
    /// The counts of clients that take too long.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Longest time for a request head, also on a connection that was used before.
    pub(crate) head_timeout: Arc<ReloadableTime>,
    /// The counts of refusals.
    pub(crate) refusals: Arc<Refusals>,
    /// The counts by address, of which refused requests are part, and the memory for connections before their
    /// upgrade.
    pub(crate) admission: Arc<Admission>,
    /// The checks of requests; `None` if every client may connect.
    pub(crate) access: Option<Arc<AccessControl>>,
}

impl Routes {
    fn refuse(&self, cause: RefusalCause, endpoint: ClientEndpoint, status: Option<u16>) {
        self.refusals.refuse(cause, endpoint, status);
    }
}

/// Serves HTTP until the client upgrades to a WebSocket. Returns `None` if the connection ends otherwise, or
/// when the server stops. Everything that outlives the call holds a clone of `alive`.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut stream: S,
    endpoint: ClientEndpoint,
    routes: Arc<Routes>,
    alive: TaskTrackerToken,
) -> Option<Upgraded<S>> {
    let first = poll_fn(|context| fast_upgrade::poll_first_read(&mut stream, &routes, context));
    let first = tokio::select! {
        first = tokio::time::timeout(routes.head_timeout.get(), first) => match first {
            Ok(first) => first.ok()?,
            Err(_) => {
                routes.telemetry.count_limit(LimitKind::HeadTimeout);
                routes.refuse(RefusalCause::Timeout, endpoint, None);
                return None;
            }
        },
        () = routes.shutdown.admission_over() => return None,
    };
    match first {
        FirstRead::Upgrade { response, prefetched, target } => {
            let granted = GrantedUpgrade { response, target, client: endpoint, permit: None, grant: None };
            Some(Upgraded { stream, prefetched, granted })
        }
        // Boxed, as this state is large and rarely needed.
        FirstRead::Other(prefetched) => match Rewind::new(prefetched, stream, &routes) {
            Ok(stream) => Box::pin(serve_by_hyper(stream, endpoint, routes, alive)).await,
            Err(stream) => {
                routes.admission.refuse(LimitKind::Memory, stream);
                None
            }
        },
    }
}

/// Serves HTTP by way of hyper.
async fn serve_by_hyper<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: Rewind<S>,
    endpoint: ClientEndpoint,
    routes: Arc<Routes>,
    alive: TaskTrackerToken,
) -> Option<Upgraded<S>> {
    let streams = StreamLifecycle { ended: Arc::default(), started: Arc::default(), alive };
    if let Some(cause) = misdirected::detect_before_http(&stream.prefetched) {
        routes.refuse(cause, endpoint, Some(misdirected::status(cause).as_u16()));
        misdirected::reject(stream.stream, cause).await;
        return None;
    }
    let shutdown = Arc::clone(&routes.shutdown);
    let (telemetry, head_timeout) = (Arc::clone(&routes.telemetry), routes.head_timeout.get());
    let service = Arc::new(HttpService {
        granted: Mutex::default(),
        upgrade: Notify::new(),
        posted: AtomicBool::new(false),
        requested: AtomicBool::new(false),
        refused: AtomicBool::new(false),
        routes,
        streams,
        peer: endpoint,
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| {
                let service = Arc::clone(&service);
                // Boxed, as hyper requires `Unpin`.
                Box::pin(async move {
                    let client = service.client(request.headers());
                    let response = service.respond_within_memory(request, client).await;
                    service.count_refusal(&response, client);
                    service.count_guess(&response, client);
                    Ok::<_, Infallible>(response)
                })
            }),
        );
    let finished = {
        let mut stop = pin!(async {
            let stop = async {
                shutdown.draining().await;
                if !service.requested.load(Ordering::Relaxed) {
                    Box::pin(shutdown.admission_over()).await;
                }
                if service.streams.started.load(Ordering::Relaxed) || service.posted.load(Ordering::Relaxed) {
                    shutdown.closing().await;
                }
            };
            tokio::select! {
                () = stop => {}
                () = service.streams.ended.notified() => {}
                () = service.shed() => {}
                () = service.upgrade.notified() => {}
            }
        });
        poll_fn(|context| match connection.poll_without_shutdown(context) {
            // On an error of the client, hyper has sent the response already.
            Poll::Ready(result) => {
                if let Err(error) = result {
                    if error.is_timeout() {
                        telemetry.count_limit(LimitKind::HeadTimeout);
                    } else if error.is_parse_too_large() {
                        telemetry.count_limit(LimitKind::HeadSize);
                    }
                    service.count_failure(&error);
                }
                Poll::Ready(true)
            }
            Poll::Pending => stop.as_mut().poll(context).map(|()| false),
        })
        .await
    };
    let Some(granted) = service.granted.lock().take() else {
        if !finished && service.streams.started.load(Ordering::Relaxed) {
            // The last event of the stream is still to be delivered.
            Pin::new(&mut connection).graceful_shutdown();
            let end = poll_fn(|context| connection.poll_without_shutdown(context));
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, end).await;
        }
        return None;
    };
    let parts = connection.into_parts();
    let Rewind { prefetched, stream, .. } = parts.io.into_inner();
    let prefetched = match prefetched.is_empty() {
        true => parts.read_buf,
        false => [parts.read_buf, prefetched].concat().into(),
    };
    Some(Upgraded { stream, prefetched, granted })
}

/// The event streams of one connection.
#[derive(Clone, Debug)]
struct StreamLifecycle {
    /// Notified when a stream ends.
    ended: Arc<Notify>,
    /// True once a stream was started.
    started: Arc<AtomicBool>,
    alive: TaskTrackerToken,
}

impl StreamLifecycle {
    /// Registers a new stream. Returns what is to be notified when it ends.
    fn start(&self) -> Arc<Notify> {
        self.started.store(true, Ordering::Relaxed);
        Arc::clone(&self.ended)
    }
}

/// The requests of one connection.
#[derive(Debug)]
struct HttpService {
    /// The upgrade that was granted.
    granted: Mutex<Option<GrantedUpgrade>>,
    /// Notified when an upgrade is granted.
    upgrade: Notify,
    /// True once a client of an event stream sent by this connection.
    posted: AtomicBool,
    /// True once the connection had a request.
    requested: AtomicBool,
    /// True once a request was refused, with which the connection itself is used up.
    refused: AtomicBool,
    routes: Arc<Routes>,
    streams: StreamLifecycle,
    /// The other end of the connection, which may be a proxy.
    peer: ClientEndpoint,
}

impl HttpService {
    /// Returns the client's end of a request.
    fn client(&self, headers: &HeaderMap) -> ClientEndpoint {
        self.routes.access.as_ref().map_or(self.peer, |access| access.endpoint(headers, self.peer))
    }

    /// Completes when the connection is to be closed for lack of memory: it is no client's yet.
    async fn shed(&self) {
        loop {
            self.routes.admission.memory().shed_before_upgrade().await;
            if !self.streams.started.load(Ordering::Relaxed) && !self.posted.load(Ordering::Relaxed) {
                return self.routes.telemetry.count_limit(LimitKind::Memory);
            }
        }
    }

    /// Returns the response to a request, if there is memory for its headers.
    async fn respond_within_memory(
        &self,
        request: Request<Incoming>,
        client: ClientEndpoint,
    ) -> Response<ResponseBody> {
        let mut charge = self.routes.admission.memory().empty_charge();
        let size = headers_size(request.headers());
        let charged = match *request.method() {
            // Mostly of clients that have an event stream.
            Method::POST => charge.resize(size),
            _ => charge.resize_before_upgrade(size),
        };
        if let Err(BudgetExhausted) = charged {
            self.routes.telemetry.count_limit(LimitKind::Memory);
            let mut response = upgrade::unavailable(upgrade::SHORT_OF_MEMORY);
            cors::allow_origin(&mut response, request.headers());
            return response.map(ResponseBody::Full);
        }
        self.respond(request, client, charge).await
    }

    /// Returns the rights of the client that sent a request, for an endpoint of signaller if there is one;
    /// `None` if all clients have all. `is_counted` is true if the rate of its address was counted for this
    /// request.
    async fn authenticate(
        &self,
        token: Option<&RequestToken>,
        request: &Request<Incoming>,
        endpoint: Option<&Endpoint>,
        client: ClientEndpoint,
        is_counted: bool,
    ) -> Result<Option<Box<Grant>>, Refused> {
        let is_further = client.behind_proxy || self.refused.load(Ordering::Relaxed);
        if !is_counted && is_further && self.routes.admission.is_at_rate(client) {
            return Err(Refused::by_rate());
        }
        let Some(access) = &self.routes.access else { return Ok(None) };
        access.authenticate(token, request.uri().path(), endpoint, request.headers(), client).await
    }

    /// Counts a response that refuses what was asked for.
    fn count_refusal<B>(&self, response: &Response<B>, client: ClientEndpoint) {
        let status = response.status();
        let cause = response.extensions().get().copied().unwrap_or(match status {
            StatusCode::FORBIDDEN => RefusalCause::ForeignOrigin,
            _ => RefusalCause::Request,
        });
        if status.is_client_error() || cause == RefusalCause::AuthUnavailable {
            self.routes.refuse(cause, client, Some(status.as_u16()));
        }
    }

    /// Counts a refusal, by which a client may guess tokens and keys, for the rate of the client's address:
    /// the connection is counted for one of its requests only.
    fn count_guess<B>(&self, response: &Response<B>, client: ClientEndpoint) {
        let is_guess = matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::CONFLICT
        );
        if is_guess && (self.refused.swap(true, Ordering::Relaxed) || client.behind_proxy) {
            self.routes.admission.count_refusal(client);
        }
    }

    /// Counts a connection that ends because of what the client sent, or did not send.
    fn count_failure(&self, error: &hyper::Error) {
        let cause = if error.is_timeout() { RefusalCause::Timeout } else { RefusalCause::InvalidHttp };
        if error.is_timeout() || error.is_parse() {
            self.routes.refuse(cause, self.peer, None);
        }
    }

    /// Returns the response to a request. Never returns if the request is granted an upgrade: hyper grants
    /// none to HTTP/1.0, so the response is left to the WebSocket.
    async fn respond(
        &self,
        mut request: Request<Incoming>,
        client: ClientEndpoint,
        charge: MemoryCharge,
    ) -> Response<ResponseBody> {
        let is_first = !self.requested.swap(true, Ordering::Relaxed);
        if self.routes.shutdown.is_draining() && !is_first && *request.method() == Method::GET {
            // A POST may be for an event stream that is still open.
            return upgrade::unavailable(upgrade::STOPPING).map(ResponseBody::Full);
        }
        let access = self.routes.access.as_deref();
        let token = access.and_then(|access| access.take_token(&mut request));
        let headers = request.headers();
        if headers.get_all(header::HOST).iter().nth(1).is_some() {
            return upgrade::plain(StatusCode::BAD_REQUEST, TWO_HOSTS).map(ResponseBody::Full);
        }
        if let Some(Err(refused)) = access.map(|access| access.check(headers)) {
            return refused.into_response();
        }
        if let Some(events) = &self.routes.events {
            match events.route(&request) {
                SseRoute::NotAnEventStream => {}
                SseRoute::Respond(response) => return response,
                SseRoute::Open(variant, first) => {
                    let granted = self.authenticate(token.as_ref(), &request, None, client, false).await;
                    let client = match granted {
                        Ok(grant) => AdmittedClient { endpoint: client, grant },
                        Err(refused) => return refused.into_response(),
                    };
                    return events.open(variant, first, headers, client, &self.streams);
                }
                SseRoute::Send(sender, message) => {
                    return events.deliver_get(sender, message, headers, client, &self.streams).await;
                }
                SseRoute::Post => {
                    self.posted.store(true, Ordering::Relaxed);
                    return events.deliver_post(request, charge).await;
                }
            }
        }
        if let Some(response) = upgrade::health_check(&request, self.routes.websockets) {
            return response.map(ResponseBody::Full);
        }
        let is_upgrade = upgrade::is_upgrade(&request);
        let signaller = self.routes.signaller.as_ref();
        let matched = signaller.map(|signaller| (signaller, match_path(signaller, request.uri().path())));
        let endpoint = matched.as_ref().and_then(|(_, path)| path.as_ref().ok()?.as_ref());
        let admitted = access.filter(|_| is_upgrade).map(|access| access.admit(client));
        let permit = match admitted.transpose() {
            Ok(permit) => permit.flatten(),
            Err(refused) => return refused.into_response(),
        };
        let grant = match endpoint.is_some() || self.routes.websockets && is_upgrade {
            true => {
                let is_counted = client.behind_proxy && is_upgrade;
                self.authenticate(token.as_ref(), &request, endpoint, client, is_counted).await
            }
            false => Ok(None),
        };
        let grant = match grant {
            Ok(grant) => grant,
            Err(refused) => return refused.into_response(),
        };
        let (response, target) = match matched {
            Some((signaller, Ok(Some(endpoint)))) => {
                let origin_is_listed = access.is_some_and(AccessControl::checks_origins);
                signaller::respond(signaller, endpoint, &request, origin_is_listed).await
            }
            Some((_, Err(rejection))) => (signaller::reject(rejection), None),
            Some((_, Ok(None))) | None if self.routes.websockets => {
                let (response, upgrade) = upgrade::respond(&request);
                (response, upgrade.map(UpgradeTarget::Room))
            }
            Some((_, Ok(None))) | None => (upgrade::plain(StatusCode::NOT_FOUND, EVENT_STREAMS_ONLY), None),
        };
        let Some(target) = target else { return response.map(ResponseBody::Full) };
        // The head is dropped, and its buffer with it.
        let body = request.into_body();
        if !discard(body).await {
            return upgrade::plain(StatusCode::BAD_REQUEST, UPGRADE_BODY).map(ResponseBody::Full);
        }
        let response = upgrade::encode(&response);
        *self.granted.lock() = Some(GrantedUpgrade { response, target, client, permit, grant });
        self.upgrade.notify_one();
        std::future::pending().await
    }
}
