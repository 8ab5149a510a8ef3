//! The protocol of `boramalper/signaller` (`signallerd`): a client listens under a handle, another connects
//! to it, and a pipe carries every message of the one to the other.
//!
//! Signaller shares the port with sigver and nothing else: no rooms, no model, no detection. The pure rules
//! are in [`crate::protocol::signaller`], the waiting listeners in [`registry`], the task of a pipe in
//! `task`; admission is part of HTTP. Differences from signallerd are C80 to C89 of
//! docs/reference/differences.md.

#[cfg(feature = "cluster")]
mod call;
pub(crate) mod registry;
mod task;

use std::future::Future;
use std::sync::Arc;
#[cfg(feature = "cluster")]
use std::sync::OnceLock;

use bytes::Bytes;

use crate::config::{OriginPattern, SignallerConfig};
use crate::protocol::signaller::handle::Handle;
#[cfg(feature = "cluster")]
use crate::server::cluster::{ClusterNode, OutgoingCall};
use crate::server::memory::MemoryBudget;
use crate::server::transport::ws::Socket;
use registry::{ConnectorSlot, ListenerGuard, Registry};
pub(crate) use task::{PipeSocket, PipeStop, PipeStream};

/// Signaller protocol of a gateway: its configuration and its listeners.
#[derive(Debug)]
pub(crate) struct Signaller {
    config: SignallerConfig,
    exclusive: bool,
    registry: Arc<Registry<PipeSocket>>,
    /// The node of a cluster whose handles are those of all nodes.
    #[cfg(feature = "cluster")]
    node: OnceLock<Arc<ClusterNode>>,
}

/// A request that was admitted. It holds the handle until it is dropped.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// A listener.
    Listen(ListenerGuard<PipeSocket>),
    /// The connector of a listener.
    Connect(ConnectorSlot<PipeSocket>),
    /// The connector of a listener at another node of a cluster.
    #[cfg(feature = "cluster")]
    Call(Box<OutgoingCall>),
}

impl Signaller {
    /// Creates a signaller without listeners. If it is `exclusive`, no other protocol is served on its port.
    pub(crate) fn new(config: SignallerConfig, exclusive: bool) -> Arc<Self> {
        Arc::new(Signaller {
            config,
            exclusive,
            registry: Arc::default(),
            #[cfg(feature = "cluster")]
            node: OnceLock::new(),
        })
    }

    /// Makes the handles those of all nodes of a cluster.
    #[cfg(feature = "cluster")]
    pub(crate) fn join_cluster(&self, node: &Arc<ClusterNode>) {
        self.node.get_or_init(|| Arc::clone(node));
    }

    /// Returns true if no other protocol is served on the port.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Returns the pattern that origins must match.
    pub(crate) fn allowed_origin(&self) -> Option<&OriginPattern> {
        self.config.origin.as_ref()
    }

    /// Returns the waiting listeners of this server.
    #[cfg(feature = "cluster")]
    pub(crate) fn registry(&self) -> &Arc<Registry<PipeSocket>> {
        &self.registry
    }

    /// Returns true if there is a listener under a handle.
    pub(crate) async fn has_listener(&self, handle: &Handle) -> bool {
        if self.registry.has_listener(handle) {
            return true;
        }
        #[cfg(feature = "cluster")]
        if let Some(node) = self.node.get() {
            return node.has_listener(handle.as_str()).await;
        }
        false
    }

    /// Registers a listener; `None` if the handle is taken.
    pub(crate) async fn listen(&self, handle: Handle) -> Option<Admitted> {
        #[cfg(feature = "cluster")]
        if let Some(node) = self.node.get() {
            let rank = fastrand::u64(..);
            let mut guard = self.registry.reserve(handle.clone(), rank)?;
            let is_taken = node.has_other_listener(handle.as_str(), rank).await;
            return (!is_taken && guard.confirm()).then_some(Admitted::Listen(guard));
        }
        self.registry.listen(handle).map(Admitted::Listen)
    }

    /// Takes the listener under a handle for a connector; `None` if there is none.
    pub(crate) async fn connect(&self, handle: &Handle) -> Option<Admitted> {
        if let Some(slot) = self.registry.take_listener(handle) {
            return Some(Admitted::Connect(slot));
        }
        #[cfg(feature = "cluster")]
        if let Some(node) = self.node.get() {
            return node.connect(handle.as_str()).await.map(|call| Admitted::Call(Box::new(call)));
        }
        None
    }

    /// Serves a client that was admitted, on the stream of its connection after the upgrade, until its pipe
    /// is closed or `stop` is ready. `prefetched` are the bytes that were read after the request. Returns the
    /// cause of the end; `None` if a connector was handed to its listener, whose task serves it.
    pub(crate) async fn serve(
        self: Arc<Self>,
        stream: Box<dyn PipeStream>,
        prefetched: Bytes,
        admitted: Admitted,
        memory: &Arc<MemoryBudget>,
        stop: impl Future<Output = PipeStop> + Send,
    ) -> Option<&'static str> {
        let limits = &self.config.limits;
        let socket = |stream| Socket::new(stream, prefetched.clone(), limits.max_size);
        match admitted {
            Admitted::Listen(guard) => {
                task::listen(socket(stream), guard, limits, memory.empty_charge(), stop).await
            }
            Admitted::Connect(slot) => task::connect(socket(stream), slot).await,
            #[cfg(feature = "cluster")]
            Admitted::Call(call) => {
                let node = (call.stream, call.link_ended);
                call::forward(stream, prefetched, node, memory.empty_charge(), stop).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    // Measured on signallerd: 60 s, 10 s, 1024 bytes are fine, the 8th message is the last.
    #[test]
    fn default_limits_are_those_of_signallerd() {
        let config = SignallerConfig::default();
        assert!(config.origin.is_none());
        assert_eq!(config.limits.listen_deadline, Duration::from_secs(60));
        assert_eq!(config.limits.pipe_deadline, Duration::from_secs(10));
        assert_eq!((config.limits.max_size, config.limits.max_messages), (1024, 8));
    }
}
