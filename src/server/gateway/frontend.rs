//! Connections up to their upgrade: from the sockets of a gateway, or accepted elsewhere.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use crate::config::{ProxyProtocol, TrustedProxies};
use crate::server::admission::{ConnectionPermit, ConnectionRefusal};
use crate::server::client_endpoint::ClientEndpoint;
use crate::server::clock;
use crate::server::conn::{self, AdmittedClient, Shared, connection_span};
use crate::server::http::{self, GrantedUpgrade, HEALTHCHECK_START, Routes, UpgradeTarget};
use crate::server::listener::AcceptFailures;
use crate::server::listening::{AcceptedStream, ListeningSocket};
use crate::server::memory::TLS_HANDSHAKE;
use crate::server::proxy_protocol::{self, ReportedSource};
use crate::server::refusals::RefusalCause;
use crate::server::reloadable::ReloadableTime;
use crate::server::signaller::{PipeStop, PipeStream};
use crate::server::telemetry::LimitKind;
use crate::server::tls::{ChargedStream, CountedStream, ReloadableTls, handshake_failure};
use crate::server::transport::TransportKind;
use crate::server::transport::ws::Socket;

/// Pause between the response to an upgrade request and a first frame for which the client does not have to
/// ask.
const FIRST_FRAME_PAUSE: Duration = Duration::from_millis(2);

/// Access to a gateway for connections that were accepted elsewhere: on a socket of another kind, or within
/// the process.
#[derive(Clone, Debug)]
pub struct StreamAcceptor {
    frontend: Arc<Frontend>,
}

impl StreamAcceptor {
    pub(super) fn new(frontend: &Arc<Frontend>) -> Self {
        StreamAcceptor { frontend: Arc::clone(frontend) }
    }

    /// Serves a connection in a task of its own, within the current Tokio runtime. Like the connections to
    /// the gateway's own sockets, it is admitted and counted, by the address `remote` if there is one. It has
    /// no TLS. Once the gateway drains, it is dropped instead.
    pub fn accept<S>(&self, stream: S, remote: Option<IpAddr>)
    where
        S: AsyncRead + AsyncWrite + fmt::Debug + Unpin + Send + 'static,
    {
        if self.frontend.shared.shutdown.is_draining() {
            return;
        }
        let endpoint =
            ClientEndpoint { remote, tls: false, behind_proxy: self.frontend.proxies.contains(remote) };
        if self.frontend.shared.is_replaced() {
            return self.frontend.refuse_replaced(stream, endpoint);
        }
        match self.frontend.admit(endpoint) {
            Ok(alive) => {
                let task = Arc::clone(&self.frontend).serve_http(stream, endpoint, alive);
                self.frontend.spawn(task);
            }
            Err(kind) => self.frontend.shared.admission.refuse(kind, stream),
        }
    }
}

/// Guard of an open connection: the shutdown waits for it, and it counts as one. Boxed, as the task of an
/// idle member has no room for two pointers.
type ConnectionAlive = Box<(TaskTrackerToken, ConnectionPermit)>;

/// Beginning of a connection to a port of TLS.
enum TlsStart {
    Open(Box<ChargedStream<TcpStream>>),
    /// Not TLS. True for a request of `sigver healthcheck`.
    Refused(TcpStream, RefusalCause, bool),
    /// The connection ended before its first byte.
    Ended,
}

/// State that connections share until they are upgraded.
pub(super) struct Frontend {
    pub(super) shared: Arc<Shared>,
    pub(super) routes: Arc<Routes>,
    pub(super) tls: Option<Arc<ReloadableTls>>,
    pub(super) tls_timeout: Arc<ReloadableTime>,
    pub(super) max_message: usize,
    /// Proxies whose connections are those of their clients.
    pub(super) proxies: TrustedProxies,
    pub(super) proxy_protocol: ProxyProtocol,
}

impl fmt::Debug for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frontend").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl Frontend {
    /// Serves the connections to one socket; never returns.
    pub(super) async fn accept_connections(self: &Arc<Self>, socket: &ListeningSocket) {
        let mut failures = AcceptFailures::default();
        loop {
            match socket.accept().await {
                Ok(stream) => self.accept(stream),
                Err(error) => {
                    if let Some(pause) = failures.backoff(&error) {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    }

    fn accept(self: &Arc<Self>, stream: AcceptedStream) {
        let endpoint = self.endpoint(&stream);
        // With TLS, the response follows the handshake.
        if !endpoint.tls && self.shared.is_replaced() {
            return self.refuse_replaced(stream.into_io(), endpoint);
        }
        if self.proxy_protocol != ProxyProtocol::Off {
            return self.accept_proxied(stream, endpoint);
        }
        self.accept_from(stream, endpoint);
    }

    /// Answers a new connection that would exceed a limit.
    fn refuse(&self, kind: LimitKind, stream: AcceptedStream, endpoint: ClientEndpoint) {
        // With TLS there is no response without a handshake, which costs more than all else.
        if !endpoint.tls {
            self.shared.admission.refuse(kind, stream.into_io());
        }
    }

    /// Answers a client of a node of a cluster whose address another node has taken. Counts and logs it.
    fn refuse_replaced(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        endpoint: ClientEndpoint,
    ) {
        self.shared.refusals.refuse(RefusalCause::Replaced, endpoint, Some(503));
        self.shared.admission.refuse(ConnectionRefusal::Replaced, stream);
    }

    /// Accepts a connection whose other end is known.
    fn accept_from(self: &Arc<Self>, stream: AcceptedStream, endpoint: ClientEndpoint) {
        match self.admit(endpoint) {
            Ok(alive) => self.spawn(Arc::clone(self).handle_stream(stream, endpoint, alive)),
            Err(kind) => self.refuse(kind, stream, endpoint),
        }
    }

    /// Accepts a connection that a trusted proxy may have begun with a header of the PROXY protocol.
    fn accept_proxied(self: &Arc<Self>, mut stream: AcceptedStream, proxy: ClientEndpoint) {
        let mode = self.proxy_protocol;
        if !proxy.behind_proxy && mode != ProxyProtocol::Required {
            return self.accept_from(stream, proxy);
        }
        // Counted as the proxy's while its header is read.
        let Ok(alive) = self.admit(proxy) else { return };
        let this = Arc::clone(self);
        self.spawn(Box::pin(async move {
            let header = async {
                match proxy.behind_proxy {
                    true => proxy_protocol::read_header(&mut stream, mode).await,
                    false => Ok(Err(RefusalCause::MissingProxyHeader)),
                }
            };
            let timeout = (this.routes.head_timeout.get(), LimitKind::HeadTimeout);
            let Some(header) = this.receive_start(header, timeout, proxy).await else { return };
            match header {
                Ok(Ok(None)) => this.handle_stream(stream, proxy, alive).await,
                Ok(Ok(Some(ReportedSource::Proxy))) => {
                    // A client that is not named has no address: what it sends in HTTP is not of the proxy.
                    let unnamed = ClientEndpoint { remote: None, behind_proxy: false, ..proxy };
                    this.handle_stream(stream, unnamed, alive).await;
                }
                Ok(Ok(Some(ReportedSource::Client(remote)))) => {
                    let remote = Some(remote);
                    let behind_proxy = this.proxies.contains(remote);
                    // The address of the client is admitted in place of that of the proxy.
                    drop(alive);
                    this.accept_from(stream, ClientEndpoint { remote, behind_proxy, ..proxy });
                }
                Ok(Err(cause)) => {
                    this.shared.refusals.refuse(cause, proxy, None);
                    if !proxy.tls {
                        reject(stream, cause).await;
                    }
                }
                Err(_) => {
                    tracing::debug!(remote = this.remote(proxy), "connection ended before its first byte");
                }
            }
        }));
    }

    /// Receives the start of a connection from `peer`. Returns `None`, and counts and logs it, if that takes
    /// longer than its limit, or if the server stops before.
    async fn receive_start<T>(
        &self,
        start: impl Future<Output = T>,
        (timeout, limit): (Duration, LimitKind),
        peer: ClientEndpoint,
    ) -> Option<T> {
        let received = tokio::select! {
            received = tokio::time::timeout(timeout, start) => received,
            () = self.shared.shutdown.admission_over() => return None,
        };
        if received.is_err() {
            self.shared.telemetry.count_limit_of(limit, peer);
            self.shared.refusals.refuse(RefusalCause::Timeout, peer, None);
        }
        received.ok()
    }

    /// Admits a connection, or counts, logs and returns the limit that it would exceed.
    fn admit(&self, endpoint: ClientEndpoint) -> Result<ConnectionAlive, LimitKind> {
        let permit = self.shared.admission.admit_connection(endpoint).inspect_err(|kind| {
            tracing::debug!(remote = self.remote(endpoint), limit = kind.name(), "refused a connection");
        })?;
        Ok(Box::new((self.shared.shutdown.track(), permit)))
    }

    /// Runs the task of a connection up to its upgrade. A panic ends this connection alone; one after the
    /// upgrade is caught by the connection's own task.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(AssertUnwindSafe(task).catch_unwind().map(move |task| {
            if task.is_err() {
                shared.count_panic();
            }
        }));
    }

    /// Returns the client's end of a new connection.
    fn endpoint(&self, stream: &AcceptedStream) -> ClientEndpoint {
        let (remote, tls) = match stream {
            // TLS is for a network: the peer of a Unix socket is a program on this machine, such as a proxy.
            AcceptedStream::Unix(_) => (None, false),
            AcceptedStream::Tcp(_, remote) => (Some(remote.ip()), self.tls.is_some()),
        };
        ClientEndpoint { remote, tls, behind_proxy: self.proxies.contains(remote) }
    }

    /// Serves one connection up to its upgrade.
    async fn handle_stream(
        self: Arc<Self>,
        stream: AcceptedStream,
        endpoint: ClientEndpoint,
        alive: ConnectionAlive,
    ) {
        match stream {
            AcceptedStream::Unix(stream) => Box::pin(self.serve_http(stream, endpoint, alive)).await,
            AcceptedStream::Tcp(stream, _) => {
                // Signaling messages are small, and their receivers wait for them.
                let _ = stream.set_nodelay(true);
                match &self.tls {
                    None => self.serve_http(stream, endpoint, alive).await,
                    // Boxed: the state of a TLS handshake is many times that of the rest, and would be
                    // allocated for plain connections as well.
                    Some(_) => Box::pin(self.accept_tls(stream, endpoint, alive)).await,
                }
            }
        }
    }

    async fn accept_tls(
        self: Arc<Self>,
        stream: TcpStream,
        endpoint: ClientEndpoint,
        alive: ConnectionAlive,
    ) {
        let Some(acceptor) = self.tls.as_ref().map(|tls| tls.acceptor()) else { return };
        let handshake = async {
            let mut start = [0; HEALTHCHECK_START.len()];
            // Left in the socket for the handshake.
            let length = stream.peek(&mut start).await.unwrap_or_default();
            if length == 0 {
                return Ok(TlsStart::Ended);
            }
            if let Some(cause) = http::detect_on_tls_port(start.get(..length).unwrap_or_default()) {
                return Ok(TlsStart::Refused(stream, cause, start == HEALTHCHECK_START));
            }
            // Until the handshake is over, that is. Connections that send nothing are not charged.
            let Ok(_charge) = self.shared.memory.charge_before_upgrade(TLS_HANDSHAKE) else {
                self.shared.telemetry.count_limit_of(LimitKind::Memory, endpoint);
                return Err(io::ErrorKind::OutOfMemory.into());
            };
            let stream = acceptor.accept(CountedStream::new(stream)).await?;
            let charged = ChargedStream::new(stream, &self.shared.memory, &self.shared.telemetry);
            io::Result::Ok(TlsStart::Open(Box::new(charged)))
        };
        let timeout = (self.tls_timeout.get(), LimitKind::TlsTimeout);
        let Some(handshake) = self.receive_start(handshake, timeout, endpoint).await else { return };
        let refuse = |cause| self.shared.refusals.refuse(cause, endpoint, None);
        match handshake {
            Ok(TlsStart::Open(stream)) if self.shared.is_replaced() => {
                self.refuse_replaced(*stream, endpoint)
            }
            Ok(TlsStart::Open(stream)) => self.serve_http(*stream, endpoint, alive).await,
            Ok(TlsStart::Refused(stream, cause, is_healthcheck)) => {
                // It cannot know whether the port has TLS, and asks again with TLS.
                if !is_healthcheck {
                    refuse(cause);
                }
                http::reject(stream, cause).await;
            }
            // As load balancers check whether a port is open.
            Ok(TlsStart::Ended) => {
                tracing::debug!(remote = self.remote(endpoint), "connection ended before its first byte");
            }
            // Counted by its limit.
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {}
            Err(error) => {
                let cause = handshake_failure(&error);
                let (remote, error): (_, &dyn std::error::Error) = (self.remote(endpoint), &error);
                tracing::debug!(remote, error, "connection ended: the TLS handshake failed");
                refuse(cause);
            }
        }
    }

    /// Returns the part of the client's address that is logged.
    fn remote(&self, endpoint: ClientEndpoint) -> Option<String> {
        endpoint.remote.and_then(|remote| self.shared.log_ip.get().format(remote))
    }

    async fn serve_http<S: PipeStream + 'static>(
        self: Arc<Self>,
        stream: S,
        endpoint: ClientEndpoint,
        mut alive: ConnectionAlive,
    ) {
        let Frontend { shared, routes, max_message, .. } = &*self;
        let upgraded = http::serve(stream, endpoint, Arc::clone(routes), alive.0.clone()).await;
        let Some(http::Upgraded { mut stream, prefetched, granted }) = upgraded else {
            tracing::debug!(
                remote = self.remote(endpoint),
                tls = endpoint.tls,
                "connection ended without an upgrade to a WebSocket"
            );
            return;
        };
        let GrantedUpgrade { mut response, target, client: endpoint, permit, grant } = granted;
        if let Some(permit) = permit {
            alive.1 = permit;
        }
        let shared = Arc::clone(shared);
        let pause = match &target {
            UpgradeTarget::Room(_) => shared.policy.sends_first().then_some(FIRST_FRAME_PAUSE),
            // Without a pause: the deadlines of a pipe run already, and its other end may close.
            UpgradeTarget::Signaller(..) => Some(Duration::ZERO),
        };
        if let Some(pause) = pause {
            // Boxed, as this state is rarely needed.
            let sent = Box::pin(send_apart(&mut stream, std::mem::take(&mut response), pause)).await;
            if sent.is_err() {
                tracing::debug!(remote = self.remote(endpoint), "connection ended within the upgrade");
                return;
            }
        }
        // A task of its own, so that the larger state of the HTTP connection is freed now.
        match target {
            UpgradeTarget::Room(upgrade) => {
                let socket = Socket::new(stream, prefetched, *max_message).with_response(response);
                let policy = |shared: &Shared| Arc::clone(&shared.policy);
                let client = AdmittedClient { endpoint, grant };
                tokio::spawn(conn::run(socket, client, upgrade, policy, shared, alive));
            }
            UpgradeTarget::Signaller(signaller, admitted) => {
                let id = shared.hub.next_peer_id();
                let span = connection_span(id, endpoint, TransportKind::SignallerPipe, shared.log_ip.get());
                let expires_at = grant.and_then(|grant| grant.expires_at());
                let expires_at = expires_at.map(|time| tokio::time::sleep_until(time.into()));
                let pipe = async move {
                    let stop = async {
                        tokio::select! {
                            () = shared.shutdown.connection_closing(id) => PipeStop::Shutdown,
                            () = super::or_pending(expires_at) => PipeStop::TokenExpired,
                        }
                    };
                    let (counted, began) = (shared.telemetry.register_signaller(), clock::now());
                    let pipe = signaller.serve(Box::new(stream), prefetched, admitted, &shared.memory, stop);
                    match AssertUnwindSafe(pipe).catch_unwind().await {
                        Ok(Some(cause)) => {
                            if let Some(activity) = &shared.activity {
                                activity.count_end("signaller", cause, 0);
                            }
                            let lasted_s = clock::now().saturating_duration_since(began).as_secs();
                            tracing::debug!(id = id.0, cause, lasted_s, "connection ended");
                        }
                        Ok(None) => tracing::debug!(id = id.0, "connector handed to its listener"),
                        Err(_) => shared.count_panic(),
                    }
                    drop((counted, alive));
                };
                tokio::spawn(pipe.instrument(span));
            }
        }
    }
}

/// Refuses a connection whose beginning is not as configured.
async fn reject(stream: AcceptedStream, cause: RefusalCause) {
    http::reject(stream.into_io(), cause).await;
}

/// Sends the response to an upgrade request, and waits before the first frame may follow. Programs that add
/// their listener a turn of their event loop after the upgrade would lose a frame that arrives with it. The
/// Node.js servers wait less: they make two writes in one turn, which a client reads at once if it is slow.
async fn send_apart<S: AsyncWrite + Unpin>(
    stream: &mut S,
    response: Vec<u8>,
    pause: Duration,
) -> io::Result<()> {
    stream.write_all(&response).await?;
    stream.flush().await?;
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
