//! The nodes of a cluster and the links between them, by which a connection of one node is in a room of
//! another.

mod far;
mod guest;
mod link;
mod queue;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub use far::FarLink;
pub use link::{LinkObserver, Links};
pub use tls::{KnownNodes, NodePublicKey};
