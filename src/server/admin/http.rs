//! The admin listener: HTTP for those who operate the server, on an address of its own. It authenticates
//! nobody, and nothing of it is served on the addresses for clients.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::history::{self, History};
use super::{StatusQuery, StatusService, metrics};
use crate::server::listener::AcceptFailures;
use crate::server::listening::{AcceptedStream, ListeningSocket, LocalAddress};
use crate::server::reload::{ReloadReport, ReloadSender};
use crate::server::telemetry::Format;

/// Longest time for a request head, also on a connection that was used before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// The page for people.
const PAGE: &str = include_str!("page.html");

/// Rights of the page: its own script and style, and connections to the address that is typed into it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
     connect-src * ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const TEXT: &str = "text/plain; charset=utf-8";

/// Sockets on which administrators are served.
#[derive(Debug)]
pub(crate) struct AdminListener {
    sockets: Vec<ListeningSocket>,
    addresses: Vec<LocalAddress>,
    /// Cancelled when an administrator asks for the drain.
    drain: CancellationToken,
    reload: Arc<ReloadSender>,
}

impl AdminListener {
    /// Returns a listener on `sockets`; `None` if there are no sockets.
    ///
    /// # Errors
    /// The system does not return the address of a socket.
    pub(in crate::server) fn new(
        sockets: Vec<ListeningSocket>,
        reload: ReloadSender,
    ) -> io::Result<Option<Self>> {
        let addresses = ListeningSocket::local_addresses(&sockets)?;
        Ok((!sockets.is_empty()).then(|| AdminListener {
            sockets,
            addresses,
            drain: CancellationToken::new(),
            reload: Arc::new(reload),
        }))
    }

    /// Addresses that the listener listens on.
    pub(crate) fn addresses(&self) -> &[LocalAddress] {
        &self.addresses
    }

    /// Waits until an administrator asks for the drain.
    pub(crate) fn drain_requested(&self) -> impl Future<Output = ()> + 'static {
        self.drain.clone().cancelled_owned()
    }

    /// Answers requests; never returns. When the future is dropped, all connections end.
    pub(crate) async fn serve(&self, status: &StatusService) {
        for address in &self.addresses {
            match address {
                LocalAddress::Tcp(tcp) if !tcp.ip().is_loopback() => {
                    tracing::warn!(%address, "the admin listener can be reached from other machines, without authentication");
                }
                LocalAddress::Tcp(_) | LocalAddress::Unix(_) => tracing::info!(%address, "admin listener"),
            }
        }
        let ended = CancellationToken::new();
        let _guard = ended.clone().drop_guard();
        let service = Arc::new(AdminService {
            status: status.clone(),
            history: History::default(),
            drain: self.drain.clone(),
            reload: Arc::clone(&self.reload),
        });
        let sample = async {
            let mut interval = tokio::time::interval(history::INTERVAL);
            loop {
                interval.tick().await;
                service.history.add(&status.shared.telemetry);
            }
        };
        tokio::select! {
            () = sample => {}
            _ = join_all(self.sockets.iter().map(|socket| accept(socket, &service, &ended))) => {}
        }
    }
}

/// Serves the connections to one socket; never returns.
async fn accept(socket: &ListeningSocket, service: &Arc<AdminService>, ended: &CancellationToken) {
    let mut failures = AcceptFailures::default();
    loop {
        match socket.accept().await {
            Ok(stream) => {
                let (service, ended) = (Arc::clone(service), ended.clone());
                tokio::spawn(async move {
                    let served = async {
                        match stream {
                            AcceptedStream::Tcp(stream, _) => service.serve(stream).await,
                            AcceptedStream::Unix(stream) => service.serve(stream).await,
                        }
                    };
                    tokio::select! {
                        () = served => {}
                        () = ended.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                if let Some(pause) = failures.backoff(&error) {
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// State that the connections of administrators share.
#[derive(Debug)]
struct AdminService {
    status: StatusService,
    history: History,
    drain: CancellationToken,
    reload: Arc<ReloadSender>,
}

/// The response to a request to reload.
#[derive(Serialize)]
struct ReloadResponse {
    reloaded: bool,
    /// Reason for which nothing has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    report: ReloadReport,
}

impl AdminService {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(|request| async move { Ok::<_, Infallible>(self.respond(&request).await) }),
            );
        // On an error of the client, hyper has sent the response already.
        let _ = Box::pin(connection).await;
    }

    async fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let allowed = if matches!(path, "/drain" | "/reload") { "POST" } else { "GET, HEAD" };
        let mut response = match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/") => {
                let mut page = ok("text/html; charset=utf-8", PAGE);
                let policy = HeaderValue::from_static(PAGE_POLICY);
                page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
                page
            }
            (&Method::GET | &Method::HEAD, "/healthz") => ok(TEXT, "ok\n"),
            (&Method::GET | &Method::HEAD, "/readyz") => match self.readiness() {
                Ok(ready) => ok(TEXT, ready),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
            },
            (&Method::GET | &Method::HEAD, "/metrics") => {
                ok(metrics::CONTENT_TYPE, metrics::render(&self.status).await)
            }
            (&Method::GET | &Method::HEAD, "/status" | "/status.json") => {
                let status = self.status.render(parse_query(request.uri().query()), Format::Json).await;
                ok("application/json", status)
            }
            (&Method::GET | &Method::HEAD, "/history") => ok("application/json", self.history.to_json()),
            // A browser sends this header with every POST: no page may stop or change the server.
            (&Method::POST, "/drain" | "/reload") if request.headers().contains_key(header::ORIGIN) => {
                text(StatusCode::FORBIDDEN, "403 Forbidden: not from a page\n")
            }
            (&Method::POST, "/drain") => {
                if !self.drain.is_cancelled() {
                    tracing::info!("stopping, as asked for on the admin listener");
                }
                self.drain.cancel();
                text(StatusCode::ACCEPTED, "draining\n")
            }
            (&Method::POST, "/reload") => self.reload().await,
            (
                _,
                "/" | "/healthz" | "/readyz" | "/metrics" | "/status" | "/status.json" | "/history"
                | "/drain" | "/reload",
            ) => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed\n");
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
                response
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "404 Not Found: there are /, /healthz, /readyz, /metrics, /status, /history, POST /drain and POST /reload\n",
            ),
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// Has the program reload, and responds with what came of it.
    async fn reload(&self) -> Response<Full<Bytes>> {
        let (status, response) = match self.reload.request().await {
            Some(Ok(report)) => (StatusCode::OK, ReloadResponse { reloaded: true, error: None, report }),
            Some(Err(error)) => {
                let report = ReloadReport::default();
                let response = ReloadResponse { reloaded: false, error: Some(error.to_string()), report };
                (StatusCode::UNPROCESSABLE_ENTITY, response)
            }
            None => {
                return text(
                    StatusCode::NOT_IMPLEMENTED,
                    "501 Not Implemented: this program cannot reload\n",
                );
            }
        };
        // Strings only: serialising cannot fail.
        let mut body = serde_json::to_string(&response).unwrap_or_default();
        body.push('\n');
        let mut response = ok("application/json", body);
        *response.status_mut() = status;
        response
    }

    /// Returns a line that says that new clients are served.
    ///
    /// # Errors
    /// They are not, for the reason in the line.
    fn readiness(&self) -> Result<&'static str, &'static str> {
        if self.drain.is_cancelled() || self.status.shared.shutdown.is_draining() {
            return Err("draining: the server is stopping\n");
        }
        self.status.shared.cluster_readiness()
    }
}

/// Returns the optional parts of the status that a query asks for, such as `rooms&connections`.
fn parse_query(query: Option<&str>) -> StatusQuery {
    let names: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
    let has = |wanted: &str| names.iter().any(|(name, _)| name == wanted);
    StatusQuery { connections: has("connections"), rooms: has("rooms"), all: has("all") }
}

fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = ok(TEXT, body);
    *response.status_mut() = status;
    response
}
