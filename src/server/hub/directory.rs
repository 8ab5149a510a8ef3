//! The interface between rooms and a cluster: the node that has a room, and a room as one connection uses it
//! from another node.
//!
//! A connection waits for a room elsewhere as if the room were here: after a command that may change its
//! role, nothing is read from the client until the room has answered, so that the order of events is that of
//! one process.

use std::fmt;
use std::time::Duration;

use super::Outbox;
use crate::protocol::model::{Command, LinkId, Reason, RoomKey, RoomRole};

/// Longest time that a connection waits for a room: longer than the lease of a node that died, so that its
/// rooms are usable again before.
pub(in crate::server) const PLACE_TIMEOUT: Duration = Duration::from_secs(8);

/// The places of the rooms of a cluster.
pub(crate) trait Directory: fmt::Debug + Send + Sync {
    /// Returns the place of a room. If it is not known yet, `waiter` is notified when it may be.
    ///
    /// Called while part of the hub is locked, so that it must neither wait nor use the hub.
    fn locate(&self, key: &RoomKey, waiter: &Outbox) -> Location;

    /// Returns the longest time that a connection waits for a room whose place is unknown.
    fn place_timeout(&self) -> Duration {
        PLACE_TIMEOUT
    }

    /// Returns true if this node still decides about a room that it had.
    fn may_decide(&self, key: &RoomKey) -> bool;

    /// Records the time for which a connection waited until the place of its room was known.
    fn waited(&self, _time: Duration) {}

    /// Records that the node of a room, as it was located, does not have it.
    fn misplaced(&self, _key: &RoomKey) {}

    /// Records that a room of this node was removed, as no peer is left in it. Called as
    /// [`locate`](Self::locate) is.
    fn removed(&self, key: &RoomKey);
}

/// The place of a room.
#[derive(Debug)]
pub(crate) enum Location {
    /// The room is at this node, or is to be created here.
    Here,
    /// The room is at another node.
    Elsewhere(Box<dyn RemoteRoom>),
    /// The place is not known yet.
    Unknown,
    /// The room cannot be entered, for this reason.
    Unavailable(Reason),
}

/// A room at another node, as one connection uses it. No method waits. Dropping it leaves the room.
pub(crate) trait RemoteRoom: fmt::Debug + Send + Sync {
    /// Sends a command to enter the room `key`, after which the role is unknown until the room has answered.
    fn enter(&self, key: &RoomKey, command: Command);
    /// Sends a command of a peer that has entered. The role is unknown after it if the command may change it.
    fn command(&self, command: Command, changes_role: bool);
    /// Ends the membership of the peer, but not its links.
    fn drop_membership(&self);
    /// Leaves the room. The other endpoints are notified whether the connection ended with a
    /// `normal_closure`.
    fn leave(&self, normal_closure: bool);
    /// Returns true if the peer is known to be an endpoint of the link.
    fn is_endpoint_of(&self, link: LinkId) -> bool;
    /// Marks the room as one that connects clients of different generations.
    fn mark_mixed(&self, link: LinkId);
    /// Returns the role of the peer; `None` until the room has answered, when the peer's queue is notified.
    fn role(&self) -> Option<RoomRole>;
    /// Returns true if the other node refused the peer at its entry, as the room is not there. The peer's
    /// queue is notified of that.
    fn is_misplaced(&self) -> bool {
        false
    }
    /// Returns a hold that the room put on the peer since the last call. The peer's queue is notified of one.
    fn take_hold(&self) -> Option<Hold>;
    /// Returns true if the last hold is over. The peer's queue is notified when that changes.
    fn is_relieved(&self) -> bool;
    /// Has the joiner closed whose full queue is the cause of the last hold.
    fn close_joiner(&self);
}

/// The cause for which a peer is not read for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Hold {
    /// The queue of a member, or that of the peer itself, is full.
    Full,
    /// The queue of a joiner of the peer is full.
    JoinerFull,
    /// The message of the peer went to no receiver.
    NoReceiver,
}
