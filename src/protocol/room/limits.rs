//! Limits of the peers in one room.

use super::Room;
use super::entry::AdmittedBy;
use crate::protocol::model::{Command, PeerId, Reason, RoomRole};

/// Limits of the peers in one room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoomLimits {
    /// Maximum number of members, at least 2: a room of one is a rule of dialects.
    pub(crate) max_members: u32,
    /// Maximum number of peers that are no members.
    pub(crate) max_joiners: u32,
    /// True if a joiner may replace the only member.
    pub(crate) replace_members: bool,
}

impl<H: Clone> Room<H> {
    /// Returns the reason for which a command must not be applied: the peer would be one more than `limits`
    /// allow, in the role that it would have, or replace another one.
    pub(crate) fn refusal(&self, peer: PeerId, command: &Command, limits: RoomLimits) -> Option<Reason> {
        if !limits.replace_members && self.would_replace(peer, command) {
            return Some(Reason::MemberKept);
        }
        let is_reached = |count: usize, limit: u32| u32::try_from(count).unwrap_or(u32::MAX) >= limit;
        let members = self.members.len();
        let full_of_members = is_reached(members, limits.max_members);
        let full_of_joiners = is_reached(self.peers.len().saturating_sub(members), limits.max_joiners);
        if !full_of_members && !full_of_joiners {
            return None;
        }
        let role = self.role(peer);
        let one_more_member = full_of_members && role != RoomRole::Member;
        let one_more_joiner = full_of_joiners && role != RoomRole::Joiner && members > 0;
        let member = one_more_member.then_some(Reason::TooManyMembers);
        let joiner = one_more_joiner.then_some(Reason::TooManyJoiners);
        match command {
            // An exclusive one is refused by the room.
            Command::Open(open) => member.filter(|_| !open.exclusive),
            Command::BecomeMember => member,
            Command::Connect(connect) if self.is_connected_to_any(peer, &connect.connected_to) => member,
            // A member that is connected to no other one becomes a joiner.
            Command::Connect(_) => joiner.filter(|_| role != RoomRole::Member || members > 1),
            Command::Join(_) | Command::TryAnother => joiner.filter(|_| role == RoomRole::None),
            Command::RevertAssumption
            | Command::Unlink
            | Command::ReplyOnBehalf { .. }
            | Command::Relay { .. } => None,
        }
    }

    /// Returns true if the command would let the peer take the place of the only member.
    fn would_replace(&self, peer: PeerId, command: &Command) -> bool {
        let admitted_by = match command {
            Command::Connect(connect) if !self.is_connected_to_any(peer, &connect.connected_to) => {
                AdmittedBy::Connect(connect.net_id)
            }
            Command::TryAnother => AdmittedBy::Join,
            Command::Open(_)
            | Command::Join(_)
            | Command::Connect(_)
            | Command::BecomeMember
            | Command::RevertAssumption
            | Command::Unlink
            | Command::ReplyOnBehalf { .. }
            | Command::Relay { .. } => return false,
        };
        !self.no_usable_member(peer)
            && self.exhausted_sole_member(peer, admitted_by).is_some_and(|member| member != peer)
    }
}
