//! The shell around it all: a listening socket, TLS, HTTP, the control socket, and the end of everything.

pub mod admin;
pub mod conn;
pub mod fd_limit;
pub mod http;
pub mod hub;
pub mod listener;
mod sharded;
pub mod signaller;
pub mod telemetry;
pub mod tls;
pub mod transport;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use crate::config::EnabledTransports;
use crate::server::signaller::{Signaller, Stream};
use crate::server::transport::TransportKind;
use crate::server::transport::ws::Socket;
use conn::{ClientEndpoint, Shared, connection_span};
use http::{Routes, SseRegistry, UpgradeTarget};

/// Time that a client has for the TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that connections have to end when the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(7);

/// How connections are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The longest message a client may send, in bytes.
    pub max_message: usize,
    /// Over what clients may come.
    pub transports: EnabledTransports,
}

/// Serves connections until `stop` is ready; then takes no new ones, closes all there are, and returns when they
/// are closed, or after seven seconds.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    options: Options,
    shared: Arc<Shared>,
    signaller: Option<Arc<Signaller>>,
    stop: impl Future<Output = ()>,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let max_message = options.max_message;
    let websockets = options.transports != EnabledTransports::EventStream;
    let routes = Routes {
        websockets,
        signaller: signaller.filter(|_| websockets),
        events: SseRegistry::new(&shared, options.transports, max_message),
    };
    if !websockets && routes.events.is_none() {
        tracing::warn!("no protocol that is served has event streams, and nothing else is to be served");
    }
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => {
                    let endpoint = ClientEndpoint { remote, tls: acceptor.is_some() };
                    let (shared, acceptor, alive) =
                        (Arc::clone(&shared), acceptor.clone(), shared.shutdown.track());
                    let telemetry = Arc::clone(&shared.telemetry);
                    let task =
                        handle_tcp(stream, endpoint, acceptor, max_message, routes.clone(), shared, alive);
                    // A panic before the upgrade ends this connection alone; the driver counts those after it.
                    tokio::spawn(AssertUnwindSafe(task).catch_unwind().map(move |task| {
                        if task.is_err() {
                            telemetry.count_panic();
                            tracing::error!("connection ended by a panic: this is a bug of the server");
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
        () = stop => {}
    }
    drop(listener);
    shared.shut_down();
    if !shared.shutdown.wait(SHUTDOWN_TIMEOUT).await {
        tracing::warn!("some connections did not end in time");
    }
}

/// Handles one new connection, up to its upgrade.
async fn handle_tcp(
    stream: TcpStream,
    endpoint: ClientEndpoint,
    acceptor: Option<TlsAcceptor>,
    max_message: usize,
    routes: Routes,
    shared: Arc<Shared>,
    alive: TaskTrackerToken,
) {
    // Signaling is small messages that someone waits for.
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => upgrade(stream, endpoint, max_message, routes, shared, alive).await,
        // Boxed: what TLS needs would be many times the rest of the task, with TLS or without, and when it is freed what
        // lasts leaves holes behind.
        Some(acceptor) => {
            Box::pin(accept_tls(stream, endpoint, acceptor, max_message, routes, shared, alive)).await;
        }
    }
}

/// Handles one new connection over TLS, up to its upgrade.
async fn accept_tls(
    stream: TcpStream,
    endpoint: ClientEndpoint,
    acceptor: TlsAcceptor,
    max_message: usize,
    routes: Routes,
    shared: Arc<Shared>,
    alive: TaskTrackerToken,
) {
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(TLS_TIMEOUT, acceptor.accept(stream)) => handshake,
        () = shared.shutdown.begun() => return,
    };
    let remote = || shared.log_ip.format(endpoint.remote.ip());
    match handshake {
        Ok(Ok(stream)) => upgrade(stream, endpoint, max_message, routes, shared, alive).await,
        Ok(Err(error)) => {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(remote = remote(), error, "connection ended: the TLS handshake failed");
        }
        Err(_) => tracing::debug!(remote = remote(), "connection ended: the TLS handshake timed out"),
    }
}

async fn upgrade<S>(
    stream: S,
    endpoint: ClientEndpoint,
    max_message: usize,
    routes: Routes,
    shared: Arc<Shared>,
    alive: TaskTrackerToken,
) where
    S: Stream + 'static,
{
    let upgraded = http::serve(stream, endpoint, routes, alive.clone(), shared.shutdown.begun()).await;
    let Some(http::Upgraded { stream, grant, early, wanted }) = upgraded else {
        let remote = shared.log_ip.format(endpoint.remote.ip());
        tracing::debug!(remote, tls = endpoint.tls, "connection ended without an upgrade to a WebSocket");
        return;
    };
    // A task of its own: the state of the handshake is larger than all that an idle peer needs, and is freed here.
    match wanted {
        UpgradeTarget::Room(upgrade) => {
            let socket = Socket::new(stream, early, max_message).after(grant);
            let policy = |shared: &Shared| Arc::clone(&shared.policy);
            tokio::spawn(conn::run(socket, endpoint, upgrade, policy, shared, alive));
        }
        UpgradeTarget::Relay(signaller, call) => {
            let span = connection_span(None, endpoint, TransportKind::SignallerPipe, shared.log_ip);
            let pipe = async move {
                let (counted, began) = (shared.telemetry.relayed(), Instant::now());
                let pipe = signaller.serve(Box::new(stream), early, call, shared.shutdown.begun());
                if AssertUnwindSafe(pipe).catch_unwind().await.is_err() {
                    shared.telemetry.count_panic();
                    tracing::error!("connection ended by a panic: this is a bug of the server");
                } else {
                    let lasted_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    tracing::debug!(lasted_ms, "connection ended");
                }
                drop((counted, alive));
            };
            tokio::spawn(pipe.instrument(span));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is allocated for each that comes, and freed before what lasts.
    #[test]
    fn state_of_new_connections_is_small() {
        fn size<F>(
            _: impl Fn(
                TcpStream,
                ClientEndpoint,
                Option<TlsAcceptor>,
                usize,
                Routes,
                Arc<Shared>,
                TaskTrackerToken,
            ) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let size = size(handle_tcp);
        assert!(size <= 1024, "{size}");
    }
}
