//! The ways into a group: through a member by signaling, through members that other peers of the bridge
//! know, or as the first, who lets others in.

use std::time::Instant;

use super::channels::PeerChannel;
use super::timers::MEMBER_TIMEOUT;
use super::{DescriptionKind, Entry, MAX_LISTED, MeshChannel, MeshPeer, Neighbor, PeerAction, Progress};

/// A client that this peer lets in.
pub(super) struct Admission {
    /// Id of the client.
    pub(super) id: u32,
    /// The members that it has to connect to, apart from this peer.
    pub(super) members: Vec<u32>,
    /// Clients that joined through this peer shortly before and are no members yet, with the channels.
    pub(super) joining: Vec<(u32, MeshChannel)>,
}

impl MeshPeer {
    /// Joins by signaling: the offer of the channel that is returned goes to a member.
    pub fn join(&mut self, now: Instant) -> Option<MeshChannel> {
        if self.progress != Progress::Idle {
            return None;
        }
        self.progress = Progress::Joining { since: now };
        let label = self.group.protocol().label(self, true);
        let channel = self.add_channel(None, None, DescriptionKind::Offer, now)?;
        self.actions.push(PeerAction::Offer { channel, label });
        Some(channel)
    }

    /// Takes the answer that arrived by signaling.
    pub fn answered(&mut self, channel: MeshChannel, answer: String) {
        if let Some(known) =
            self.channel_mut(channel).filter(|known| known.via.is_none() && !known.is_answered)
        {
            known.is_answered = true;
            self.actions.push(PeerAction::Accept { channel, answer });
        }
    }

    /// Joins through members that other peers of the bridge know. Only for groups whose facts have
    /// [`some_joiners_accept_none`](crate::protocol::mesh::MeshFacts::some_joiners_accept_none). Without
    /// a neighbor it is a member at once.
    ///
    /// If it is not announced, it opens channels to introduce others, and clients
    /// do not count it as a member.
    pub fn join_through(&mut self, neighbors: &[Neighbor], network: u32, is_announced: bool, now: Instant) {
        if self.progress != Progress::Idle {
            return;
        }
        self.progress = Progress::Joining { since: now };
        self.network = network;
        self.is_announced = is_announced;
        self.introducer = neighbors.first().map_or(0, |neighbor| neighbor.owner);
        self.awaited = neighbors.iter().take(MAX_LISTED).map(|neighbor| neighbor.member).collect();
        self.introduce(neighbors, now);
        self.complete_if_connected();
    }

    /// Announces a member that was not announced.
    pub fn announce(&mut self) {
        if self.progress == Progress::Member && !self.is_announced {
            self.is_announced = true;
            self.group.protocol().announce(self);
        }
    }

    /// Becomes the first member of the network with this id, and lets others in; a member only begins to let
    /// others in.
    pub fn open_entry(&mut self, network: u32) {
        if self.progress == Progress::Idle {
            self.network = network;
            self.progress = Progress::Member;
            self.actions.push(PeerAction::Joined);
        }
        self.keeps_entry = true;
    }

    /// Returns the id of the network, which peers that join through neighbors need.
    pub(crate) fn network(&self) -> u32 {
        self.network
    }

    /// Takes the offer of a client that arrived by signaling, and will get `id`, or the next that is free.
    /// The answer is the caller's to send.
    pub fn called(&mut self, offer: String, id: u32, now: Instant) -> Option<MeshChannel> {
        if !self.keeps_entry || self.progress != Progress::Member {
            return None;
        }
        let channel = self.add_channel(None, None, DescriptionKind::Answer, now)?;
        self.channel_mut(channel)?.admitted_as = Some(id);
        self.actions.push(PeerAction::Answer { channel, offer });
        Some(channel)
    }

    /// Gives an id to a client that joins, and returns what it has to know of the others.
    pub(super) fn admit(&mut self, channel: MeshChannel) -> Option<Admission> {
        let siblings = self.siblings.iter().filter(|(_, is_member)| **is_member).map(|(id, _)| *id);
        let members = self.members().map(|(member, _)| member).chain(siblings).collect();
        let joining = self.joining_clients(self.channel(channel)?.last_frame);
        let ids = self.group.facts().ids.clone();
        let mut id = self.channel_mut(channel)?.admitted_as.take()?;
        while !ids.contains(&id)
            || id == self.id
            || self.channel_to(id).is_some()
            || self.siblings.contains_key(&id)
        {
            id = if ids.contains(&id) { id.wrapping_add(1) } else { *ids.start() };
        }
        self.channel_mut(channel)?.member = Some(id);
        Some(Admission { id, members, joining })
    }

    /// Returns the clients that have a channel to this peer and are no members yet, with the channels. One
    /// that takes too long is left out: others would wait for it.
    fn joining_clients(&self, now: Instant) -> Vec<(u32, MeshChannel)> {
        let is_joining = |known: &&PeerChannel| {
            let duration = now.saturating_duration_since(known.since);
            known.is_open && !known.is_member && duration < MEMBER_TIMEOUT
        };
        let joining = self.channels.iter().filter(is_joining);
        joining.filter_map(|known| Some((known.member?, known.channel))).collect()
    }

    /// The member through which this peer joins has presented itself.
    pub(super) fn enter(&mut self, channel: MeshChannel, member: u32, now: Instant) -> Option<()> {
        let is_joining = matches!(self.progress, Progress::Joining { .. });
        if !is_joining || self.entry.is_some() {
            return None;
        }
        self.channel_mut(channel).filter(|known| known.via.is_none())?.member = Some(member);
        self.entry = Some(Entry { channel, member, since: now });
        Some(())
    }

    /// Returns the id of the member through which this peer joins or joined, once known.
    pub(in crate::protocol::mesh) fn entry_member(&self) -> Option<u32> {
        self.entry.map(|entry| entry.member)
    }

    /// Returns true if this peer joins over `channel` and the member has not presented itself.
    pub(super) fn awaits_entry(&self, channel: MeshChannel) -> bool {
        let is_joining = matches!(self.progress, Progress::Joining { .. });
        is_joining && self.entry.is_none() && self.channel(channel).is_some_and(|known| known.via.is_none())
    }

    /// Takes a list of members, and returns those to connect to.
    pub(super) fn await_members(&mut self, ids: &[u32]) -> Vec<u32> {
        let mut unknown = Vec::new();
        for &id in ids.iter().take(MAX_LISTED) {
            if self.listed.len() < MAX_LISTED && !self.listed.contains(&id) {
                self.listed.push(id);
            }
            let is_self = id == self.id || self.entry.is_some_and(|entry| entry.member == id);
            if !is_self && !self.siblings.contains_key(&id) && self.channel_to(id).is_none() {
                if !self.awaited.contains(&id) {
                    if self.awaited.len() >= MAX_LISTED {
                        continue;
                    }
                    self.awaited.push(id);
                }
                unknown.push(id);
            }
        }
        unknown
    }

    /// A member that was awaited is connected, or will not be.
    pub(super) fn connected_or_given_up(&mut self, member: u32) {
        self.requests.retain(|request| request.member != member);
        self.awaited.retain(|awaited| *awaited != member);
        self.complete_if_connected();
    }

    pub(super) fn complete_if_connected(&mut self) {
        if matches!(self.progress, Progress::Joining { .. }) && self.awaited.is_empty() {
            self.group.protocol().completed(self);
        }
    }

    /// This peer is a member, and so are the clients to which it is connected.
    pub(super) fn become_member(&mut self) {
        if !matches!(self.progress, Progress::Joining { .. }) {
            return;
        }
        self.progress = Progress::Member;
        self.actions.push(PeerAction::Joined);
        for (channel, _) in self.open_channels() {
            self.link(channel);
        }
    }
}
