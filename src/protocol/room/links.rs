//! Creation, half-close and end of links.

use super::entry::PeerEntry;
use super::member::Member;
use super::{Caller, EventSink, MAX_RECEIVED_JOINS, Room};
use crate::protocol::model::{Event, LinkId, PeerId, RejoinPolicy, Side};

impl<H: Clone> Room<H> {
    /// Links the caller to `member` as its joiner.
    pub(super) fn link(
        &mut self,
        caller: &mut Caller<'_, H, impl EventSink<H>>,
        member: Member,
        rejoin: RejoinPolicy,
    ) {
        let peer = caller.peer;
        if rejoin == RejoinPolicy::Reuse
            && let Some(id) = self.peers.get(peer).and_then(|entry| entry.joined_via)
            && self.links.get(id).is_some_and(|link| link.member == member.peer && link.joiner_open)
        {
            return caller.reply(Event::LinkedToMember { link: id });
        }
        let id = self.allocate_link_id(caller.rng);
        self.links.insert(id, peer, member.peer);
        let entry = self.peers.get_or_insert_with(peer, || PeerEntry::new(caller.handle.clone()));
        let previous = entry.joined_via.replace(id);
        let linked = entry.linked.get_or_insert_default();
        linked.links.get_or_insert_with(id, || ());
        match rejoin {
            RejoinPolicy::Replace | RejoinPolicy::Reuse => {
                if linked.tried.len() > self.members.len() {
                    self.members.prune(&mut linked.tried);
                }
                linked.tried.insert(member.identity());
                previous.into_iter().for_each(|link| self.remove_link(link));
            }
            RejoinPolicy::KeepReceiving => {
                previous.into_iter().for_each(|link| self.half_close(link));
                self.prune_old_links(peer);
            }
        }
        if let Some(entry) = self.peers.get_mut(member.peer) {
            entry.linked.get_or_insert_default().links.get_or_insert_with(id, || ());
            (caller.deliver)(&entry.handle, Event::LinkedToJoiner { link: id });
        }
        caller.reply(Event::LinkedToMember { link: id });
    }

    fn allocate_link_id(&self, rng: &mut fastrand::Rng) -> LinkId {
        loop {
            let id = LinkId(rng.u32(1..=0x7fff_ffff));
            if !self.links.contains(id) {
                return id;
            }
        }
    }

    /// Ends the joiner's direction of a link.
    fn half_close(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.joiner_open = false;
        if link.is_closed() {
            self.remove_link(id);
        }
    }

    /// Removes the link of the earliest join beyond the limit, so that a joiner that joins repeatedly does
    /// not grow the room without bound.
    fn prune_old_links(&mut self, peer: PeerId) {
        let linked = self.peers.get(peer).and_then(|entry| entry.linked.as_ref());
        let Some(linked) = linked.filter(|linked| linked.links.len() > MAX_RECEIVED_JOINS) else {
            return;
        };
        let link_of = |id| Some((id, self.links.get(id).filter(|link| link.joiner == peer)?));
        let joined = || linked.links.keys().filter_map(link_of);
        if joined().count() > MAX_RECEIVED_JOINS
            && let Some((oldest, _)) = joined().max_by_key(|(_, link)| self.links.age(link))
        {
            self.remove_link(oldest);
        }
    }

    /// Removes a link without an event for either endpoint.
    pub(super) fn remove_link(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(id) else {
            return;
        };
        for endpoint in [link.joiner, link.member] {
            if let Some(linked) = self.peers.get_mut(endpoint).and_then(|entry| entry.linked.as_mut()) {
                linked.links.remove(id);
            }
            self.remove_if_unreferenced(endpoint);
        }
    }

    /// Ends a link whose endpoint `left` disconnected. The other endpoint receives an event, unless `left`
    /// had sent its last message before.
    pub(super) fn end_link(
        &mut self,
        id: LinkId,
        left: PeerId,
        normal_closure: bool,
        deliver: &mut impl EventSink<H>,
    ) {
        let Some(link) = self.links.get(id) else { return };
        let (was_open, other, side) = if link.joiner == left {
            (link.joiner_open, link.member, Side::Member)
        } else {
            (link.member_open, link.joiner, Side::Joiner)
        };
        if was_open
            && other != left
            && let Some(other) = self.peers.get(other)
        {
            deliver(&other.handle, Event::LinkEnded { link: id, side, normal_closure });
        }
        self.remove_link(id);
    }
}
