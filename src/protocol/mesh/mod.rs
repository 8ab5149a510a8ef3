//! The layer that netflux clients speak to each other over data channels, once signaling is done: its five
//! groups, which do not understand each other, a user message between them, and a peer of each group.
//!
//! A bridge is a peer of every group in a room, and carries user messages from one group to the others. The
//! facts are from the published clients and from recordings of their channels (`compat-tests/golden-mesh`).

mod group;
mod peer;
mod protobuf;
mod user_message;

pub use group::{IdChoice, MeshFacts, MeshGroup};
pub use peer::{ChannelFrame, MAX_PEER_CHANNELS, MeshChannel, MeshPeer, Neighbor, PeerAction};
pub use user_message::{ChunkError, ChunkWriter, ChunkedMessage, MAX_OPEN_MESSAGES, MessageChunk};
