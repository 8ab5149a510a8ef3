//! The admin listener: HTTP for those who operate the server, on an address of its own. It has no
//! authentication, and nothing of it is served on the addresses for clients.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::history::{self, History};
use super::{StatusQuery, StatusService, metrics};
use crate::protocol::dialect::{Dialect, Family};
use crate::server::listener::AcceptFailures;
use crate::server::listening::{AcceptedStream, ListeningSocket, LocalAddress};
use crate::server::readiness::{NotReady, Ready};
use crate::server::reload::{ReloadReport, ReloadSender};
use crate::server::telemetry::Format;
use crate::server::write_timeout::WriteTimeout;

/// Methods of requests that change something.
const POST_ONLY: &str = "POST";

/// Longest time for a request head, also on a connection that was used before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time without progress of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// The page for people, with [`data_fields`] in it.
static PAGE: LazyLock<Bytes> =
    LazyLock::new(|| include_str!("page.html").replacen("[/* data fields */]", &data_fields(), 1).into());

/// Rights of the page: its own script and style, and connections to the address that is typed into it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
     connect-src * ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Most reports of the status that are made, or large and not sent yet, at the same time.
const MAX_REPORTS: usize = 2;

/// Shortest report that is large, in bytes.
const LARGE_REPORT: usize = 1 << 20;

/// Longest wait for the turn to make a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const FOREIGN_HOST: &str = "403 Forbidden: on a loopback address, Host must be an IP address or localhost; a proxy in front must set it\n";

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
            reports: Arc::new(Semaphore::new(MAX_REPORTS)),
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
                            AcceptedStream::Tcp(stream, _) => {
                                let local = stream.local_addr();
                                let is_loopback =
                                    local.is_ok_and(|local| local.ip().to_canonical().is_loopback());
                                service.serve(stream, is_loopback).await;
                            }
                            AcceptedStream::Unix(stream) => service.serve(stream, false).await,
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
    reports: Arc<Semaphore>,
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
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, is_loopback: bool) {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(
                TokioIo::new(WriteTimeout::new(stream, WRITE_TIMEOUT)),
                service_fn(|request| async move {
                    Ok::<_, Infallible>(self.respond(&request, is_loopback).await)
                }),
            );
        // On an error of the client, hyper has sent the response already.
        let _ = Box::pin(connection).await;
    }

    async fn respond<B>(&self, request: &Request<B>, is_loopback: bool) -> Response<Full<Bytes>> {
        if let Err(refused) = check_sender(request, is_loopback) {
            return text(refused.0, refused.1);
        }
        let path = request.uri().path();
        let allowed = if matches!(path, "/drain" | "/reload") { POST_ONLY } else { "GET, HEAD" };
        let mut response = match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/") => {
                let mut page = ok("text/html; charset=utf-8", PAGE.clone());
                let policy = HeaderValue::from_static(PAGE_POLICY);
                page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
                page
            }
            (&Method::GET | &Method::HEAD, "/healthz") => ok(TEXT, "ok\n"),
            (&Method::GET | &Method::HEAD, "/readyz") => match self.readiness() {
                Ok(ready) => ok(TEXT, format!("{ready}\n")),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            (&Method::GET | &Method::HEAD, "/metrics") => {
                ok(metrics::CONTENT_TYPE, metrics::render(&self.status).await)
            }
            (&Method::GET | &Method::HEAD, "/status" | "/status.json") => {
                self.status(parse_query(request.uri().query())).await
            }
            (&Method::GET | &Method::HEAD, "/history") => ok("application/json", self.history.to_json()),
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
                let line = match allowed {
                    POST_ONLY => "405 Method Not Allowed: use POST\n",
                    _ => "405 Method Not Allowed: use GET\n",
                };
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, line);
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

    /// Returns the status. Few are made at a time, as one of many rooms and connections takes much memory.
    async fn status(&self, query: StatusQuery) -> Response<Full<Bytes>> {
        let turn = Arc::clone(&self.reports).acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(REPORT_TIMEOUT, turn).await else {
            let mut busy = text(StatusCode::SERVICE_UNAVAILABLE, "503 Service Unavailable: too many ask\n");
            busy.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return busy;
        };
        let report = self.status.render(query, Format::Json).await;
        match report.len() {
            ..LARGE_REPORT => ok("application/json", report),
            // Its turn ends when it is sent.
            _ => ok("application/json", Bytes::from_owner(LargeReport { report, _turn: turn })),
        }
    }

    /// Has the program reload, and responds with the result.
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

    /// Returns the state of a server that takes new clients.
    ///
    /// # Errors
    /// It takes none.
    fn readiness(&self) -> Result<Ready, NotReady> {
        if self.drain.is_cancelled() || self.status.shared.shutdown.is_draining() {
            return Err(NotReady::Draining);
        }
        self.status.shared.cluster_readiness()
    }
}

/// A report that is kept until it is sent.
struct LargeReport {
    report: String,
    _turn: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for LargeReport {
    fn as_ref(&self) -> &[u8] {
        self.report.as_bytes()
    }
}

/// Checks that a request is not from a page of another site in the browser of an administrator.
///
/// # Errors
/// The request is refused with this status and text.
fn check_sender<B>(request: &Request<B>, is_loopback: bool) -> Result<(), (StatusCode, &'static str)> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err((StatusCode::BAD_REQUEST, "400 Bad Request: there is more than one Host header\n"));
    }
    let named = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => host.map(|host| host.to_str().unwrap_or("?")),
    };
    // A site can have its name resolve to this machine, and read the response in a page of that name.
    if is_loopback && !named.is_none_or(is_of_this_machine) {
        return Err((StatusCode::FORBIDDEN, FOREIGN_HOST));
    }
    let site = headers.get(SEC_FETCH_SITE);
    // Another site may have a link to the page, and nothing else.
    let is_foreign = site.is_some_and(|site| site == "cross-site") && request.uri().path() != "/";
    // A browser sends one of these headers with every POST: no page may stop or change the server.
    let is_of_page =
        || site.is_some() || [header::ORIGIN, header::REFERER].iter().any(|name| headers.contains_key(name));
    if is_foreign || request.method() == Method::POST && is_of_page() {
        return Err((StatusCode::FORBIDDEN, "403 Forbidden: not from a page\n"));
    }
    Ok(())
}

/// Returns true if the value of `Host` is an IP address or `localhost`, with or without a port.
fn is_of_this_machine(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let ipv6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_ip = match ipv6 {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<Ipv4Addr>().is_ok(),
    };
    port.bytes().all(|byte| byte.is_ascii_digit()) && (is_ip || name.eq_ignore_ascii_case("localhost"))
}

/// Returns the optional parts of the status that a query asks for, such as `rooms&connections`.
fn parse_query(query: Option<&str>) -> StatusQuery {
    let names: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
    let has = |wanted: &str| names.iter().any(|(name, _)| name == wanted);
    StatusQuery { connections: has("connections"), rooms: has("rooms"), all: has("all") }
}

/// Returns the dialects of sigver 19 and newer, each with the field of the data in a content, as JSON.
fn data_fields() -> String {
    let dialects = Dialect::ALL.into_iter().filter(|dialect| dialect.family() == Family::ProtobufV2);
    let fields = dialects.filter_map(|dialect| {
        let field = dialect.content_layout()?.data_field();
        Some(format!("[\"{dialect}\",{field}]"))
    });
    format!("[{}]", fields.collect::<Vec<_>>().join(","))
}

fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = ok(TEXT, body);
    *response.status_mut() = status;
    response
}
