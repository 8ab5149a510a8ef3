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
mod service;
mod signaller;
mod signaller_admission;
mod sse;
mod sse_registry;
mod upgrade;

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::protocol::dialect::UpgradeRequest;
use crate::server::admission::{Admission, ConnectionPermit};
use crate::server::auth::Grant;
use crate::server::client_endpoint::ClientEndpoint;
use crate::server::conn::Shutdown;
use crate::server::refusals::{RefusalCause, Refusals};
use crate::server::reloadable::ReloadableTime;
use crate::server::signaller::{Admitted, Signaller};
use crate::server::telemetry::{LimitKind, Telemetry};
pub(crate) use access::AccessControl;
use fast_upgrade::{FirstRead, Rewind};
pub(crate) use misdirected::{HEALTHCHECK_START, detect_on_tls_port, reject};
use service::HttpService;
pub(crate) use sse::SseService;

/// Longest request head, in bytes: room for a key of 512 escaped characters, and cookies.
const MAX_HEAD: usize = 16 * 1024;
/// Most headers of a request. Node.js servers take 2,000, and no more bytes than these.
const MAX_HEADERS: usize = 500;
/// Longest time for the delivery of the end of an event stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

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
                routes.telemetry.count_limit_of(LimitKind::HeadTimeout, endpoint);
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
                routes.telemetry.count_limit_of(LimitKind::Memory, endpoint);
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
    if let Some(cause) = misdirected::detect_before_http(&stream.prefetched) {
        routes.refuse(cause, endpoint, Some(misdirected::status(cause).as_u16()));
        misdirected::reject(stream.stream, cause).await;
        return None;
    }
    let shutdown = Arc::clone(&routes.shutdown);
    let (telemetry, head_timeout) = (Arc::clone(&routes.telemetry), routes.head_timeout.get());
    let service = Arc::new(HttpService::new(routes, endpoint, alive));
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
                        telemetry.count_limit_of(LimitKind::HeadTimeout, endpoint);
                    } else if error.is_parse_too_large() {
                        telemetry.count_limit_of(LimitKind::HeadSize, endpoint);
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
