//! The shell around it all: a listening socket, TLS, HTTP, the control socket, and the end of everything.

pub mod admin;
pub mod conn;
pub mod fd_limit;
pub(crate) mod http;
pub mod hub;
pub mod listener;
mod scratch;
mod sharded;
pub mod signaller;
pub mod telemetry;
pub mod tls;
pub mod transport;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::config::EnabledTransports;
use crate::server::signaller::Stream;
use crate::server::transport::ws::Socket;
use conn::Context;
use http::{Routes, SseService, UpgradeTarget, Upgraded};

/// How long a client may take for a TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections have to end when the server stops.
const STOPPING: Duration = Duration::from_secs(7);

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
    context: Arc<Context>,
    stop: impl Future<Output = ()>,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let max_message = options.max_message;
    let websockets = options.transports != EnabledTransports::EventStream;
    let door = Routes {
        websockets,
        signaller: context.signaller.clone().filter(|_| websockets),
        events: SseService::new(&context, options.transports, max_message),
    };
    if !websockets && door.events.is_none() {
        tracing::warn!("no protocol that is served has event streams, and nothing else is to be served");
    }
    // Every connection holds a sender: when the last is gone, so is the last connection.
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (context, acceptor, alive) = (Arc::clone(&context), acceptor.clone(), alive.clone());
                    tokio::spawn(welcome(stream, acceptor, max_message, door.clone(), context, alive));
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
        () = context.alarm.run() => {}
        () = stop => {}
    }
    drop(listener);
    context.stopping.store(true, Ordering::Release);
    context.stop.notify_waiters();
    context.alarm.ring_all();
    drop(alive);
    if tokio::time::timeout(STOPPING, all_gone.recv()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
}

/// One new connection, up to its upgrade.
async fn welcome(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    max_message: usize,
    door: Routes,
    context: Arc<Context>,
    alive: mpsc::Sender<()>,
) {
    // Signaling is small messages that someone waits for.
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => upgrade(stream, max_message, door, context, alive).await,
        // Boxed: what TLS needs would be many times the rest of the task, with TLS or without, and when it is freed what
        // lasts leaves holes behind (1.7 kB for each idle member when many come at once).
        Some(acceptor) => Box::pin(secure(stream, acceptor, max_message, door, context, alive)).await,
    }
}

/// The same over TLS.
async fn secure(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    max_message: usize,
    door: Routes,
    context: Arc<Context>,
    alive: mpsc::Sender<()>,
) {
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(TLS_TIMEOUT, acceptor.accept(stream)) => handshake,
        () = context.stopped() => return,
    };
    match handshake {
        Ok(Ok(stream)) => upgrade(stream, max_message, door, context, alive).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

async fn upgrade<S>(
    stream: S,
    max_message: usize,
    door: Routes,
    context: Arc<Context>,
    alive: mpsc::Sender<()>,
) where
    S: Stream + 'static,
{
    let upgraded = http::serve(stream, door, alive.clone(), context.stopped()).await;
    let Some(Upgraded { stream, response, prefetched, target }) = upgraded else {
        return;
    };
    // A task of its own: the state of the handshake is larger than all that an idle peer needs, and is freed here.
    match target {
        UpgradeTarget::Room(upgrade) => {
            let socket = Socket::new(stream, prefetched, max_message).with_response(response);
            let policy = |context: &Context| Arc::clone(&context.policy);
            tokio::spawn(conn::drive(socket, upgrade, policy, context, alive));
        }
        UpgradeTarget::Signaller(signaller, admitted) => {
            let counted = context.telemetry.register_signaller();
            tokio::spawn(async move {
                signaller.serve(Box::new(stream), prefetched, admitted, context.stopped()).await;
                drop((counted, alive));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is allocated for each that comes, and freed before what lasts.
    #[test]
    fn what_a_new_connection_takes_is_small() {
        fn size<F>(
            _: impl Fn(TcpStream, Option<TlsAcceptor>, usize, Routes, Arc<Context>, mpsc::Sender<()>) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let size = size(welcome);
        assert!(size <= 1024, "{size}");
    }
}
