//! How links are made, fall silent and end.

use super::entry::{Link, PeerEntry};
use super::members::Identity;
use super::{EventSink, MAX_JOINS_HEARD, Room};
use crate::protocol::model::{Event, LinkId, PeerId, RejoinPolicy, Side};

impl<H: Clone> Room<H> {
    pub(super) fn link(
        &mut self,
        peer: PeerId,
        handle: &H,
        (member, identity): (PeerId, Identity),
        rejoin: RejoinPolicy,
        rng: &mut fastrand::Rng,
        deliver: &mut impl EventSink<H>,
    ) {
        if rejoin == RejoinPolicy::Reuse
            && let Some(id) = self.peers.get(peer).and_then(|peer| peer.joined_via)
            && self.links.get(id).is_some_and(|link| link.member == member && link.joiner_open)
        {
            return deliver(handle, Event::LinkedToMember { link: id });
        }
        let id = self.allocate_link_id(rng);
        self.links.get_or_insert_with(id, || Link {
            joiner: peer,
            member,
            joiner_open: true,
            member_open: true,
        });
        let entry = self.peers.get_or_insert_with(peer, || PeerEntry::new(handle.clone()));
        entry.links.get_or_insert_with(id, || ());
        let before = entry.joined_via.replace(id);
        match rejoin {
            RejoinPolicy::Replace | RejoinPolicy::Reuse => {
                if entry.tried.len() > self.members.len() {
                    self.members.prune(&mut entry.tried);
                }
                entry.tried.push(identity);
                before.into_iter().for_each(|link| self.remove_link(link));
            }
            RejoinPolicy::KeepReceiving => {
                before.into_iter().for_each(|link| self.half_close(link));
                self.prune_old_links(peer);
            }
        }
        if let Some(member) = self.peers.get_mut(member) {
            member.links.get_or_insert_with(id, || ());
            deliver(&member.handle, Event::LinkedToJoiner { link: id });
        }
        deliver(handle, Event::LinkedToMember { link: id });
    }

    fn allocate_link_id(&self, rng: &mut fastrand::Rng) -> LinkId {
        loop {
            let id = LinkId(rng.u32(1..=0x7fff_ffff));
            if !self.links.contains(id) {
                return id;
            }
        }
    }

    /// The joiner no longer sends over the link.
    fn half_close(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.joiner_open = false;
        if !link.member_open {
            self.remove_link(id);
        }
    }

    /// Bounds what a joiner that joins again and again can make the room remember.
    fn prune_old_links(&mut self, peer: PeerId) {
        let Some(entry) = self.peers.get(peer).filter(|peer| peer.links.len() > MAX_JOINS_HEARD) else {
            return;
        };
        let joined =
            entry.links.keys().filter(|id| self.links.get(*id).is_some_and(|link| link.joiner == peer));
        let excess: Vec<LinkId> = joined.rev().skip(MAX_JOINS_HEARD).collect();
        for link in excess {
            self.remove_link(link);
        }
    }

    /// Removes a link without a word to anybody.
    pub(super) fn remove_link(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(id) else {
            return;
        };
        for end in [link.joiner, link.member] {
            if let Some(peer) = self.peers.get_mut(end) {
                peer.links.remove(id);
            }
            self.remove_if_unreferenced(end);
        }
    }

    /// Ends a link as `gone` is gone: the other end hears of it, unless `gone` had said its last word already.
    pub(super) fn end(
        &mut self,
        id: LinkId,
        gone: PeerId,
        normal_closure: bool,
        deliver: &mut impl EventSink<H>,
    ) {
        let Some(link) = self.links.get(id) else { return };
        let (spoke_last, other, side) = if link.joiner == gone {
            (!link.joiner_open, link.member, Side::Member)
        } else {
            (!link.member_open, link.joiner, Side::Joiner)
        };
        if !spoke_last
            && other != gone
            && let Some(other) = self.peers.get(other)
        {
            deliver(&other.handle, Event::LinkEnded { link: id, side, normal_closure });
        }
        self.remove_link(id);
    }
}
