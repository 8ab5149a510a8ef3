//! Peers of a bridge, which are no clients: one joins through the member that it names, and one takes the
//! place of a member for a joiner that finds none.
//!
//! Neither is ever a member: it is not the first, nor preferred, nor evicted, and no other peer is refused
//! because of it.

use super::member::{ArrivalSeq, Member};
use super::{Caller, EventSink, PeerEntry, Room};
use crate::protocol::model::{Join, PeerId, RejoinPolicy, RoomRole};

impl<H: Clone> Room<H> {
    /// Returns true if a peer is a member.
    pub(crate) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Returns the members in order of arrival.
    pub(crate) fn members(&self) -> impl Iterator<Item = PeerId> {
        self.members.iter().map(|member| member.peer)
    }

    /// Links `peer` to `member` as its joiner. Without an effect if that is no member. Returns the role of
    /// the peer after that.
    pub(crate) fn join_through(
        &mut self,
        peer: PeerId,
        handle: &H,
        member: PeerId,
        rng: &mut fastrand::Rng,
        deliver: &mut impl EventSink<H>,
    ) -> RoomRole {
        let found = self.members.iter().find(|found| found.peer == member).copied();
        if let Some(found) = found {
            self.link(&mut Caller { peer, handle, rng, deliver }, found, RejoinPolicy::Replace);
        }
        self.role(peer)
    }

    /// Links `peer`, which joins a room without a member, to a peer that is none. Returns the role of the
    /// joiner after that; `None`, without an effect, if there must be no more joiners.
    pub(crate) fn join_without_member(
        &mut self,
        (peer, handle): (PeerId, &H),
        join: Join,
        (entry, entry_handle): (PeerId, &H),
        max_joiners: u32,
        rng: &mut fastrand::Rng,
        deliver: &mut impl EventSink<H>,
    ) -> Option<RoomRole> {
        // The joiner and the other end of its link.
        let after = self.peers.len().saturating_add(2);
        if u32::try_from(after).unwrap_or(u32::MAX) > max_joiners {
            return None;
        }
        self.peers.get_or_insert_with(entry, || PeerEntry::new(entry_handle.clone()));
        let found = Member { place: ArrivalSeq::MIN, peer: entry, net_id: None };
        self.link(&mut Caller { peer, handle, rng, deliver }, found, join.rejoin);
        Some(self.role(peer))
    }
}
