//! Readiness for new clients, as `/readyz` and the status of a cluster show it.

use std::fmt;

/// State of a server that takes new clients.
#[derive(Debug)]
pub(super) enum Ready {
    /// No fault is known.
    Sound,
    /// Clients are taken in spite of this fault.
    #[cfg(feature = "cluster")]
    Faulty(NodeFault),
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ready::Sound => f.write_str("ready"),
            #[cfg(feature = "cluster")]
            Ready::Faulty(fault) => write!(f, "ready, but {fault}"),
        }
    }
}

/// Cause for which the server takes no new clients.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReady {
    /// The server ends.
    #[error("draining: the server is stopping")]
    Draining,
    /// The node of a cluster cannot open rooms.
    #[cfg(feature = "cluster")]
    #[error("not ready: {0}")]
    Faulty(#[source] NodeFault),
}

/// Fault of a node, with what to do.
#[cfg(feature = "cluster")]
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeFault {
    /// Another node has its address.
    #[error("another node has the address of this one ({engine_fault})")]
    Replaced {
        /// Last failure of the engine.
        engine_fault: String,
    },
    /// Another node runs that does not know this one.
    #[error(
        "no room can be opened here, as {node} runs and does not know this node: it does not reach Redis at {url}, \
         as this one does. Let it reach that, or stop it"
    )]
    Unaware {
        /// Name and address of the other node.
        node: String,
        /// The engine, without its password.
        url: String,
    },
    /// Another node runs with which this one has no version of the messages in common.
    #[error(
        "no room can be opened here, as {node} runs and works with other versions of sigver than this one: \
         {link_fault}. Stop one of the two"
    )]
    OtherVersions {
        /// Name and address of the other node.
        node: String,
        /// The versions of both.
        link_fault: String,
    },
    /// The engine does not answer.
    #[error("Redis does not answer: {consequence} ({url}: {engine_fault})")]
    EngineLost {
        /// True if the node takes connections nevertheless.
        takes_clients: bool,
        /// Consequence for rooms.
        consequence: &'static str,
        /// The engine, without its password.
        url: String,
        /// Last failure of the engine.
        engine_fault: String,
    },
}

#[cfg(feature = "cluster")]
impl NodeFault {
    pub(super) fn takes_clients(&self) -> bool {
        match self {
            NodeFault::EngineLost { takes_clients, .. } => *takes_clients,
            NodeFault::Replaced { .. } | NodeFault::Unaware { .. } | NodeFault::OtherVersions { .. } => false,
        }
    }
}
