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
    pub(super) identity: Identity,
}
