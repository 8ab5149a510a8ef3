//! Channels that a peer asks clients for, and clients that are about to ask it for one.

use std::time::{Duration, Instant};

use super::{MAX_LISTED, MeshChannel, MeshPeer, Neighbor, PeerAction, Progress};

/// Most times that a client is asked for a channel.
const MAX_REQUESTS: u32 = 4;
/// Maximum duration for which a peer that leaves stays for clients that are joining.
pub(in crate::protocol::mesh) const JOINER_TIMEOUT: Duration = Duration::from_secs(4);

/// Maximum duration for which a client that asked through a member to be connected may send the same way:
/// that of a few attempts to connect.
const DISTANT_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that was asked for a channel, and has none to this peer that is ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelRequest {
    pub(super) member: u32,
    /// The channel over which the client was asked.
    pub(super) via: MeshChannel,
    /// Id of the peer that has this channel.
    pub(super) owner: u32,
    at: Instant,
    count: u32,
}

/// A client that joins, and will ask this peer for a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedJoiner {
    pub(super) id: u32,
    since: Instant,
}

impl MeshPeer {
    /// Asks a client for a channel. Only for groups in which clients have to be asked again if the channel
    /// does not open in time.
    pub(super) fn request(&mut self, neighbor: &Neighbor, now: Instant) {
        let Neighbor { member, channel, owner } = *neighbor;
        let request = ChannelRequest { member, via: channel, owner, at: now, count: 1 };
        self.group.protocol().request_channel(self, &request);
        if self.requests.len() < MAX_LISTED && !self.requests.iter().any(|known| known.member == member) {
            self.requests.push(request);
        }
    }

    /// Announces this peer to clients over channels of other peers, and asks the clients for channels.
    pub(super) fn introduce(&mut self, neighbors: &[Neighbor], now: Instant) {
        for neighbor in neighbors {
            self.group.protocol().announce_joiner(self, neighbor);
            self.request(neighbor, now);
        }
    }

    /// Asks for channels once this peer is a member: to clients that joined while this peer was joining. Only
    /// for groups that [`join_through`](Self::join_through) is for.
    pub fn introduce_to(&mut self, neighbors: &[Neighbor], now: Instant) {
        if self.progress != Progress::Member {
            return;
        }
        let mut unknown = neighbors.to_vec();
        unknown.retain(|neighbor| self.channel_to(neighbor.member).is_none());
        for neighbor in &unknown {
            self.add_introduced(neighbor.member);
        }
        self.introduce(&unknown, now);
    }

    fn add_introduced(&mut self, member: u32) {
        if self.introduced.len() < MAX_LISTED && !self.introduced.contains(&member) {
            self.introduced.push(member);
        }
    }

    /// Returns true if this peer, a member, asked `member` for the channel.
    pub(super) fn was_introduced_to(&self, member: u32) -> bool {
        self.progress == Progress::Member && self.introduced.contains(&member)
    }

    /// Waits no more for clients that have no channel to this peer yet. It is a member without them, and
    /// introduced to those whose channel opens later.
    pub(super) fn give_up_awaited(&mut self) {
        for member in std::mem::take(&mut self.awaited) {
            self.add_introduced(member);
        }
        self.complete_if_connected();
    }

    /// Returns the time at which a client is asked again.
    pub(super) fn requests_deadline(&self) -> Option<Instant> {
        let timeout = self.group.facts().request_timeout?;
        self.requests.iter().filter_map(|request| request.at.checked_add(timeout)).min()
    }

    /// Asks clients again whose channels are not ready in time.
    pub(super) fn repeat_requests(&mut self, now: Instant) {
        let Some(timeout) = self.group.facts().request_timeout else { return };
        let is_due = |request: &ChannelRequest| now.saturating_duration_since(request.at) >= timeout;
        for mut request in std::mem::take(&mut self.requests) {
            if !is_due(&request) {
                self.requests.push(request);
                continue;
            }
            let channel = self.channel_to(request.member);
            let is_linked = channel.is_some_and(|channel| self.is_linked(channel));
            if is_linked || request.count >= MAX_REQUESTS {
                continue;
            }
            request.at = now;
            if let Some(known) = channel.and_then(|channel| self.forget(channel)) {
                self.actions.push(PeerAction::Close { channel: known.channel });
                let delay = self.group.facts().relink_delay;
                if known.is_open && !delay.is_zero() {
                    // The client would close the next one by the end of this one.
                    request.at = now.checked_add(delay.saturating_sub(timeout)).unwrap_or(now);
                    self.requests.push(request);
                    continue;
                }
            }
            request.count = request.count.saturating_add(1);
            self.group.protocol().request_channel(self, &request);
            self.requests.push(request);
        }
    }

    /// Asks no client any more.
    pub fn stop_requests(&mut self) {
        self.requests.clear();
    }

    /// A client that joins was announced.
    pub(super) fn expect_joiner(&mut self, id: u32, now: Instant) {
        self.expected.retain(|known| now.saturating_duration_since(known.since) < JOINER_TIMEOUT);
        if self.expected.len() < MAX_LISTED && !self.expected.iter().any(|known| known.id == id) {
            self.expected.push(ExpectedJoiner { id, since: now });
        }
    }

    /// A client asks through a member to be connected, and may send user messages the same way until it is.
    pub(super) fn add_distant(&mut self, id: u32, now: Instant) {
        self.distant
            .retain(|known| now.saturating_duration_since(known.since) < DISTANT_TIMEOUT && known.id != id);
        let is_own = id == self.id || self.siblings.contains_key(&id);
        if !is_own && self.distant.len() < MAX_LISTED {
            self.distant.push(ExpectedJoiner { id, since: now });
        }
    }

    /// Returns true if a client has a channel to this peer, or is about to get one.
    pub(in crate::protocol::mesh) fn is_near(&self, id: u32, now: Instant) -> bool {
        let is_recent = |known: &ExpectedJoiner| now.saturating_duration_since(known.since) < DISTANT_TIMEOUT;
        self.has_channel_to(id)
            || self.awaited.contains(&id)
            || self.distant.iter().any(|known| known.id == id && is_recent(known))
    }

    /// Returns the time until which a leave breaks the join of a client: the client waits for this peer, and
    /// some versions wait forever. In some groups this holds for a peer that joins itself.
    pub fn joiners_deadline(&self, now: Instant) -> Option<Instant> {
        self.last_joiner_deadline().filter(|until| *until > now)
    }

    /// Returns the latest such time, which may have passed.
    pub fn last_joiner_deadline(&self) -> Option<Instant> {
        if let Progress::Joining { since } = self.progress
            && self.group.facts().waits_for_lost_joiners
            && self.channels.iter().any(|known| known.is_answered)
        {
            return since.checked_add(JOINER_TIMEOUT);
        }
        if self.progress != Progress::Member {
            return None;
        }
        let expected = self.expected.iter().filter(|known| !self.siblings.contains_key(&known.id));
        let joining = self.channels.iter().filter(|known| !known.is_member);
        let since = expected.map(|known| known.since).chain(joining.map(|known| known.since));
        since.filter_map(|since| since.checked_add(JOINER_TIMEOUT)).max()
    }
}
