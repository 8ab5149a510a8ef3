//! The peers of a room as the presence asks for them, and what they report.

use std::time::Instant;

use super::{BridgeAction, BridgedRoom, MAX_FORMER_IDS};
use crate::protocol::mesh::group::{IdChoice, MeshGroup};
use crate::protocol::mesh::peer::{JOINER_TIMEOUT, MeshPeer, Neighbor, PeerAction};
use crate::protocol::mesh::presence::{PresenceAction, StandInRole};

/// Ids that are not drawn: some messages use the smallest ones for other purposes.
const LOWEST_ID: u32 = 1_000;

impl BridgedRoom {
    /// Does what peers and presence ask for, until neither asks for anything.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            let presence = self.presence.take_actions();
            let reports = self.peers.take_actions();
            // What waited is sent by peers, whose actions are taken next.
            if presence.is_empty() && reports.is_empty() && !self.flush_pipes(now) {
                break;
            }
            for (number, action) in reports {
                self.report(number, action, now);
            }
            for action in presence {
                self.perform(action, now);
            }
        }
        self.end_departures(now);
        self.forget_early();
    }

    fn report(&mut self, number: u32, action: PeerAction, now: Instant) {
        match action {
            PeerAction::Offer { channel, label } => {
                let group = self.peers.get(number).map(MeshPeer::group);
                let call = self.calls.get(&number).filter(|(called, _)| *called == channel);
                self.actions.push(match call.copied().zip(group) {
                    Some(((_, target), group)) => BridgeAction::Call { channel, label, group, target },
                    None => BridgeAction::Offer { channel, label },
                });
            }
            PeerAction::Answer { channel, offer } => {
                self.actions.push(BridgeAction::Answer { channel, offer })
            }
            PeerAction::Accept { channel, answer } => {
                self.actions.push(BridgeAction::Accept { channel, answer })
            }
            PeerAction::Send { channel, frame, is_urgent } => {
                self.actions.push(BridgeAction::Send { channel, frame, is_urgent });
            }
            PeerAction::Close { channel } => {
                self.actions.push(BridgeAction::Close { channel });
            }
            PeerAction::Forward { recipient, channel, frame } => {
                let group = self.peers.get(number).map(MeshPeer::group);
                let is_recipient = |peer: &MeshPeer| Some(peer.group()) == group && peer.id() == recipient;
                let to = self.peers.iter().find(|(_, peer)| is_recipient(peer)).map(|(to, _)| to);
                if let Some(peer) = to.and_then(|to| self.peers.get_mut(to)) {
                    peer.forwarded(channel, frame, now);
                }
            }
            PeerAction::Joined => {
                if let Some((group, id)) = self.peers.get(number).map(|peer| (peer.group(), peer.id())) {
                    let is_member = !self.departing.contains_key(&number)
                        && !matches!(self.presence.stand_in(number), Some((_, StandInRole::Placeholder)));
                    self.announce_to_siblings(number, group, id, is_member);
                }
                self.presence.joined(number, now);
            }
            PeerAction::Failed => {
                self.keep_early(number);
                self.remove_peer(number, now);
                self.presence.failed(number, now);
            }
            PeerAction::MemberJoined { member } => {
                self.release_early(number, now);
                self.presence.linked(number, member, now);
            }
            PeerAction::MemberLeft { member } => {
                self.pipes.remove((number, member));
                self.presence.unlinked(number, member, now);
            }
            PeerAction::Departed { member } => {
                let Some(group) = self.peers.get(number).map(MeshPeer::group) else { return };
                for (_, peer) in self.peers.of_group_mut(group) {
                    peer.departed(member);
                }
            }
            PeerAction::Received { .. } if self.departing.contains_key(&number) => {}
            PeerAction::Received { member, chunk } => {
                self.release_early(number, now);
                self.take_chunk((number, member), chunk, now);
            }
            PeerAction::ReceivedEarly { chunk } => self.take_early(number, chunk),
        }
    }

    fn perform(&mut self, action: PresenceAction, now: Instant) {
        match action {
            PresenceAction::Call { stand_in, group, target } => {
                let peer = self.add_peer(stand_in, group);
                if let Some(channel) = peer.join(now) {
                    self.calls.insert(stand_in, (channel, target));
                }
            }
            PresenceAction::JoinThroughChannels { stand_in, group, is_announced } => {
                let neighbors = self.neighbors(group);
                let network = self.network(group);
                self.add_peer(stand_in, group).join_through(&neighbors, network, is_announced, now);
            }
            PresenceAction::Introduce { stand_in, member } => {
                let Some(group) = self.peers.get(stand_in).map(MeshPeer::group) else { return };
                let mut neighbors = self.neighbors(group);
                neighbors.retain(|neighbor| neighbor.member == member);
                if let Some(peer) = self.peers.get_mut(stand_in) {
                    peer.introduce_to(&neighbors, now);
                }
            }
            PresenceAction::OpenEntry { stand_in, group } => {
                let network = self.network(group);
                self.add_peer(stand_in, group).open_entry(network);
            }
            PresenceAction::Announce { stand_in } => {
                let announced = self.peers.get_mut(stand_in).map(|peer| {
                    peer.announce();
                    (peer.group(), peer.id())
                });
                if let Some((group, id)) = announced {
                    self.announce_to_siblings(stand_in, group, id, true);
                }
            }
            PresenceAction::Leave { stand_in } => self.depart(stand_in, now),
            PresenceAction::Cut { stand_in, member } => {
                if let Some(peer) = self.peers.get_mut(stand_in) {
                    peer.disconnect(member);
                }
            }
            PresenceAction::Entry { group, is_open } => {
                self.actions.push(BridgeAction::Entry { group, is_open });
            }
        }
    }

    /// Returns an id that no peer of the room has in this group.
    pub(super) fn any_id(&mut self, group: MeshGroup) -> u32 {
        let ids = group.facts().ids.clone();
        let lowest = LOWEST_ID.max(*ids.start());
        loop {
            let id = self.rng.u32(lowest..=*ids.end());
            if !self.has_id(group, id) {
                return id;
            }
        }
    }

    fn has_id(&self, group: MeshGroup, id: u32) -> bool {
        self.peers.values().any(|peer| {
            peer.group() == group && (peer.id() == id || peer.members().any(|(member, _)| member == id))
        })
    }

    /// Returns the id of the network of a group, or a new one.
    pub(super) fn network(&mut self, group: MeshGroup) -> u32 {
        let mut networks = self.peers.values().filter(|peer| peer.group() == group).map(MeshPeer::network);
        let known = networks.find(|network| *network != 0);
        known.unwrap_or_else(|| self.rng.u32(1..=0x7fff_ffff))
    }

    /// Returns the members of a group to which stand-ins have channels, each once.
    fn neighbors(&self, group: MeshGroup) -> Vec<Neighbor> {
        let mut neighbors: Vec<Neighbor> = Vec::new();
        let of_group = |(number, peer): &(u32, &MeshPeer)| {
            peer.group() == group && peer.is_member() && !self.departing.contains_key(number)
        };
        for (_, peer) in self.peers.iter().filter(of_group) {
            for (member, channel) in peer.members() {
                if !neighbors.iter().any(|known| known.member == member) {
                    neighbors.push(Neighbor { member, channel, owner: peer.id() });
                }
            }
        }
        neighbors
    }

    /// Creates the peer of a stand-in. Where peers choose their own ids, it has the id of its member if that
    /// is free.
    fn add_peer(&mut self, number: u32, group: MeshGroup) -> &mut MeshPeer {
        let facts = group.facts();
        let own = match self.presence.stand_in(number) {
            Some((_, StandInRole::For(member))) if facts.id_choice == IdChoice::Own => Some(member.id),
            _ => None,
        };
        let own = own.filter(|id| *id >= LOWEST_ID && facts.ids.contains(id) && !self.has_id(group, *id));
        let id = own.unwrap_or_else(|| self.any_id(group));
        let mut peer = MeshPeer::new(group, number, id);
        for (other, sibling) in self.peers.iter() {
            if sibling.group() == group {
                let is_placeholder =
                    matches!(self.presence.stand_in(other), Some((_, StandInRole::Placeholder)));
                peer.add_sibling(sibling.id(), sibling.is_member() && !is_placeholder);
            }
        }
        for former in self.former_ids.get(&group).into_iter().flatten() {
            peer.add_sibling(*former, false);
        }
        self.announce_to_siblings(number, group, id, false);
        self.peers.insert(number, peer)
    }

    /// Reports the id of another peer to the peers of a group.
    pub(super) fn announce_to_siblings(&mut self, number: u32, group: MeshGroup, id: u32, is_member: bool) {
        for (_, peer) in self.peers.of_group_mut(group).filter(|(other, _)| *other != number) {
            peer.add_sibling(id, is_member);
        }
    }

    /// Has a peer leave: once clients are members that are joining now and wait for it, and it is one where
    /// clients would wait for it otherwise.
    fn depart(&mut self, number: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(number) else { return };
        if peer.joiners_deadline(now).is_none() {
            return self.remove_peer(number, now);
        }
        peer.stop_requests();
        let (group, id) = (peer.group(), peer.id());
        self.departing.insert(number, now.checked_add(JOINER_TIMEOUT).unwrap_or(now));
        self.pipes.retain(|(stand_in, _)| stand_in != number);
        self.announce_to_siblings(number, group, id, false);
    }

    /// Has peers leave for which no client waits any more.
    fn end_departures(&mut self, now: Instant) {
        let is_over = |number: &u32, until: Instant| {
            until <= now || self.peers.get(*number).is_none_or(|peer| peer.joiners_deadline(now).is_none())
        };
        let departing = self.departing.iter().filter(|(number, until)| is_over(number, **until));
        let over: Vec<u32> = departing.map(|(number, _)| *number).collect();
        for number in over {
            self.remove_peer(number, now);
        }
    }

    /// Returns the time at which the next of the peers leaves at the latest that wait for clients.
    pub(super) fn departures_deadline(&self) -> Option<Instant> {
        let deadline = |(number, until): (&u32, &Instant)| {
            let joiners = self.peers.get(*number).and_then(MeshPeer::last_joiner_deadline);
            joiners.map_or(*until, |at| at.min(*until))
        };
        self.departing.iter().map(deadline).min()
    }

    /// Has a peer leave. Clients may mention its id for some time.
    pub(super) fn remove_peer(&mut self, number: u32, now: Instant) {
        self.departing.remove(&number);
        self.calls.remove(&number);
        let Some(mut peer) = self.peers.remove(number) else { return };
        let (group, id) = (peer.group(), peer.id());
        peer.leave();
        for action in peer.take_actions() {
            if matches!(action, PeerAction::Send { .. } | PeerAction::Close { .. }) {
                self.report(number, action, now);
            }
        }
        self.pipes.retain(|(stand_in, _)| stand_in != number);
        self.announce_to_siblings(number, group, id, false);
        let former = self.former_ids.entry(group).or_default();
        former.push_back(id);
        if former.len() > MAX_FORMER_IDS
            && let Some(oldest) = former.pop_front()
        {
            for (_, peer) in self.peers.of_group_mut(group) {
                peer.remove_sibling(oldest);
            }
        }
    }
}
