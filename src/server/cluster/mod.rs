//! The nodes of a cluster and the links between them, by which a connection of one node is in a room of
//! another.

mod departed;
mod dialing;
mod drain;
mod engine;
mod engine_fault;
mod engine_task;
mod far;
mod guest;
#[cfg(test)]
mod hostile_tests;
mod link;
mod link_fault;
mod name_hash;
mod node;
mod node_clock;
mod node_directory;
mod questions;
mod queue;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub use engine::{Engine, EngineAddress, EngineError, MAX_KEPT, NodeEntry, Renewal};
pub use far::FarLink;
pub use link::{LinkObserver, Links, OutgoingCall};
pub use name_hash::{NameHash, NameHasher};
pub use node::{ClusterNode, NodeReport, NodeSettings};
pub use questions::{AcceptedCall, Answer, CallStream, NodeServices, Question, StreamName};
pub use tls::{KnownNodes, NodePublicKey};
pub use wire::Call;
