//! HTTP on the port of the gateway: the upgrade to a WebSocket, event streams, and a helpful line for whatever else
//! asks.

mod fast_upgrade;
mod signaller;
mod sse_registry;

use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use http_body_util::Full;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::protocol::dialect::UpgradeRequest;
use crate::server::conn::ClientEndpoint;
use crate::server::signaller::Signaller;
use crate::server::signaller::admission::Admitted;
use crate::server::transport::sse_body;

use fast_upgrade::{FirstRead, Rewind};
use sse_registry::Route;
pub use sse_registry::SseRegistry;

/// The longest request head, in bytes. Room for a key of 512 characters of which each is escaped, and cookies.
const MAX_HEAD: usize = 16 * 1024;
/// How long a client may take to send a request head, also on a connection that was used before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of an event stream may take to arrive.
const CLOSING: Duration = Duration::from_secs(3);

const HELLO: &str = "sigver: a WebRTC signaling server; connect with a WebSocket\n";
const UPGRADE_REQUIRED: &str = "426 Upgrade Required: on this path there are WebSockets only\n";
const NOT_FOUND: &str = "404 Not Found: connections are opened by GET\n";
const EVENTS_ONLY: &str = "404 Not Found: this server speaks event streams only, on the path /\n";

/// What became of an HTTP connection.
#[derive(Debug)]
pub struct Upgraded<S> {
    /// The stream, on which the WebSocket's upgrade is done.
    pub stream: S,
    /// The answer that grants it, if it is still to be sent: it goes out with the first frame.
    pub grant: Vec<u8>,
    /// Bytes of the WebSocket that were read already.
    pub early: Bytes,
    /// What the request wants.
    pub wanted: UpgradeTarget,
}

/// What a WebSocket is for.
#[derive(Debug)]
pub enum UpgradeTarget {
    /// A room, or what its first messages will say; what the request said.
    Room(UpgradeRequest),
    /// The path relay, which admitted it.
    Relay(Arc<Signaller>, Admitted),
}

/// What is behind the port.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Whether WebSockets are.
    pub websockets: bool,
    /// The path relay, which answers for its paths.
    pub signaller: Option<Arc<Signaller>>,
    /// The event streams.
    pub events: Option<Arc<SseRegistry>>,
}

/// Serves HTTP until the client asks for a WebSocket; `None` if it never does before `stop` is ready. What belongs to
/// the connection holds a clone of `alive` for as long as it is there.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    endpoint: ClientEndpoint,
    door: Routes,
    alive: TaskTrackerToken,
    stop: impl Future<Output = ()>,
) -> Option<Upgraded<S>> {
    let mut stop = pin!(stop);
    let first = poll_fn(|context| fast_upgrade::poll_first(&mut stream, &door, context));
    let first = tokio::select! {
        first = tokio::time::timeout(HEAD_TIMEOUT, first) => first.ok()?.ok()?,
        () = &mut stop => return None,
    };
    match first {
        FirstRead::UpgradeRequest { grant, early, wanted } => Some(Upgraded { stream, grant, early, wanted }),
        // Boxed: its state is many times that of the rest, and few connections come so far.
        FirstRead::Other(early) => {
            Box::pin(by_hyper(Rewind { early, stream }, endpoint, door, alive, stop)).await
        }
    }
}

/// The same for a connection that does not begin with the whole request for a WebSocket.
async fn by_hyper<S: AsyncRead + AsyncWrite + Unpin>(
    stream: Rewind<S>,
    endpoint: ClientEndpoint,
    door: Routes,
    alive: TaskTrackerToken,
    stop: impl Future<Output = ()>,
) -> Option<Upgraded<S>> {
    let ends = StreamLifecycle { over: Arc::default(), begun: Arc::default(), endpoint, alive };
    let front = HttpService { asked: Arc::default(), door, ends: ends.clone() };
    let asked = Arc::clone(&front.asked);
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), front);
    let finished = {
        let mut stop = pin!(async {
            tokio::select! {
                () = stop => {}
                () = ends.over.notified() => {}
            }
        });
        poll_fn(|context| match connection.poll_without_shutdown(context) {
            Poll::Ready(served) => Poll::Ready(Some(served)),
            Poll::Pending => stop.as_mut().poll(context).map(|()| None),
        })
        .await
    };
    let Some(served) = finished else {
        if ends.begun.load(Ordering::Relaxed) {
            // What the stream ends with has its time, and no more of it.
            Pin::new(&mut connection).graceful_shutdown();
            let end = poll_fn(|context| connection.poll_without_shutdown(context));
            let _ = tokio::time::timeout(CLOSING, end).await;
        }
        return None;
    };
    // What goes wrong here is the client's business: hyper has answered what can be answered.
    served.ok()?;
    let wanted = asked.lock().take()?;
    let parts = connection.into_parts();
    let Rewind { early, stream } = parts.io.into_inner();
    let early = if early.is_empty() { parts.read_buf } else { [parts.read_buf, early].concat().into() };
    Some(Upgraded { stream, grant: Vec::new(), early, wanted })
}

/// How the end of a connection's event streams is heard of.
#[derive(Clone, Debug)]
struct StreamLifecycle {
    over: Arc<Notify>,
    begun: Arc<AtomicBool>,
    endpoint: ClientEndpoint,
    alive: TaskTrackerToken,
}

impl StreamLifecycle {
    /// A stream begins; this is to be notified when it ends.
    fn begin(&self) -> Arc<Notify> {
        self.begun.store(true, Ordering::Relaxed);
        Arc::clone(&self.over)
    }
}

/// The body of an answer.
#[derive(Debug)]
enum Body {
    Whole(Full<Bytes>),
    Events(sse_body::BodyReceiver),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Body::Whole(whole) => Pin::new(whole).poll_frame(context),
            Body::Events(events) => {
                let piece = ready!(events.poll_piece(context));
                Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(whole) => whole.is_end_stream(),
            Body::Events(events) => events.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(whole) => whole.size_hint(),
            Body::Events(_) => SizeHint::default(),
        }
    }
}

/// Answers requests, and keeps what the upgrade among them said.
#[derive(Debug)]
struct HttpService {
    asked: Arc<Mutex<Option<UpgradeTarget>>>,
    door: Routes,
    ends: StreamLifecycle,
}

impl Service<Request<Incoming>> for HttpService {
    type Response = Response<Body>;
    type Error = Infallible;
    /// Nearly always ready: a state that few connections are in should not weigh on all.
    type Future = Either<
        Ready<Result<Self::Response, Infallible>>,
        Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>,
    >;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        *self.asked.lock() = None;
        let later = |answer: Pin<Box<dyn Future<Output = Response<Body>> + Send>>| {
            Either::Right(Box::pin(async { Ok(answer.await) }) as Pin<Box<_>>)
        };
        let now = |answer| Either::Left(ready(Ok(answer)));
        if let Some((answer, wanted)) = signaller::answer(self.door.signaller.as_ref(), &request) {
            *self.asked.lock() = wanted;
            return now(answer.map(Body::Whole));
        }
        if let Some(events) = &self.door.events {
            let headers = request.headers();
            match events.route(&request) {
                Route::Pass => {}
                Route::Answer(answer) => return now(answer),
                Route::Open(style, first) => return now(events.open(style, first, headers, &self.ends)),
                Route::Send(sender, frame) => {
                    let (headers, ends) = (headers.clone(), self.ends.clone());
                    return later(Box::pin(Arc::clone(events).sent(sender, frame, headers, ends)));
                }
                Route::Post => return later(Box::pin(Arc::clone(events).post(request))),
            }
        }
        if !self.door.websockets {
            return now(plain(StatusCode::NOT_FOUND, EVENTS_ONLY).map(Body::Whole));
        }
        let (answer, upgrade) = answer(&request);
        *self.asked.lock() = upgrade.map(UpgradeTarget::Room);
        now(answer.map(Body::Whole))
    }
}

fn answer<B>(request: &Request<B>) -> (Response<Full<Bytes>>, Option<UpgradeRequest>) {
    if is_upgrade(request) {
        return match accept(request) {
            Ok(response) => (response, Some(upgrade(request))),
            Err(response) => (*response, None),
        };
    }
    let root = request.uri().path() == "/";
    let response = match *request.method() {
        Method::GET | Method::HEAD if root => plain(StatusCode::OK, HELLO),
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

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn is_upgrade<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has_token(request.headers(), header::CONNECTION, "upgrade")
        && has_token(request.headers(), header::UPGRADE, "websocket")
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The answer to a request for a WebSocket: as of sigver 20.1.0 (measured), which declines extensions and takes
/// the first subprotocol offered.
fn accept<B>(request: &Request<B>) -> Result<Response<Full<Bytes>>, Box<Response<Full<Bytes>>>> {
    let headers = request.headers();
    let bad = |text| {
        let mut response = plain(StatusCode::BAD_REQUEST, text);
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        Err(Box::new(response))
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return bad("400 Bad Request: the WebSocket version must be 13\n");
    }
    let Some(accepted) = accept_key(headers) else {
        return bad("400 Bad Request: Sec-WebSocket-Key is missing or malformed\n");
    };
    let mut response = switching(accepted);
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    if let Some(first) = offered.and_then(|list| list.split(',').map(str::trim).find(|name| !name.is_empty()))
        && let Ok(first) = HeaderValue::from_str(first)
    {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, first);
    }
    Ok(response)
}

/// What proves that we read the client's key; `None` if it has none, or one that is not 16 bytes in base64.
fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

/// The answer that makes a connection a WebSocket.
fn switching(accepted: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    response
}

fn upgrade<B>(request: &Request<B>) -> UpgradeRequest {
    let uri = request.uri();
    let names =
        uri.query().unwrap_or_default().split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    UpgradeRequest { path: uri.path().to_owned(), favored: names.into_iter().any(|name| name == "favored") }
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
    fn an_upgrade_is_accepted() {
        let (response, upgrade) = answer(&request("/k%20%2Fx?a=1&favored=false", &UPGRADE));
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
        assert_eq!(upgrade, Some(UpgradeRequest { path: "/k%20%2Fx".into(), favored: true }));
    }

    #[test]
    fn the_first_subprotocol_is_taken() {
        let headers = [&UPGRADE[..], &[("sec-websocket-protocol", "aaa, bbb")]].concat();
        assert_eq!(answer(&request("/k", &headers)).0.headers()["sec-websocket-protocol"], "aaa");
    }

    #[test]
    fn a_broken_upgrade_is_refused() {
        for (at, value) in [(3, "12"), (2, "short")] {
            let mut headers = UPGRADE;
            headers[at].1 = value;
            let (response, upgrade) = answer(&request("/k", &headers));
            assert_eq!((response.status(), upgrade), (StatusCode::BAD_REQUEST, None));
        }
    }

    #[test]
    fn plain_requests_get_a_line() {
        for (request, status) in [
            (request("/", &[]), 200),
            (request("/abc", &[]), 426),
            (Request::post("/").body(()).unwrap(), 404),
            (Request::options("/x").body(()).unwrap(), 404),
        ] {
            let (response, upgrade) = answer(&request);
            assert_eq!((response.status().as_u16(), upgrade), (status, None));
            assert_eq!(response.headers()["access-control-allow-origin"], "*");
        }
    }
}
