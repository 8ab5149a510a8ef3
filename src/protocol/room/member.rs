//! One member of a room.

use std::num::NonZeroU64;

use crate::protocol::model::{NetId, PeerId};

/// The identity by which joiners remember a member. A net id outlives the connection of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    NetId(NetId),
    Connection(PeerId),
}

/// Arrival sequence number of a member. Not zero, so that an optional one needs no extra space.
pub(super) type ArrivalSeq = NonZeroU64;

/// A member of the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) place: ArrivalSeq,
    pub(super) peer: PeerId,
    /// The id in the peer-to-peer network by which it became a member, if it did.
    pub(super) net_id: Option<NetId>,
}

impl Member {
    pub(super) fn identity(&self) -> Identity {
        self.net_id.map_or(Identity::Connection(self.peer), Identity::NetId)
    }
}
