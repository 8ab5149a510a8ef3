//! The nodes of a cluster and the links between them, by which a connection of one node is in a room of
//! another.

mod departed;
mod dialing;
mod drain;
mod engine;
mod engine_fault;
mod engine_task;
mod far;
mod first_frame;
mod guest;
#[cfg(test)]
mod hostile_tests;
mod link;
mod link_fault;
mod link_stream;
mod name_hash;
mod node;
mod node_clock;
mod node_counts;
mod node_directory;
mod open_questions;
mod question;
mod questions;
mod queue;
mod redis_cluster;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod unlinked;
mod wire;

pub use engine::{Engine, EngineAddress, NodeEntry, Renewal};
pub use engine_fault::EngineError;
pub(crate) use link::OutgoingCall;
pub use name_hash::{NameHash, NameHasher};
pub use node::{ClusterNode, NodeReport, NodeSettings};
pub(crate) use open_questions::NodeServices;
pub(crate) use question::{AcceptedCall, Answer, Question, SOCKET_BUFFER, StreamName};
pub use tls::NodePublicKey;
pub(crate) use wire::Call;
