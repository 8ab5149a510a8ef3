//! A peer of one group, as a state machine: frames and times in, actions out. It joins through a member, is
//! a member, and in the two oldest groups it also lets others in. It never waits, reads no clock, and has a
//! bound on everything it keeps.

mod channels;
mod entry;
mod json_era;
mod netflux0;
mod netflux1;
mod netflux2;
mod netflux3;
mod netflux4;
mod protobuf_era;
mod requests;
#[cfg(test)]
mod tests;
mod timers;

pub(super) use requests::JOINER_TIMEOUT;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::group::MeshGroup;
use super::user_message::{ChunkedMessage, MessageChunk};
use channels::PeerChannel;
use requests::{ChannelRequest, ExpectedJoiner};

/// Most channels of one peer. Requests for more are ignored.
pub const MAX_PEER_CHANNELS: usize = 64;
/// Most ids that are read from one list of members.
const MAX_LISTED: usize = 256;

/// A data channel, and the peer connection it is on. Unique in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshChannel {
    /// Number of the [`MeshPeer`] that has it.
    pub peer: u32,
    /// Number of the channel, from 0.
    pub number: u32,
}

/// A message on a data channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelFrame {
    /// A text message.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
}

/// A member of the group, as another peer of the bridge can reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// The member.
    pub member: u32,
    /// A channel to the member.
    pub channel: MeshChannel,
    /// Id of the peer that has this channel.
    pub owner: u32,
}

/// Something to do for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAction {
    /// Create a peer connection with a channel of this label, and return its offer to
    /// [`MeshPeer::described`].
    Offer {
        /// The channel.
        channel: MeshChannel,
        /// Label of the channel.
        label: String,
    },
    /// Create a peer connection for an offer, and return its answer to [`MeshPeer::described`].
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
        /// The channel, also of another peer of the bridge.
        channel: MeshChannel,
        /// The frame.
        frame: ChannelFrame,
        /// True for a heartbeat: what waits for the channel has to let it pass.
        is_urgent: bool,
    },
    /// Close a channel and its peer connection. The peer has forgotten it.
    Close {
        /// The channel.
        channel: MeshChannel,
    },
    /// Give a frame to the peer of the bridge that has this id, by [`MeshPeer::forwarded`].
    Forward {
        /// The id.
        recipient: u32,
        /// The channel on which the frame was received.
        channel: MeshChannel,
        /// The frame.
        frame: Bytes,
    },
    /// The peer is a member of its group.
    Joined,
    /// The peer could not become a member. Its channels are closed.
    Failed,
    /// A client is a member, as this peer sees it.
    MemberJoined {
        /// The client's id.
        member: u32,
    },
    /// A client that was a member has left or is lost.
    MemberLeft {
        /// The client's id.
        member: u32,
    },
    /// A client announced that it leaves. Some versions still open channels after that.
    Departed {
        /// The client's id.
        member: u32,
    },
    /// The client through which this peer joins sent a user message, and has not presented itself.
    ReceivedEarly {
        /// Part of the message.
        chunk: MessageChunk,
    },
    /// A client sent a user message to this peer.
    Received {
        /// The client's id.
        member: u32,
        /// Part of the message.
        chunk: MessageChunk,
    },
}

/// Progress of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The peer does nothing yet.
    Idle,
    /// The peer connects to the members.
    Joining { since: Instant },
    /// The peer is a member.
    Member,
    /// The peer has left or failed.
    Ended,
}

/// The first channel of a peer that joins through a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    channel: MeshChannel,
    member: u32,
    since: Instant,
}

/// A peer of one group.
#[derive(Debug)]
pub struct MeshPeer {
    group: MeshGroup,
    number: u32,
    id: u32,
    /// Id of the network ("web channel") that the members share.
    network: u32,
    progress: Progress,
    /// The peer lets clients in that join through signaling.
    keeps_entry: bool,
    entry: Option<Entry>,
    /// The peer of the bridge through which it was announced, if it has no entry.
    introducer: u32,
    /// False for a peer that opens channels and never announces that it has joined: clients do not count it
    /// as a member, and it introduces others to them.
    is_announced: bool,
    /// Clients to which it was introduced when it was a member.
    introduced: Vec<u32>,
    /// Clients that were asked for channels.
    requests: Vec<ChannelRequest>,
    /// Clients that join.
    expected: Vec<ExpectedJoiner>,
    /// Clients that ask through a member to be connected.
    distant: Vec<ExpectedJoiner>,
    /// Members that it still has to connect to before it is one.
    awaited: Vec<u32>,
    /// Clients that announced that they leave, to this peer or to another of the bridge.
    departed: VecDeque<u32>,
    /// Members that were announced to it while it joined.
    listed: Vec<u32>,
    channels: Vec<PeerChannel>,
    next_channel: u32,
    /// Other peers of the bridge in this group, and if they are members.
    siblings: BTreeMap<u32, bool>,
    next_heartbeat: Option<Instant>,
    actions: Vec<PeerAction>,
}

/// The two kinds of session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DescriptionKind {
    Offer,
    Answer,
}

/// The messages of one group.
trait GroupProtocol: Sync {
    /// Returns the label of a channel that this peer creates.
    fn label(&self, peer: &MeshPeer, by_signaling: bool) -> String;
    /// A channel is open. One inside the mesh makes its member a neighbor, if the group has no
    /// handshake on it.
    fn opened(&self, peer: &mut MeshPeer, channel: MeshChannel) {
        let Some(member) =
            peer.channel(channel).filter(|known| known.via.is_some()).and_then(|known| known.member)
        else {
            return;
        };
        peer.link(channel);
        peer.connected_or_given_up(member);
    }
    /// A frame was received. `via` is a channel of another peer if that peer forwarded it. `None` is a frame
    /// that is not understood, or of no consequence.
    fn received(
        &self,
        peer: &mut MeshPeer,
        via: MeshChannel,
        frame: ChannelFrame,
        now: Instant,
    ) -> Option<()>;
    /// Sends a session description to `member`.
    fn describe(&self, peer: &mut MeshPeer, via: MeshChannel, member: u32, kind: DescriptionKind, sdp: &str);
    /// All members that were awaited are connected.
    fn completed(&self, peer: &mut MeshPeer);
    /// Returns a heartbeat to `member`, in the groups that have them.
    fn heartbeat(&self, _peer: &MeshPeer, _member: u32) -> Option<Bytes> {
        None
    }
    /// Returns a user frame.
    fn user_frame(&self, peer: &MeshPeer, recipient: u32, message: &ChunkedMessage) -> Bytes;
    /// Announces this peer to a member over a channel of another peer.
    fn announce_joiner(&self, _peer: &mut MeshPeer, _neighbor: &Neighbor) {}
    /// Asks a client for a channel, in the groups that have a timeout for it.
    fn request_channel(&self, _peer: &mut MeshPeer, _request: &ChannelRequest) {}
    /// A client to which this peer, a member, offered a channel has sent nothing over it for a second.
    fn prompt(&self, _peer: &mut MeshPeer, _channel: MeshChannel, _member: u32) {}
    /// Sends what announces that this peer is a member, in the groups that have peers without it.
    fn announce(&self, _peer: &mut MeshPeer) {}
    /// Sends what announces that this peer leaves, before its channels are closed.
    fn leave(&self, _peer: &mut MeshPeer) {}
}

impl MeshGroup {
    fn protocol(self) -> &'static dyn GroupProtocol {
        match self {
            MeshGroup::Netflux0 => &netflux0::Netflux0Protocol,
            MeshGroup::Netflux1 => &netflux1::Netflux1Protocol,
            MeshGroup::Netflux2 => &netflux2::Netflux2Protocol,
            MeshGroup::Netflux3 => &netflux3::Netflux3Protocol,
            MeshGroup::Netflux4 => &netflux4::Netflux4Protocol,
        }
    }
}

impl MeshPeer {
    /// Creates a peer that is nowhere yet. `number` is unique in the room; `id` is the id that it has, or
    /// until a member gives it one.
    pub fn new(group: MeshGroup, number: u32, id: u32) -> Self {
        MeshPeer {
            group,
            number,
            id,
            network: 0,
            progress: Progress::Idle,
            keeps_entry: false,
            entry: None,
            introducer: 0,
            is_announced: true,
            introduced: Vec::new(),
            requests: Vec::new(),
            expected: Vec::new(),
            distant: Vec::new(),
            awaited: Vec::new(),
            departed: VecDeque::new(),
            listed: Vec::new(),
            channels: Vec::new(),
            next_channel: 0,
            siblings: BTreeMap::new(),
            next_heartbeat: None,
            actions: Vec::new(),
        }
    }

    /// Returns the group.
    pub fn group(&self) -> MeshGroup {
        self.group
    }

    /// Returns the id, which is final once the peer is a member.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns true if the peer is a member.
    pub fn is_member(&self) -> bool {
        self.progress == Progress::Member
    }

    /// Returns the clients that are members and connected to this peer, with the channels.
    pub fn members(&self) -> impl Iterator<Item = (u32, MeshChannel)> + '_ {
        self.channels
            .iter()
            .filter(|channel| channel.is_member && channel.is_open)
            .filter_map(|channel| Some((channel.member?, channel.channel)))
    }

    /// Returns what is to be done, in order.
    pub fn take_actions(&mut self) -> Vec<PeerAction> {
        std::mem::take(&mut self.actions)
    }

    /// Another peer of the bridge is in this group, and may be a member of it.
    pub fn add_sibling(&mut self, id: u32, is_member: bool) {
        if id != self.id {
            self.siblings.insert(id, is_member);
        }
    }

    /// A peer of the bridge is in this group no more, and members have forgotten it.
    pub fn remove_sibling(&mut self, id: u32) {
        self.siblings.remove(&id);
    }

    /// A client announced to a peer of the bridge that it leaves: it gets no channel any more. One that is a
    /// member here announces it over its own channel: another client can have a channel in its name.
    pub fn departed(&mut self, member: u32) {
        if self.members().any(|(linked, _)| linked == member) {
            return;
        }
        if !self.departed.contains(&member) {
            if self.departed.len() >= MAX_LISTED {
                self.departed.pop_front();
            }
            self.departed.push_back(member);
        }
        self.disconnect(member);
        self.connected_or_given_up(member);
    }

    /// Takes a frame from a channel of this peer.
    pub fn received(&mut self, channel: MeshChannel, frame: ChannelFrame, now: Instant) {
        if self.progress == Progress::Ended {
            return;
        }
        if let Some(known) = self.channel_mut(channel) {
            known.last_frame = now;
            known.is_silent = false;
            self.group.protocol().received(self, channel, frame, now);
        }
    }

    /// Takes a frame for this peer from a channel of another.
    pub fn forwarded(&mut self, channel: MeshChannel, frame: Bytes, now: Instant) {
        if self.progress != Progress::Ended {
            self.group.protocol().received(self, channel, ChannelFrame::Binary(frame), now);
        }
    }

    /// Sends a message or part of one to a member; false if that is none.
    pub fn send(&mut self, member: u32, is_broadcast: bool, message: &ChunkedMessage) -> bool {
        let Some((_, channel)) = self.members().find(|(id, _)| *id == member) else {
            return false;
        };
        let recipient = if is_broadcast { 0 } else { member };
        let frame = self.group.protocol().user_frame(self, recipient, message);
        self.push_frame(channel, frame);
        true
    }

    /// Leaves the group: announces it and closes all channels.
    pub fn leave(&mut self) {
        if self.progress == Progress::Member {
            self.group.protocol().leave(self);
        }
        self.end();
    }

    /// Gives up the join.
    pub(in crate::protocol::mesh) fn fail(&mut self) {
        if self.progress != Progress::Ended {
            self.end();
            self.actions.push(PeerAction::Failed);
        }
    }

    /// Closes all channels. A client that knows this peer as a joiner may wait for it to become a member for
    /// ever: the peer becomes one first, for those that can be reached.
    fn end(&mut self) {
        let is_joining = matches!(self.progress, Progress::Joining { .. });
        let is_known = self.entry.is_some() || self.introducer != 0;
        if is_joining && is_known && self.is_announced && self.group.facts().waits_for_lost_joiners {
            self.group.protocol().announce(self);
        }
        self.progress = Progress::Ended;
        self.next_heartbeat = None;
        self.stop_requests();
        for channel in std::mem::take(&mut self.channels) {
            self.actions.push(PeerAction::Close { channel: channel.channel });
        }
    }
}
