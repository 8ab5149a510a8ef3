//! The layer that netflux clients speak to each other over data channels, once signaling is done: its five
//! groups, which do not understand each other, a user message between them, and a peer of each group.
//!
//! A bridge is a peer of every group in a room, and carries user messages from one group to the others. The
//! facts are from the published clients and from recordings of their channels (`compat-tests/golden-mesh`).

#![cfg_attr(not(feature = "bridge"), allow(dead_code, reason = "only the process of the bridge runs rooms"))]

mod bridge_figures;
mod bridge_message;
mod group;
mod peer;
mod presence;
mod protobuf;
mod room;
mod user_message;

pub use bridge_figures::BridgeFigures;
pub(crate) use bridge_message::MAX_BRIDGE_MESSAGE;
pub use bridge_message::{BRIDGE_MESSAGE_VERSION, BridgeCall, BridgeMessage, BridgeMessageError, RoomNumber};
pub use group::{IdChoice, MeshFacts, MeshGroup};
pub use peer::{ChannelFrame, MAX_PEER_CHANNELS, MeshChannel, MeshPeer, Neighbor, PeerAction};
#[cfg(feature = "bridge")]
pub(crate) use room::{BridgeAction, BridgeCounts, BridgedRoom, BridgedRoomLimits};
pub use user_message::{ChunkError, ChunkWriter, ChunkedMessage, MAX_OPEN_MESSAGES, MessageChunk};
