//! The channels of a peer, from the session descriptions to their end.

use std::time::Instant;

use bytes::Bytes;

use super::{ChannelFrame, DescriptionKind, MAX_PEER_CHANNELS, MeshChannel, MeshPeer, PeerAction, Progress};
use crate::protocol::mesh::user_message::MessageChunk;

/// Most channels that are not open yet and were asked for over one channel, of a peer that is a member. A
/// client can invent the peers for which it asks, so more are ignored.
const MAX_OPENING: usize = 16;

/// A channel of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerChannel {
    pub(super) channel: MeshChannel,
    /// The client at the other end, once known.
    pub(super) member: Option<u32>,
    /// Id that the client gets when it is let in.
    pub(super) admitted_as: Option<u32>,
    /// The channel over which session descriptions go; `None` is signaling.
    pub(super) via: Option<MeshChannel>,
    pub(super) kind: DescriptionKind,
    pub(super) is_answered: bool,
    pub(super) is_open: bool,
    /// The channel is open, and nothing was received yet.
    pub(super) is_silent: bool,
    /// The client at the other end is a member.
    pub(super) is_member: bool,
    pub(super) since: Instant,
    pub(super) last_frame: Instant,
}

impl MeshPeer {
    pub(super) fn channel_mut(&mut self, channel: MeshChannel) -> Option<&mut PeerChannel> {
        self.channels.iter_mut().find(|known| known.channel == channel)
    }

    pub(super) fn channel(&self, channel: MeshChannel) -> Option<&PeerChannel> {
        self.channels.iter().find(|known| known.channel == channel)
    }

    /// Returns the channel over which a client asked for another; `None` for one that signaling opened.
    pub(in crate::protocol::mesh) fn asked_over(&self, channel: MeshChannel) -> Option<MeshChannel> {
        self.channel(channel)?.via
    }

    /// Returns the channel to a client.
    pub(super) fn channel_to(&self, member: u32) -> Option<MeshChannel> {
        self.channels.iter().find(|known| known.member == Some(member)).map(|known| known.channel)
    }

    /// Returns the open channels, from the oldest, with the ids at their other ends.
    pub(super) fn open_channels(&self) -> Vec<(MeshChannel, Option<u32>)> {
        self.channels
            .iter()
            .filter(|known| known.is_open)
            .map(|known| (known.channel, known.member))
            .collect()
    }

    /// Returns true if there is a channel to a client, or will be.
    pub(in crate::protocol::mesh) fn has_channel_to(&self, member: u32) -> bool {
        self.channel_to(member).is_some()
    }

    pub(super) fn push_frame(&mut self, channel: MeshChannel, frame: Bytes) {
        let frame = ChannelFrame::Binary(frame);
        self.actions.push(PeerAction::Send { channel, frame, is_urgent: false });
    }

    /// Creates a channel; `None` if there are too many.
    pub(super) fn add_channel(
        &mut self,
        member: Option<u32>,
        via: Option<MeshChannel>,
        kind: DescriptionKind,
        now: Instant,
    ) -> Option<MeshChannel> {
        let opening =
            self.channels.iter().filter(|known| via.is_some() && known.via == via && !known.is_open);
        let is_over = self.progress == Progress::Member && opening.count() >= MAX_OPENING;
        let has_left = member.is_some_and(|member| self.departed.contains(&member));
        if is_over || has_left || self.channels.len() >= MAX_PEER_CHANNELS {
            return None;
        }
        let channel = MeshChannel { peer: self.number, number: self.next_channel };
        self.next_channel = self.next_channel.wrapping_add(1);
        self.channels.push(PeerChannel {
            channel,
            member,
            admitted_as: None,
            via,
            kind,
            is_answered: false,
            is_open: false,
            is_silent: false,
            is_member: false,
            since: now,
            last_frame: now,
        });
        Some(channel)
    }

    /// Returns true if there is no channel to `member` that is open, or may still open. One that did not
    /// open is replaced.
    fn needs_channel(&mut self, member: u32) -> bool {
        match self.channel_to(member) {
            None => true,
            Some(channel)
                if self.channel(channel).is_some_and(|known| !known.is_open && known.is_answered) =>
            {
                self.forget(channel);
                self.actions.push(PeerAction::Close { channel });
                true
            }
            Some(_) => false,
        }
    }

    /// Offers a channel to `member`, who asked for it over `via`.
    pub(super) fn offer_to(&mut self, member: u32, via: MeshChannel, now: Instant) {
        if !self.needs_channel(member) {
            return;
        }
        let label = self.group.protocol().label(self, false);
        if let Some(channel) = self.add_channel(Some(member), Some(via), DescriptionKind::Offer, now) {
            self.actions.push(PeerAction::Offer { channel, label });
        }
    }

    /// Takes what `member` sent over `via` to connect: an offer, an answer, or neither, which is a candidate.
    pub(super) fn take_description(
        &mut self,
        member: u32,
        via: MeshChannel,
        offer: Option<String>,
        answer: Option<String>,
        now: Instant,
    ) {
        if let Some(offer) = offer {
            self.answer_to(member, via, offer, now);
        }
        if let Some(answer) = answer {
            self.answered_by(member, answer);
        }
    }

    /// Answers the offer of `member`, which was received over `via`.
    fn answer_to(&mut self, member: u32, via: MeshChannel, offer: String, now: Instant) {
        if !self.needs_channel(member) {
            return;
        }
        if let Some(channel) = self.add_channel(Some(member), Some(via), DescriptionKind::Answer, now) {
            self.actions.push(PeerAction::Answer { channel, offer });
        }
    }

    /// Takes the answer of `member` to an offer.
    fn answered_by(&mut self, member: u32, answer: String) {
        let offered = self.channels.iter_mut().find(|known| {
            known.member == Some(member) && known.kind == DescriptionKind::Offer && !known.is_answered
        });
        if let Some(known) = offered {
            known.is_answered = true;
            self.actions.push(PeerAction::Accept { channel: known.channel, answer });
        }
    }

    /// Takes the local session description of a channel. One for signaling is the caller's to send.
    pub fn described(&mut self, channel: MeshChannel, sdp: &str) {
        let Some(known) = self.channel_mut(channel) else { return };
        if known.kind == DescriptionKind::Answer {
            known.is_answered = true;
        }
        let kind = known.kind;
        if let (Some(via), Some(member)) = (known.via, known.member) {
            self.group.protocol().describe(self, via, member, kind, sdp);
        }
    }

    /// A channel is open.
    pub fn opened(&mut self, channel: MeshChannel, now: Instant) {
        if self.progress == Progress::Ended {
            return;
        }
        let Some(known) = self.channel_mut(channel).filter(|known| !known.is_open) else { return };
        known.is_open = true;
        known.is_silent = true;
        known.last_frame = now;
        if self.group.facts().heartbeat.is_some() {
            self.next_heartbeat.get_or_insert(now);
        }
        self.group.protocol().opened(self, channel);
    }

    /// A channel is closed, or its peer connection is lost.
    pub fn closed(&mut self, channel: MeshChannel) {
        let Some(known) = self.forget(channel) else { return };
        // The one that signaling opened is the way in.
        if known.via.is_none() && matches!(self.progress, Progress::Joining { .. }) {
            return self.fail();
        }
        if let Some(member) = known.member {
            self.connected_or_given_up(member);
        }
    }

    /// Closes the channel to a client.
    pub fn disconnect(&mut self, member: u32) {
        if let Some(channel) = self.channel_to(member) {
            self.close(channel);
        }
    }

    /// Closes a channel from this side.
    pub(super) fn close(&mut self, channel: MeshChannel) {
        if self.channel(channel).is_some() {
            self.actions.push(PeerAction::Close { channel });
            self.closed(channel);
        }
    }

    /// Removes a channel, and reports that its member left.
    pub(super) fn forget(&mut self, channel: MeshChannel) -> Option<PeerChannel> {
        let at = self.channels.iter().position(|known| known.channel == channel)?;
        let known = self.channels.remove(at);
        if let (true, Some(member)) = (known.is_member, known.member) {
            self.actions.push(PeerAction::MemberLeft { member });
        }
        Some(known)
    }

    /// The client at the other end of a channel is a member.
    pub(super) fn link(&mut self, channel: MeshChannel) {
        let is_member = self.progress == Progress::Member;
        let Some(known) = self.channel_mut(channel).filter(|known| is_member && !known.is_member) else {
            return;
        };
        let Some(member) = known.member else { return };
        known.is_member = true;
        self.expected.retain(|joiner| joiner.id != member);
        self.actions.push(PeerAction::MemberJoined { member });
    }

    /// Returns true if the client at the other end of a channel is a member.
    pub(super) fn is_linked(&self, channel: MeshChannel) -> bool {
        self.channel(channel).is_some_and(|known| known.is_member)
    }

    /// Reports a part of a user message whose frame names `sender`. In groups that relay messages it may be
    /// one that connects to this peer, and has sent the message through the client at the other end.
    pub(super) fn report_from(&mut self, sender: u32, via: MeshChannel, chunk: MessageChunk, now: Instant) {
        let is_direct =
            self.channel(via).is_some_and(|known| known.member.is_none_or(|member| member == sender));
        if is_direct || !self.group.facts().relays_messages {
            self.report(via, chunk);
        } else if self.is_near(sender, now) {
            self.actions.push(PeerAction::Received { member: sender, chunk });
        }
    }

    /// Reports a part of a user message. The sender is the client at the other end, whatever the frame
    /// names.
    pub(super) fn report(&mut self, via: MeshChannel, chunk: MessageChunk) {
        let Some(known) = self.channel(via) else { return };
        match known.member {
            Some(member) => self.actions.push(PeerAction::Received { member, chunk }),
            None if self.awaits_entry(via) => self.actions.push(PeerAction::ReceivedEarly { chunk }),
            None => {}
        }
    }

    /// Sends a frame on to the client or peer to which it is addressed.
    pub(super) fn forward(&mut self, via: MeshChannel, recipient: u32, frame: Bytes) {
        match self.channel_to(recipient) {
            Some(channel) if channel != via => self.push_frame(channel, frame),
            Some(_) => {}
            None if self.siblings.contains_key(&recipient) => {
                self.actions.push(PeerAction::Forward { recipient, channel: via, frame });
            }
            None => {}
        }
    }
}
