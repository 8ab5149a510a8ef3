//! One room as the connections in it see it: here, behind its lock, or at another node of a cluster.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Outbox, RemoteRoom};
use crate::protocol::model::{LinkId, PeerId, RoomKey};
use crate::protocol::room::Room;

/// One room and its lock.
#[derive(Debug)]
pub(super) struct RoomCell {
    pub(super) key: RoomKey,
    pub(super) state: Mutex<RoomState>,
}

/// The place of a room.
#[derive(Debug)]
pub(super) enum RoomState {
    /// A room of this process.
    Here(Room<Outbox>),
    /// An empty room that is no longer in its shard; a peer that wants to enter must look it up again.
    Removed {
        /// Clients of different generations were linked in it.
        mixed: bool,
    },
    /// The room of one connection, in no shard.
    Elsewhere(Box<dyn RemoteRoom>),
}

impl RoomCell {
    /// Creates an empty room of this process.
    pub(super) fn here(key: RoomKey) -> Arc<Self> {
        Arc::new(RoomCell { key, state: Mutex::new(RoomState::Here(Room::default())) })
    }

    /// Creates the cell of a connection in a room of another node.
    pub(super) fn elsewhere(key: RoomKey, room: Box<dyn RemoteRoom>) -> Arc<Self> {
        Arc::new(RoomCell { key, state: Mutex::new(RoomState::Elsewhere(room)) })
    }
}

impl RoomState {
    /// Returns the room, if it is one of this process that is in its shard.
    pub(super) fn local(&mut self) -> Option<&mut Room<Outbox>> {
        match self {
            RoomState::Here(room) => Some(room),
            RoomState::Removed { .. } | RoomState::Elsewhere(_) => None,
        }
    }

    /// Returns the room, if it is one of another node.
    pub(super) fn remote(&self) -> Option<&dyn RemoteRoom> {
        match self {
            RoomState::Here(_) | RoomState::Removed { .. } => None,
            RoomState::Elsewhere(remote) => Some(&**remote),
        }
    }

    /// Returns true if the peer is an endpoint of the link.
    pub(super) fn is_endpoint_of(&self, peer: PeerId, link: LinkId) -> bool {
        match self {
            RoomState::Here(room) => room.is_endpoint_of(peer, link),
            RoomState::Removed { .. } => false,
            RoomState::Elsewhere(remote) => remote.is_endpoint_of(link),
        }
    }

    /// Ends the membership of a peer, but not its links.
    pub(super) fn drop_membership(&mut self, peer: PeerId) {
        match self {
            RoomState::Here(room) => room.drop_membership(peer),
            RoomState::Removed { .. } => {}
            RoomState::Elsewhere(remote) => remote.drop_membership(),
        }
    }

    /// Marks the room as one that connects clients of different generations. Returns true if it was not
    /// marked before; the mark of a room elsewhere is counted there.
    pub(super) fn mark_mixed(&mut self, link: LinkId) -> bool {
        match self {
            RoomState::Here(room) => room.mark_mixed(),
            RoomState::Removed { mixed } => !std::mem::replace(mixed, true),
            RoomState::Elsewhere(remote) => {
                remote.mark_mixed(link);
                false
            }
        }
    }
}

/// A room in its shard, found by the key that the room stores.
#[derive(Debug)]
pub(super) struct RoomEntry(pub(super) Arc<RoomCell>);

impl Borrow<RoomKey> for RoomEntry {
    fn borrow(&self) -> &RoomKey {
        &self.0.key
    }
}

impl PartialEq for RoomEntry {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for RoomEntry {}

impl Hash for RoomEntry {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.key.hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the two counts of an `Arc`, a room takes 128 bytes, which is a size of the allocator.
    #[test]
    fn room_is_small() {
        assert_eq!(size_of::<RoomCell>(), 128 - 2 * size_of::<usize>());
    }
}
