//! State that all connections of a server share.

use std::sync::Arc;
#[cfg(feature = "cluster")]
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::RwLock;
use tracing::Span;

use super::shutdown::Shutdown;
use super::timers::TimerQueue;
use crate::config::{AllowedOrigins, Config};
use crate::protocol::detect::Policy;
use crate::server::admission::Admission;
use crate::server::clock;
#[cfg(feature = "cluster")]
use crate::server::cluster::ClusterNode;
use crate::server::hub::Hub;
use crate::server::memory::{MEMORY_INTERVAL, MemoryBudget};
use crate::server::readiness::{NotReady, Ready};
use crate::server::refusals::Refusals;
use crate::server::reloadable::ReloadableLogIp;
use crate::server::telemetry::{Activity, ClusterReport, LimitLine, LimitedClient, Telemetry};

/// State that all connections share.
#[derive(Debug)]
pub struct Shared {
    /// The memory that is held for clients.
    pub memory: Arc<MemoryBudget>,
    /// The rooms.
    pub hub: Arc<Hub>,
    /// The admission of connections.
    pub admission: Arc<Admission>,
    /// The counts of connections.
    pub telemetry: Arc<Telemetry>,
    /// The counts of what connections do, if there is an admin listener.
    pub(crate) activity: Option<Box<Activity>>,
    /// The configuration of detection.
    pub policy: Arc<Policy>,
    /// The limits of each connection.
    pub limits: ConnectionLimits,
    /// The part of clients' addresses that is logged.
    pub(in crate::server) log_ip: Arc<ReloadableLogIp>,
    /// The origins of the pages that may connect.
    pub(in crate::server) allowed_origins: Arc<RwLock<AllowedOrigins>>,
    /// The counts of refusals.
    pub(crate) refusals: Arc<Refusals>,
    /// The node of a cluster that the server is, if it is one.
    #[cfg(feature = "cluster")]
    pub(in crate::server) cluster: OnceLock<Arc<ClusterNode>>,
    /// The end of the server.
    pub shutdown: Arc<Shutdown>,
    /// The deadlines of the connections.
    pub timers: TimerQueue,
}

/// Limits of each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Limit of what may wait for a client that reads too slowly, in bytes: above it, the client is closed.
    pub max_pending: usize,
    /// Time without a frame from the client after which it is sent a WebSocket ping; after as long again, the
    /// connection is closed.
    pub ping_after: Duration,
    /// Longest time from the first byte of a message to its last, and longest time without the client reading
    /// anything of what waits for it.
    pub stall_timeout: Duration,
}

impl Shared {
    /// Returns the state of a new server, without rooms and connections.
    pub fn new(config: &Config) -> Arc<Self> {
        let memory = MemoryBudget::from_limits(&config.limits);
        let telemetry = Telemetry::new();
        let log_ip = ReloadableLogIp::new(config.log_ip);
        let hub = Hub::with_limits(Arc::clone(&memory), &config.limits, Arc::clone(&telemetry));
        Arc::new(Shared {
            hub: Arc::new(hub),
            admission: Admission::new(&config.limits, &memory, &telemetry),
            memory,
            telemetry,
            activity: config.admin.as_ref().map(|_| Box::default()),
            policy: Arc::new(config.policy()),
            limits: ConnectionLimits {
                max_pending: config.max_pending,
                ping_after: config.ping_after,
                stall_timeout: config.stall_timeout,
            },
            refusals: Arc::new(Refusals::new(&log_ip)),
            log_ip,
            allowed_origins: Arc::new(RwLock::new(config.access.allowed_origins.clone())),
            #[cfg(feature = "cluster")]
            cluster: OnceLock::new(),
            shutdown: Arc::default(),
            timers: TimerQueue::default(),
        })
    }

    /// Counts and logs a panic that ended a connection before its upgrade, or a pipe.
    pub(in crate::server) fn count_panic(&self) {
        self.telemetry.count_panic();
        tracing::error!("connection ended by a panic: this is a bug of the server");
    }

    /// Logs the limits that were reached, in the span of the last connection that did.
    pub(super) fn log_limits(&self) {
        for LimitLine { kind, times, client } in self.telemetry.due_limit_lines(clock::now()) {
            let (span, last_address) = match client {
                LimitedClient::Connected(span) => (span, None),
                LimitedClient::Unadmitted(remote) => {
                    (Span::none(), remote.and_then(|remote| self.log_ip.get().format(remote)))
                }
            };
            let limit = kind.name();
            span.in_scope(|| {
                tracing::info!(
                    limit,
                    times,
                    last_address,
                    "clients reached a limit; at most one line a minute for each limit"
                );
            });
        }
    }

    /// Does what is due: notifies connections of their deadlines, logs limits that were reached, and has
    /// those closed that hold too much while the memory is short. Never returns.
    pub(in crate::server) async fn run_timers(&self) {
        let watch_memory = async {
            loop {
                tokio::time::sleep(MEMORY_INTERVAL).await;
                self.log_limits();
                if self.memory.look() {
                    self.timers.notify_all();
                }
            }
        };
        tokio::join!(self.timers.run(), watch_memory);
    }

    /// Begins the drain: each connection is closed at its time within `length`.
    pub fn drain(&self, length: Duration) {
        self.shutdown.begin_draining(length);
        self.timers.notify_all();
    }

    /// Closes the rooms of this node of a cluster one after the other within `length`, and frees them for
    /// other nodes. Without a cluster, there is nothing to do.
    pub(in crate::server) async fn drain_cluster(&self, length: Duration) {
        #[cfg(feature = "cluster")]
        if let Some(node) = self.cluster.get() {
            node.drain(length).await;
        }
        #[cfg(not(feature = "cluster"))]
        let _ = length;
    }

    /// Ends this node of a cluster: its rooms are closed, and the other nodes know of it.
    pub(in crate::server) async fn leave_cluster(&self) {
        #[cfg(feature = "cluster")]
        if let Some(node) = self.cluster.get() {
            node.close_all_rooms();
            node.leave().await;
        }
    }

    /// Returns the state of this node of a cluster; `None` if the server is none.
    pub(in crate::server) fn cluster_report(&self) -> Option<ClusterReport> {
        #[cfg(feature = "cluster")]
        return self.cluster.get().map(|node| node.status());
        #[cfg(not(feature = "cluster"))]
        None
    }

    /// Returns true if another node of the cluster has the address of this one, which takes no clients then:
    /// none of its rooms would last.
    pub(in crate::server) fn is_replaced(&self) -> bool {
        #[cfg(feature = "cluster")]
        return self.cluster.get().is_some_and(|node| node.is_replaced());
        #[cfg(not(feature = "cluster"))]
        false
    }

    /// Returns the state of a server that takes new clients, as far as a cluster is concerned.
    ///
    /// # Errors
    /// It is a node that takes none.
    pub(in crate::server) fn cluster_readiness(&self) -> Result<Ready, NotReady> {
        #[cfg(feature = "cluster")]
        if let Some(node) = self.cluster.get() {
            return node.readiness();
        }
        Ok(Ready::Sound)
    }

    /// Begins the shutdown: connections close, and no wait for it stays pending.
    pub fn shut_down(&self) {
        self.shutdown.begin_closing();
        // Each connection looks at the shutdown when it is notified, and not with every message.
        self.timers.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activity_is_counted_only_for_an_admin_listener() {
        let mut config = Config::default();
        assert!(Shared::new(&config).activity.is_none());
        config.admin = config.listen.first().cloned();
        assert!(Shared::new(&config).activity.is_some());
    }
}
