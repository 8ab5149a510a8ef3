//! The ownership of rooms in a cluster: the node that has a room, decided by an engine (Redis) that may
//! forget, stall and disappear.
//!
//! A node claims a name in the engine before it decides about it, and may decide only while its lease lasts.
//! `Ownership` holds these rules and nothing else: what was received and the time, in milliseconds of a
//! monotonic clock, come in as arguments, and what is to be sent goes out as `Action`s.

mod action;
mod lease;
mod ownership;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use action::{Action, LossCause};
pub use lease::EngineView;
pub(crate) use lease::{CLAIM_TIMEOUT, FORGET_TIMEOUT, GENERATION_GRACE, LEASE_TIMEOUT, PING_INTERVAL};
pub use ownership::ClaimResult;
pub(crate) use ownership::{Ownership, Place};

/// Milliseconds of a clock that the caller chose.
pub type Millis = u64;

/// The data that the engine has: the time at which it began to have them. Another process of the engine, an
/// older copy of the data and a clock that leapt begin another one.
pub type Generation = u64;

/// The way in which the engine fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineFailure {
    /// The machine of the engine answers that nothing listens there: it serves no other node either.
    Refused,
    /// Any other way, in which it may serve other nodes.
    Unreachable,
}

/// The id of a process of a node, drawn at random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A claim to a name: the node, and the number of the claim among those of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The node that claims.
    pub node: NodeId,
    /// The number of the claim, from 1.
    pub number: u32,
}

/// Sixteen hexadecimal digits.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The node, a dot and the number.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.number)
    }
}
