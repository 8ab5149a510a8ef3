//! The gateway: from a configuration to a running server.

#[cfg(feature = "cluster")]
mod cluster;
mod frontend;

use std::future::Future;
#[cfg(feature = "cluster")]
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::admin::http::AdminListener;
use super::admin::unix::AdminSocket;
use super::admin::{StatusQuery, StatusService};
use super::auth::{Authenticator, Verifier};
use super::bridge::BridgeService;
#[cfg(feature = "cluster")]
use super::cluster::{ClusterNode, NodeSettings};
use super::conn::Shared;
use super::effective_limits::EffectiveLimits;
use super::fd_limit;
use super::http::{AccessControl, Routes, SseService};
use super::listening::{ListeningSocket, LocalAddress};
use super::reload::{self, ReloadRequests, ReloadableTimes, Reloader};
use super::reloadable::ReloadableTime;
use super::signaller::Signaller;
#[cfg(feature = "cluster")]
use super::start_error::ClusterError;
use super::start_error::StartError;
use super::telemetry::{LogCounts, Report};
use super::tls::ReloadableTls;
use super::unix_socket::UnixSocketError;
use crate::config::{Config, EnabledTransports};
use frontend::Frontend;
pub use frontend::StreamAcceptor;

/// Longest time for connections to close when the gateway shuts down.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(7);

/// A gateway that listens. Connections wait in the listener's queue until [`run_until`](Gateway::run_until)
/// is polled.
#[derive(Debug)]
pub struct Gateway {
    sockets: Vec<ListeningSocket>,
    addresses: Vec<LocalAddress>,
    frontend: Arc<Frontend>,
    status: StatusService,
    drain_timeout: Arc<ReloadableTime>,
    reloader: Reloader,
    /// Until the program takes them.
    reload_requests: Option<ReloadRequests>,
    admin_socket: Result<Option<AdminSocket>, UnixSocketError>,
    admin: Option<AdminListener>,
    bridge: Option<BridgeService>,
}

impl Gateway {
    /// Checks the settings, and the files that they name, without listening. Logs what a start would warn of.
    ///
    /// # Errors
    /// The configuration is contradictory, or the files for TLS are invalid.
    pub fn check(config: &Config) -> Result<(), StartError> {
        config.check()?;
        fd_limit::warn_if_lacking(&config.limits);
        config.tls.as_ref().map(ReloadableTls::load).transpose()?;
        Verifier::load(&config.access.auth, &Arc::default())?;
        #[cfg(feature = "cluster")]
        cluster::engine(&config.cluster)?;
        Ok(())
    }

    /// Returns the limits in force for this process.
    pub fn effective_limits(&self) -> EffectiveLimits {
        let admission = &self.frontend.shared.admission;
        EffectiveLimits::in_force(admission.memory(), admission.max_connections())
    }

    /// Listens as `config` has it, within the current Tokio runtime.
    ///
    /// # Errors
    /// The configuration is contradictory, the files for TLS are invalid, or the address is not available.
    pub async fn bind(config: Config) -> Result<Gateway, StartError> {
        config.check()?;
        let tls = config.tls.as_ref().map(ReloadableTls::load).transpose()?.map(Arc::new);
        let times = ReloadableTimes::new(&config);
        let (sockets, admin) = ListeningSocket::bind_all(&config.listen, config.admin.as_ref()).await?;
        let addresses = ListeningSocket::local_addresses(&sockets).map_err(StartError::LocalAddress)?;
        #[cfg(feature = "cluster")]
        let port = first_tcp(&addresses).map(|address| address.port());
        #[cfg(feature = "cluster")]
        let (node_settings, engine_loss) =
            (cluster::node_settings(&config, port).await?, config.cluster.engine_loss);
        let shared = Shared::new(&config);
        let bridge = match config.bridge.is_enabled() {
            false => None,
            true => {
                let paths = config.bridge.socket.candidates(&format!("bridge-{}", name(&addresses)));
                Some(BridgeService::open(&config, &paths, &shared).await?)
            }
        };
        let auth = Verifier::load(&config.access.auth, &shared.telemetry.callout)?.map(Authenticator::new);
        let reloader =
            Reloader::new(config.clone(), Arc::clone(&shared), (tls.clone(), auth.clone()), times.clone());
        let (reload_sender, reload_requests) = reload::reload_requests();
        let admin = AdminListener::new(admin, reload_sender).map_err(StartError::LocalAddress)?;
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
            head_timeout: times.head,
            refusals: Arc::clone(&shared.refusals),
            admission: Arc::clone(&shared.admission),
            access: AccessControl::new(&config.access, &shared, auth),
        };
        let address = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let status = StatusService {
            shared: Arc::clone(&shared),
            address,
            signaller: config.protocol.signaller,
            log: None,
            bridge: bridge.as_ref().map(|bridge| Arc::clone(bridge.link())),
            tls: tls.clone(),
        };
        let admin_socket = AdminSocket::open(&config.admin_socket.candidates(&name(&addresses))).await;
        let frontend = Arc::new(Frontend {
            shared,
            routes: Arc::new(routes),
            tls,
            tls_timeout: times.tls,
            max_message: config.max_message,
            proxies: config.access.trusted_proxies,
            proxy_protocol: config.access.proxy_protocol,
        });
        #[cfg(feature = "cluster")]
        if let Some(settings) = node_settings {
            let address = settings.listen;
            let node = frontend.join_cluster(settings).await;
            let node = node.map_err(|source| ClusterError::Listen { address, source })?;
            node.set_engine_loss(engine_loss);
        }
        Ok(Gateway {
            sockets,
            addresses,
            frontend,
            status,
            drain_timeout: times.drain,
            reloader,
            reload_requests: Some(reload_requests),
            admin_socket,
            admin,
            bridge,
        })
    }

    /// Includes the counts of the program's log in the status.
    #[must_use]
    pub fn with_log_counts(mut self, counts: Arc<LogCounts>) -> Gateway {
        self.status.log = Some(counts);
        self
    }

    /// Makes the gateway a node of a cluster, within the current Tokio runtime: its rooms, event streams and
    /// handles of signaller are those of all nodes.
    ///
    /// # Errors
    /// The address for links cannot be listened on, or the system has no randomness.
    #[cfg(feature = "cluster")]
    pub async fn join_cluster(&self, settings: NodeSettings) -> io::Result<Arc<ClusterNode>> {
        self.frontend.join_cluster(settings).await
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

    /// Returns the means to serve connections that were accepted elsewhere, while the gateway runs.
    pub fn acceptor(&self) -> StreamAcceptor {
        StreamAcceptor::new(&self.frontend)
    }

    /// Returns access to the settings, also while the gateway runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Returns the requests to reload that are made on the admin listener. Without a program that takes them,
    /// they are refused. `None` if they were taken before.
    pub fn take_reload_requests(&mut self) -> Option<ReloadRequests> {
        self.reload_requests.take()
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
    /// connection is served as before. Rooms of a node of a cluster are closed as wholes. When the timeout is
    /// over or `stop` is ready, it closes the rest at once. Returns when all are closed, or seven seconds
    /// later.
    pub async fn run(self, drain: impl Future<Output = ()>, stop: impl Future<Output = ()>) {
        let Gateway { sockets, frontend, status, drain_timeout, admin_socket, admin, bridge, .. } = self;
        let tls = frontend.tls.clone();
        let drain_requested = admin.as_ref().map(AdminListener::drain_requested);
        let drain = async {
            tokio::select! {
                () = drain => {}
                () = or_pending(drain_requested) => {}
            }
        };
        let served = async {
            tokio::select! {
                () = serve(sockets, frontend, drain_timeout, drain, stop) => {}
                () = AdminSocket::serve_opened(&admin_socket, &status) => {}
                () = or_pending(admin.as_ref().map(|admin| admin.serve(&status))) => {}
                () = or_pending(tls.map(ReloadableTls::watch)) => {}
            }
        };
        match bridge {
            None => served.await,
            Some(bridge) => bridge.run_with(served).await,
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
    drain_timeout: Arc<ReloadableTime>,
    drain: impl Future<Output = ()>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let shared = Arc::clone(&frontend.shared);
    tokio::select! {
        () = accept_connections(&sockets, &frontend) => {}
        () = shared.run_timers() => {}
        () = drain => {}
        () = &mut stop => {}
    }
    drop(sockets);
    let drain_timeout = drain_timeout.get();
    shared.drain(drain_timeout);
    tokio::select! {
        _ = async { tokio::join!(shared.shutdown.wait(drain_timeout), shared.drain_cluster(drain_timeout)) } => {}
        () = shared.run_timers() => {}
        () = stop => {}
    }
    shared.shut_down();
    let (closed, ()) = tokio::join!(shared.shutdown.wait(SHUTDOWN_TIMEOUT), shared.leave_cluster());
    if !closed {
        tracing::warn!(connections = shared.admission.open(), "connections did not close in time");
    }
}

/// Serves the connections to the sockets, if there are any; never returns.
async fn accept_connections(sockets: &[ListeningSocket], frontend: &Arc<Frontend>) {
    join_all(sockets.iter().map(|socket| frontend.accept_connections(socket))).await;
    std::future::pending().await
}
