//! Readiness for new clients, as `/readyz` and the status of a cluster show it.

use std::fmt;

#[cfg(feature = "cluster")]
use super::cluster::NodeFault;

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
