//! One bridged room: which peer stands for which client, a peer per stand-in, and a pipe for each
//! pair of members. What needs a socket or a clock is the caller's: peer connections, signaling, time and
//! randomness.
//!
//! A stand-in is connected to clients only, and a message goes from a client over the stand-in that it was
//! sent to into the one that stands for the sender in the receiver's group. So nothing can go in circles,
//! and each pair has its own order and its own failures.

mod early;
mod peers;
mod pipe_queues;
mod pipes;
mod stand_ins;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::group::MeshGroup;
use super::peer::{ChannelFrame, MeshChannel, MeshPeer};
use super::presence::{Presence, PresenceLimits, StandInRole};
use early::EarlyMessages;
use peers::Peers;
use pipe_queues::Pipes;
use pipes::Rates;

/// Bounds of a bridged room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BridgedRoomLimits {
    /// Bounds of its members.
    pub(crate) presence: PresenceLimits,
    /// Longest user message, in bytes. A longer one is dropped and counted.
    pub(crate) max_message: u32,
    /// Most bytes that wait from one member to one other until both are connected. More cut the pair.
    pub(crate) max_waiting: usize,
    /// Bytes per second that are carried for one sender, with those of its messages to each receiver.
    pub(crate) member_rate: u32,
    /// Bytes per second that are carried in all.
    pub(crate) room_rate: u32,
    /// Most bytes that wait from one member to one other because of the rates. More cut the pair.
    pub(crate) max_delayed: usize,
}

impl Default for BridgedRoomLimits {
    fn default() -> Self {
        BridgedRoomLimits {
            presence: PresenceLimits::default(),
            max_message: 16 << 20,
            max_waiting: 256 << 10,
            member_rate: 8 << 20,
            room_rate: 16 << 20,
            max_delayed: 16 << 20,
        }
    }
}

/// Something to do for a bridged room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BridgeAction {
    /// Create a peer connection with a channel of this label, and send its offer by signaling to a client.
    /// The offer goes to [`BridgedRoom::described`] too.
    Call {
        /// The channel.
        channel: MeshChannel,
        /// Label of the channel.
        label: String,
        /// Group of the client.
        group: MeshGroup,
        /// Alias of the client.
        target: u32,
    },
    /// Create a peer connection with a channel of this label, and return its offer to
    /// [`BridgedRoom::described`].
    Offer {
        /// The channel.
        channel: MeshChannel,
        /// Label of the channel.
        label: String,
    },
    /// Create a peer connection for an offer, and return its answer to [`BridgedRoom::described`].
    Answer {
        /// The channel.
        channel: MeshChannel,
        /// The session description.
        offer: String,
    },
    /// Give the answer to a peer connection.
    Accept {
        /// The channel.
        channel: MeshChannel,
        /// The session description.
        answer: String,
    },
    /// Send a frame.
    Send {
        /// The channel.
        channel: MeshChannel,
        /// The frame.
        frame: ChannelFrame,
        /// True if what waits for the channel has to let it pass.
        is_urgent: bool,
    },
    /// Close a channel and its peer connection, once what was sent before is delivered.
    Close {
        /// The channel.
        channel: MeshChannel,
    },
    /// Have the gateway send joiners that find no member of this group to the bridge, or no longer.
    Entry {
        /// The group.
        group: MeshGroup,
        /// True to open it.
        is_open: bool,
    },
}

/// Counts of a bridged room since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BridgeCounts {
    /// Messages carried, by their last chunk.
    pub(crate) messages: u64,
    /// Bytes of these messages.
    pub(crate) bytes: u64,
    /// Messages dropped, because they are too long or their chunks are not in order.
    pub(crate) dropped: u64,
    /// Pairs cut, because too many bytes waited until both were connected.
    pub(crate) cut: u64,
    /// Parts of messages that waited, because of the rates.
    pub(crate) delayed: u64,
    /// Pairs cut, because too many bytes waited because of the rates.
    pub(crate) too_fast: u64,
    /// Clients that were not bridged, because there were too many.
    pub(crate) unbridged: u64,
}

/// Most ids of stand-ins that left and that clients may still mention.
const MAX_FORMER_IDS: usize = 64;

/// A bridged room.
#[derive(Debug)]
pub(crate) struct BridgedRoom {
    limits: BridgedRoomLimits,
    rng: fastrand::Rng,
    presence: Presence,
    peers: Peers,
    /// Peers that leave once no client waits for them, and the time at which each leaves at the latest.
    departing: BTreeMap<u32, Instant>,
    /// The channels over which stand-ins called clients, and the aliases of these.
    calls: BTreeMap<u32, (MeshChannel, u32)>,
    pipes: Pipes,
    /// Messages for stand-ins by group and purpose, until one has joined.
    early: BTreeMap<(MeshGroup, StandInRole), EarlyMessages>,
    rates: Rates,
    former_ids: BTreeMap<MeshGroup, VecDeque<u32>>,
    counts: BridgeCounts,
    actions: Vec<BridgeAction>,
}

impl BridgedRoom {
    /// Creates a room without anyone. The seed is for ids.
    pub(crate) fn new(limits: BridgedRoomLimits, seed: u64) -> Self {
        BridgedRoom {
            limits,
            rng: fastrand::Rng::with_seed(seed),
            presence: Presence::new(limits.presence),
            peers: Peers::default(),
            departing: BTreeMap::new(),
            calls: BTreeMap::new(),
            pipes: Pipes::default(),
            early: BTreeMap::new(),
            rates: Rates::default(),
            former_ids: BTreeMap::new(),
            counts: BridgeCounts::default(),
            actions: Vec::new(),
        }
    }

    /// Returns what is to be done, in order.
    pub(crate) fn take_actions(&mut self) -> Vec<BridgeAction> {
        std::mem::take(&mut self.actions)
    }

    /// Returns what happened so far.
    pub(crate) fn counts(&self) -> BridgeCounts {
        BridgeCounts { unbridged: self.presence.refused(), ..self.counts }
    }

    /// Returns the number of channels that are open or will open.
    pub(crate) fn stand_ins(&self) -> usize {
        self.peers.len()
    }

    /// A client that can be called by signaling is in the room.
    pub(crate) fn arrived(&mut self, group: MeshGroup, target: u32, now: Instant) {
        self.presence.arrived(group, target, now);
        self.settle(now);
    }

    /// A client can be called by signaling no more.
    pub(crate) fn departed(&mut self, group: MeshGroup, target: u32, now: Instant) {
        self.presence.departed(group, target, now);
        self.settle(now);
    }

    /// A client joins through the entry with an offer. Returns its channel, whose answer goes to it by
    /// signaling; `None` refuses it.
    pub(crate) fn called(&mut self, group: MeshGroup, offer: String, now: Instant) -> Option<MeshChannel> {
        let stand_in = self.presence.called(group, now)?;
        self.settle(now);
        let (network, id) = (self.network(group), self.any_id(group));
        let peer = self.peers.get_mut(stand_in)?;
        peer.open_entry(network);
        let channel = peer.called(offer, id, now);
        self.settle(now);
        channel
    }

    /// Returns the channel over which a client asked for another.
    pub(crate) fn asked_over(&self, channel: MeshChannel) -> Option<MeshChannel> {
        self.peers.get(channel.peer)?.asked_over(channel)
    }

    /// Takes the local session description of a channel.
    pub(crate) fn described(&mut self, channel: MeshChannel, sdp: &str, now: Instant) {
        self.with_peer(channel.peer, now, |peer| peer.described(channel, sdp));
    }

    /// Takes the answer of a client that was called.
    pub(crate) fn answered(&mut self, channel: MeshChannel, answer: String, now: Instant) {
        self.with_peer(channel.peer, now, |peer| peer.answered(channel, answer));
    }

    /// A channel is open.
    pub(crate) fn opened(&mut self, channel: MeshChannel, now: Instant) {
        self.with_peer(channel.peer, now, |peer| peer.opened(channel, now));
    }

    /// Takes a frame from a channel.
    pub(crate) fn received(&mut self, channel: MeshChannel, frame: ChannelFrame, now: Instant) {
        self.with_peer(channel.peer, now, |peer| peer.received(channel, frame, now));
    }

    /// A channel is closed, its peer connection is lost, or a call is refused.
    pub(crate) fn closed(&mut self, channel: MeshChannel, now: Instant) {
        self.with_peer(channel.peer, now, |peer| peer.closed(channel));
    }

    /// Returns the time of the next [`tick`](Self::tick), if there is one.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let (peers, presence) = (self.peers.deadline(), self.presence.deadline());
        [peers, presence, self.rates.deadline(), self.departures_deadline()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.peers.tick(now);
        self.presence.tick(now);
        self.settle(now);
        self.forget_relayed(now);
    }

    /// Has every stand-in leave.
    pub(crate) fn end(&mut self, now: Instant) {
        for number in self.peers.numbers() {
            self.remove_peer(number, now);
        }
    }

    fn with_peer(&mut self, number: u32, now: Instant, input: impl FnOnce(&mut MeshPeer)) {
        let Some(peer) = self.peers.get_mut(number) else { return };
        let (group, before) = (peer.group(), peer.id());
        input(peer);
        let id = peer.id();
        if id != before {
            self.announce_to_siblings(number, group, id, false);
        }
        self.settle(now);
    }
}
