//! The gateway: from a configuration to a running server.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use super::admin::unix::{AdminSocket, AdminSocketError};
use super::admin::{StatusQuery, StatusService};
use super::conn::{self, ClientEndpoint, Shared, connection_span};
use super::http::{self, Routes, SseService, UpgradeTarget};
use super::listener::{self, ListenError};
use super::signaller::{PipeStream, Signaller};
use super::telemetry::Report;
use super::tls::{self, TlsError};
use super::transport::TransportKind;
use super::transport::ws::Socket;
use crate::config::{Config, ConfigError, EnabledTransports};

/// Longest time for a TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for connections to close when the gateway shuts down.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(7);

/// A gateway that listens. Connections wait in the listener's queue until [`run_until`](Gateway::run_until)
/// is polled.
#[derive(Debug)]
pub struct Gateway {
    listener: TcpListener,
    frontend: Arc<Frontend>,
    status: StatusService,
    admin_socket: Result<Option<AdminSocket>, AdminSocketError>,
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
        config.tls.as_ref().map(tls::load).transpose()?;
        Ok(())
    }

    /// Listens as `config` says, within the current Tokio runtime.
    ///
    /// # Errors
    /// The configuration is contradictory, the files for TLS are invalid, or the address is not available.
    pub async fn bind(config: Config) -> Result<Gateway, StartError> {
        config.check()?;
        let tls = config.tls.as_ref().map(tls::load).transpose()?.map(TlsAcceptor::from);
        let listener = listener::bind(&config.host, config.port).await?;
        let address = listener.local_addr().map_err(StartError::LocalAddress)?;
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
        };
        let status =
            StatusService { shared: Arc::clone(&shared), address, signaller: config.protocol.signaller };
        let admin_socket = AdminSocket::open(&config.admin_socket.candidates(address.port())).await;
        let frontend = Arc::new(Frontend { shared, routes, tls, max_message: config.max_message });
        Ok(Gateway { listener, frontend, status, admin_socket })
    }

    /// Returns the address that the gateway listens on, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.status.address
    }

    /// Returns the line that the Node.js servers print on stdout when they listen.
    pub fn startup_line(&self) -> String {
        listener::startup_line(self.local_addr())
    }

    /// Returns the error because of which there is no control socket, if there should be one. The gateway
    /// works without.
    pub fn admin_socket_error(&self) -> Option<&AdminSocketError> {
        self.admin_socket.as_ref().err()
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

    /// Serves connections until `shutdown` is ready; then accepts no more, closes all connections, and
    /// returns when they are closed, or after seven seconds.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let Gateway { listener, frontend, status, admin_socket } = self;
        let answer_admin = async {
            match &admin_socket {
                Ok(Some(socket)) => socket.serve(&status).await,
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = serve(listener, frontend, shutdown) => {}
            () = answer_admin => {}
        }
    }
}

async fn serve(listener: TcpListener, frontend: Arc<Frontend>, shutdown: impl Future<Output = ()>) {
    let shared = Arc::clone(&frontend.shared);
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => {
                    let endpoint = ClientEndpoint { remote, tls: frontend.tls.is_some() };
                    let task = Arc::clone(&frontend).handle_tcp(stream, endpoint, shared.shutdown.track());
                    let shared = Arc::clone(&shared);
                    // A panic before the upgrade ends this connection alone; one after it is caught by the
                    // connection's task.
                    tokio::spawn(AssertUnwindSafe(task).catch_unwind().map(move |task| {
                        if task.is_err() {
                            shared.count_panic();
                        }
                    }));
                }
                Err(error) => {
                    if let Some(pause) = listener::accept_backoff(&error) {
                        tracing::error!(%error, "cannot accept connections");
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = shared.timers.run() => {}
        () = shutdown => {}
    }
    drop(listener);
    shared.shut_down();
    if !shared.shutdown.wait(SHUTDOWN_TIMEOUT).await {
        tracing::warn!("some connections did not close in time");
    }
}

/// State that connections share until they are upgraded.
struct Frontend {
    shared: Arc<Shared>,
    routes: Routes,
    tls: Option<TlsAcceptor>,
    max_message: usize,
}

impl fmt::Debug for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frontend").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl Frontend {
    /// Serves one connection up to its upgrade.
    async fn handle_tcp(
        self: Arc<Self>,
        stream: TcpStream,
        endpoint: ClientEndpoint,
        alive: TaskTrackerToken,
    ) {
        // Signaling messages are small, and their receivers wait for them.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.serve_http(stream, endpoint, alive).await,
            // Boxed: the state of a TLS handshake is many times that of the rest, and would be allocated for
            // plain connections as well.
            Some(_) => Box::pin(self.accept_tls(stream, endpoint, alive)).await,
        }
    }

    async fn accept_tls(
        self: Arc<Self>,
        stream: TcpStream,
        endpoint: ClientEndpoint,
        alive: TaskTrackerToken,
    ) {
        let Some(acceptor) = self.tls.clone() else { return };
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(TLS_TIMEOUT, acceptor.accept(stream)) => handshake,
            () = self.shared.shutdown.begun() => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.serve_http(stream, endpoint, alive).await,
            Ok(Err(error)) => {
                let (remote, error): (_, &dyn std::error::Error) = (self.remote(endpoint), &error);
                tracing::debug!(remote, error, "connection ended: the TLS handshake failed");
            }
            Err(_) => {
                tracing::debug!(
                    remote = self.remote(endpoint),
                    "connection ended: the TLS handshake timed out"
                );
            }
        }
    }

    /// Returns the part of the client's address that is logged.
    fn remote(&self, endpoint: ClientEndpoint) -> Option<String> {
        self.shared.log_ip.format(endpoint.remote.ip())
    }

    async fn serve_http<S: PipeStream + 'static>(
        self: Arc<Self>,
        stream: S,
        endpoint: ClientEndpoint,
        alive: TaskTrackerToken,
    ) {
        let Frontend { shared, routes, max_message, .. } = &*self;
        let upgraded =
            http::serve(stream, endpoint, routes.clone(), alive.clone(), shared.shutdown.begun()).await;
        let Some(http::Upgraded { stream, response, prefetched, target }) = upgraded else {
            let remote = self.remote(endpoint);
            tracing::debug!(remote, tls = endpoint.tls, "connection ended without an upgrade to a WebSocket");
            return;
        };
        let shared = Arc::clone(shared);
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
                        shared.shutdown.begun(),
                    );
                    match AssertUnwindSafe(pipe).catch_unwind().await {
                        Ok(Some(cause)) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_of_a_new_connection_is_small() {
        fn size<F>(_: impl Fn(Arc<Frontend>, TcpStream, ClientEndpoint, TaskTrackerToken) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(Frontend::handle_tcp);
        assert!(size <= 1024, "{size}");
    }
}
