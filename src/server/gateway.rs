//! The gateway: from a configuration to a running server.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use super::admin::http::AdminListener;
use super::admin::unix::AdminSocket;
use super::admin::{StatusQuery, StatusService};
use super::admission::ConnectionPermit;
use super::conn::{self, ClientEndpoint, Shared, connection_span};
use super::http::{self, AccessControl, Routes, SseService, UpgradeTarget};
use super::listener::{AcceptFailures, ListenError};
use super::listening::{AcceptedStream, ListeningSocket, LocalAddress};
use super::refusals::RefusalCause;
use super::reload::Reloader;
use super::signaller::{PipeStream, Signaller};
use super::telemetry::{LimitKind, LogCounts, Report};
use super::tls::{ReloadableTls, TlsError};
use super::transport::TransportKind;
use super::transport::ws::Socket;
use super::unix_socket::UnixSocketError;
use crate::config::{Config, ConfigError, EnabledTransports};

/// Longest time for connections to close when the gateway shuts down.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(7);
/// Pause between the response to an upgrade request and a first frame for which the client does not have to
/// ask.
const FIRST_FRAME_PAUSE: Duration = Duration::from_millis(2);

/// A gateway that listens. Connections wait in the listener's queue until [`run_until`](Gateway::run_until)
/// is polled.
#[derive(Debug)]
pub struct Gateway {
    sockets: Vec<ListeningSocket>,
    addresses: Vec<LocalAddress>,
    frontend: Arc<Frontend>,
    status: StatusService,
    drain_timeout: Duration,
    reloader: Reloader,
    admin_socket: Result<Option<AdminSocket>, UnixSocketError>,
    admin: Option<AdminListener>,
}

/// Failure to start a gateway, in one line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The files for TLS are missing or invalid.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system does not return the address of the listening socket.
    #[error("cannot get the address of the listening socket: {0}")]
    LocalAddress(#[source] io::Error),
}

impl Gateway {
    /// Checks the settings, and the files that they name, without listening.
    ///
    /// # Errors
    /// The configuration is contradictory, or the files for TLS are invalid.
    pub fn check(config: &Config) -> Result<(), StartError> {
        config.check()?;
        config.tls.as_ref().map(ReloadableTls::load).transpose()?;
        Ok(())
    }

    /// Listens as `config` says, within the current Tokio runtime.
    ///
    /// # Errors
    /// The configuration is contradictory, the files for TLS are invalid, or the address is not available.
    pub async fn bind(config: Config) -> Result<Gateway, StartError> {
        config.check()?;
        let tls = config.tls.as_ref().map(ReloadableTls::load).transpose()?.map(Arc::new);
        let reloader = Reloader::new(config.clone(), tls.clone());
        let (sockets, admin) = ListeningSocket::bind_all(&config.listen, config.admin.as_ref()).await?;
        let addresses = ListeningSocket::local_addresses(&sockets).map_err(StartError::LocalAddress)?;
        let admin = AdminListener::new(admin).map_err(StartError::LocalAddress)?;
        let shared = Shared::new(&config);
        let websockets = config.transports != EnabledTransports::EventStream;
        let sse = SseService::new(&shared, config.transports, config.max_message);
        if !websockets && sse.is_none() {
            tracing::warn!(
                "--type sse, but none of the enabled protocols supports event streams: every request will be rejected"
            );
        }
        let signaller = config.protocol.signaller && websockets;
        let routes = Routes {
            websockets,
            signaller: signaller
                .then(|| Signaller::new(config.signaller, config.protocol.is_signaller_only())),
            events: sse,
            shutdown: Arc::clone(&shared.shutdown),
            telemetry: Arc::clone(&shared.telemetry),
            head_timeout: config.limits.head_timeout,
            refusals: Arc::clone(&shared.refusals),
            access: AccessControl::new(&config.access),
        };
        let address = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let status = StatusService {
            shared: Arc::clone(&shared),
            address,
            signaller: config.protocol.signaller,
            log: None,
        };
        let admin_socket = AdminSocket::open(&config.admin_socket.candidates(&name(&addresses))).await;
        let frontend = Arc::new(Frontend {
            shared,
            routes: Arc::new(routes),
            tls,
            tls_timeout: config.limits.tls_timeout,
            max_message: config.max_message,
        });
        Ok(Gateway {
            sockets,
            addresses,
            frontend,
            status,
            drain_timeout: config.drain_timeout,
            reloader,
            admin_socket,
            admin,
        })
    }

    /// Includes the counts of the program's log in the status.
    #[must_use]
    pub fn with_log_counts(mut self, counts: Arc<LogCounts>) -> Gateway {
        self.status.log = Some(counts);
        self
    }

    /// Returns the addresses that the gateway listens on.
    pub fn local_addresses(&self) -> &[LocalAddress] {
        &self.addresses
    }

    /// Returns the addresses of the admin listener; none if there is no listener.
    pub fn admin_addresses(&self) -> &[LocalAddress] {
        self.admin.as_ref().map(AdminListener::addresses).unwrap_or_default()
    }

    /// Returns the first TCP address that the gateway listens on, with the port that the system chose for
    /// port 0. `None` if there are only Unix sockets.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        first_tcp(&self.addresses)
    }

    /// Returns the lines that the Node.js servers print on stdout when they listen, one for each address.
    pub fn startup_lines(&self) -> impl Iterator<Item = String> {
        self.addresses.iter().map(|address| format!("Signaling server is listening on {address}"))
    }

    /// Returns the error because of which there is no control socket, if there should be one. The gateway
    /// works without.
    pub fn admin_socket_error(&self) -> Option<&UnixSocketError> {
        self.admin_socket.as_ref().err()
    }

    /// Returns access to the settings, also while the gateway runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Returns access to the status, also while the gateway runs.
    pub fn status(&self) -> StatusService {
        self.status.clone()
    }

    /// Returns the status: connections by dialect, rooms, and what `query` asks for. Blocks for a time that
    /// grows with their number.
    pub fn report(&self, query: StatusQuery) -> Report {
        self.status.report(query)
    }

    /// Serves connections until `shutdown` is ready, and then drains them, as [`run`](Gateway::run) does.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        self.run(shutdown, std::future::pending()).await;
    }

    /// Serves connections until `drain` is ready or asked for on the admin listener. Then it accepts no more,
    /// and closes the connections at times spread over [`Config::drain_timeout`]; until its time, a
    /// connection is served as before. When the timeout is over or `stop` is ready, it closes the rest at
    /// once. Returns when all are closed, or seven seconds later.
    pub async fn run(self, drain: impl Future<Output = ()>, stop: impl Future<Output = ()>) {
        let Gateway { sockets, frontend, status, drain_timeout, admin_socket, admin, .. } = self;
        let tls = frontend.tls.clone();
        let drain_requested = admin.as_ref().map(AdminListener::drain_requested);
        let drain = async {
            tokio::select! {
                () = drain => {}
                () = or_pending(drain_requested) => {}
            }
        };
        tokio::select! {
            () = serve(sockets, frontend, drain_timeout, drain, stop) => {}
            () = AdminSocket::serve_opened(&admin_socket, &status) => {}
            () = or_pending(admin.as_ref().map(|admin| admin.serve(&status))) => {}
            () = or_pending(tls.map(ReloadableTls::watch)) => {}
        }
    }
}

/// Waits for a future, or forever if there is none.
async fn or_pending(future: Option<impl Future<Output = ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn first_tcp(addresses: &[LocalAddress]) -> Option<SocketAddr> {
    addresses.iter().find_map(|address| match address {
        LocalAddress::Tcp(address) => Some(*address),
        LocalAddress::Unix(_) => None,
    })
}

/// Returns the name of this server among those of the machine: its port, or its process id if it has none.
fn name(addresses: &[LocalAddress]) -> String {
    first_tcp(addresses).map_or_else(|| process::id().to_string(), |address| address.port().to_string())
}

async fn serve(
    sockets: Vec<ListeningSocket>,
    frontend: Arc<Frontend>,
    drain_timeout: Duration,
    drain: impl Future<Output = ()>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let shared = Arc::clone(&frontend.shared);
    tokio::select! {
        _ = join_all(sockets.iter().map(|socket| accept_connections(socket, &frontend))) => {}
        () = shared.run_timers() => {}
        () = drain => {}
        () = &mut stop => {}
    }
    drop(sockets);
    shared.drain(drain_timeout);
    tokio::select! {
        _ = shared.shutdown.wait(drain_timeout) => {}
        () = shared.run_timers() => {}
        () = stop => {}
    }
    shared.shut_down();
    if !shared.shutdown.wait(SHUTDOWN_TIMEOUT).await {
        tracing::warn!("some connections did not close in time");
    }
}

/// Serves the connections to one socket; never returns.
async fn accept_connections(socket: &ListeningSocket, frontend: &Arc<Frontend>) {
    let shared = &frontend.shared;
    let mut failures = AcceptFailures::default();
    loop {
        match socket.accept().await {
            Ok(stream) => {
                let endpoint = frontend.endpoint(&stream);
                let permit = match shared.admission.admit_connection(endpoint) {
                    Ok(permit) => permit,
                    Err(kind) => {
                        tracing::debug!(
                            remote = frontend.remote(endpoint),
                            limit = kind.name(),
                            "refused a connection"
                        );
                        match stream {
                            AcceptedStream::Unix(stream) => shared.admission.refuse(kind, stream),
                            AcceptedStream::Tcp(stream, _) if !endpoint.tls => {
                                shared.admission.refuse(kind, stream)
                            }
                            // There is no response without a handshake, which costs more than all else.
                            AcceptedStream::Tcp(..) => {}
                        }
                        continue;
                    }
                };
                let alive = Box::new((shared.shutdown.track(), permit));
                let task = Arc::clone(frontend).handle_stream(stream, endpoint, alive);
                let shared = Arc::clone(shared);
                // A panic before the upgrade ends this connection alone; one after it is caught by the
                // connection's task.
                tokio::spawn(AssertUnwindSafe(task).catch_unwind().map(move |task| {
                    if task.is_err() {
                        shared.count_panic();
                    }
                }));
            }
            Err(error) => {
                if let Some(pause) = failures.backoff(&error) {
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// Guard of an open connection: the shutdown waits for it, and it counts as one. Boxed, as the task of an
/// idle member has no room for two pointers.
type ConnectionAlive = Box<(TaskTrackerToken, ConnectionPermit)>;

/// State that connections share until they are upgraded.
struct Frontend {
    shared: Arc<Shared>,
    routes: Arc<Routes>,
    tls: Option<Arc<ReloadableTls>>,
    tls_timeout: Duration,
    max_message: usize,
}

impl fmt::Debug for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frontend").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl Frontend {
    /// Returns the client's end of a new connection. Its address is the one that limits are for.
    fn endpoint(&self, stream: &AcceptedStream) -> ClientEndpoint {
        match stream {
            // TLS is for a network: the peer of a Unix socket is a program on this machine, such as a proxy.
            AcceptedStream::Unix(_) => ClientEndpoint { remote: None, tls: false },
            AcceptedStream::Tcp(_, remote) => {
                ClientEndpoint { remote: Some(remote.ip()), tls: self.tls.is_some() }
            }
        }
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
            let mut start = [0; 16];
            // Left in the socket for the handshake.
            let length = stream.peek(&mut start).await?;
            match http::detect_on_tls_port(start.get(..length).unwrap_or_default()) {
                Some(cause) => Ok(Err((stream, cause))),
                None => acceptor.accept(stream).await.map(Ok),
            }
        };
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(self.tls_timeout, handshake) => handshake,
            () = self.shared.shutdown.admission_over() => return,
        };
        let refuse = |cause| self.shared.refusals.refuse(cause, endpoint, None);
        match handshake {
            Ok(Ok(Ok(stream))) => self.serve_http(stream, endpoint, alive).await,
            Ok(Ok(Err((stream, cause)))) => {
                refuse(cause);
                http::reject(stream, cause).await;
            }
            Ok(Err(error)) => {
                let (remote, error): (_, &dyn std::error::Error) = (self.remote(endpoint), &error);
                tracing::debug!(remote, error, "connection ended: the TLS handshake failed");
                refuse(RefusalCause::TlsHandshake);
            }
            Err(_) => {
                self.shared.telemetry.count_limit(LimitKind::TlsTimeout);
                refuse(RefusalCause::Timeout);
            }
        }
    }

    /// Returns the part of the client's address that is logged.
    fn remote(&self, endpoint: ClientEndpoint) -> Option<String> {
        endpoint.remote.and_then(|remote| self.shared.log_ip.format(remote))
    }

    async fn serve_http<S: PipeStream + 'static>(
        self: Arc<Self>,
        stream: S,
        endpoint: ClientEndpoint,
        alive: ConnectionAlive,
    ) {
        let Frontend { shared, routes, max_message, .. } = &*self;
        let upgraded = http::serve(stream, endpoint, Arc::clone(routes), alive.0.clone()).await;
        let Some(http::Upgraded { mut stream, mut response, prefetched, target }) = upgraded else {
            let remote = self.remote(endpoint);
            tracing::debug!(remote, tls = endpoint.tls, "connection ended without an upgrade to a WebSocket");
            return;
        };
        let shared = Arc::clone(shared);
        let pause = match &target {
            UpgradeTarget::Room(_) => shared.policy.sends_first().then_some(FIRST_FRAME_PAUSE),
            // A pipe has no time to lose: its deadlines run, and its other end may close.
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
                tokio::spawn(conn::run(socket, endpoint, upgrade, policy, shared, alive));
            }
            UpgradeTarget::Signaller(signaller, admitted) => {
                let id = shared.hub.next_peer_id();
                let span = connection_span(id, endpoint, TransportKind::SignallerPipe, shared.log_ip);
                let pipe = async move {
                    let (counted, began) = (shared.telemetry.register_signaller(), Instant::now());
                    let pipe = signaller.serve(
                        Box::new(stream),
                        prefetched,
                        admitted,
                        &shared.memory,
                        shared.shutdown.connection_closing(id),
                    );
                    match AssertUnwindSafe(pipe).catch_unwind().await {
                        Ok(Some(cause)) => {
                            if let Some(activity) = &shared.activity {
                                activity.count_end("signaller", cause, 0);
                            }
                            let lasted_s = began.elapsed().as_secs();
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
