//! sigver 19 and newer: the client sends first, with its id and the ids it is connected to, and receives
//! whether it is connected. One codec for all, which differ in the layout of a content.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::content_fast::DataContent;
use super::layout::detect_v2_layout;
use super::wire::{self, V2Message};
use crate::protocol::dialect::keepalive::{KeepaliveDue, KeepaliveTimer};
use crate::protocol::dialect::{
    ContentLayout, Dialect, Family, OutputSink, Release, ReleaseSet, close_frame_for,
};
use crate::protocol::frame::{Message, Outgoing};
use crate::protocol::model::{
    Command, Connect, Event, LinkId, LinkMessage, NetId, Payload, Reason, Recipient, SenderTag, Side,
};

/// Codec of one connection.
#[derive(Debug)]
pub(in crate::protocol::dialect) struct V2 {
    key: Arc<str>,
    favored: bool,
    releases: ReleaseSet,
    /// Release whose variant is used: the only one, or the most likely one.
    most_likely: Release,
    /// Layout that all releases share.
    layout: Option<ContentLayout>,
    most_likely_layout: ContentLayout,
    keepalive: KeepaliveTimer,
}

impl V2 {
    /// Creates a codec. Heartbeats count from `opened`, connected or not (measured).
    pub(in crate::protocol::dialect) fn new(
        key: &str,
        favored: bool,
        releases: ReleaseSet,
        most_likely: Release,
        opened: Instant,
    ) -> Self {
        let mut keepalive = KeepaliveTimer::new(most_likely.keepalive());
        keepalive.start(opened);
        let most_likely_layout = ContentLayout::V20;
        let (key, layout) = (key.into(), None);
        let mut codec = V2 { key, favored, releases, most_likely, layout, most_likely_layout, keepalive };
        codec.adopt(releases, most_likely);
        codec
    }

    /// Restricts the possible releases.
    pub(in crate::protocol::dialect) fn adopt(&mut self, releases: ReleaseSet, most_likely: Release) {
        self.releases = releases;
        self.most_likely = most_likely;
        self.layout = releases.content_layout();
        self.most_likely_layout = most_likely.dialect().content_layout().unwrap_or(ContentLayout::V20);
    }

    pub(in crate::protocol::dialect) fn decode(&mut self, message: Message, out: &mut dyn OutputSink) {
        let most_likely = self.most_likely;
        let refuse = |reason, out: &mut dyn OutputSink| out.close(close_frame_for(most_likely, &reason));
        let Message::Binary(bytes) = message else {
            return refuse(Reason::WrongFrameKind, out);
        };
        let length = bytes.len();
        let layout = self.layout.or_else(|| detect_v2_layout(&bytes)).unwrap_or(self.most_likely_layout);
        match wire::decode_v2(bytes, layout) {
            Err(text) => refuse(Reason::DecodeError(text), out),
            Ok(None) => refuse(Reason::UnknownMessage, out),
            Ok(Some(V2Message::Connected)) => {}
            Ok(Some(V2Message::Heartbeat)) => self.keepalive.on_reply(),
            Ok(Some(V2Message::Content(DataContent { recipient, last, data }))) => out.ask(Command::Relay {
                to: Recipient::JoinerOrMember(LinkId(recipient)),
                message: LinkMessage::Data { payload: Payload::from_frame(data, length), last },
                sender: self.sender_tag(layout),
            }),
            Ok(Some(V2Message::Connect { id, members })) => {
                let facts = self.most_likely.v2();
                let connect = Connect {
                    net_id: NetId(id),
                    connected_to: members.into_iter().map(NetId).collect(),
                    preferred: self.favored && facts.is_some_and(|facts| facts.prefers_favored),
                    admit_before_unlink: facts.is_some_and(|facts| facts.admit_before_unlink),
                };
                out.enter(Arc::clone(&self.key).into(), Command::Connect(connect));
            }
        }
    }

    /// Returns the tag of a content of this layout.
    fn sender_tag(&self, layout: ContentLayout) -> SenderTag {
        let other = || self.releases.of_content_layout(layout).iter().next();
        let sender = if layout == self.most_likely_layout { None } else { other() };
        sender.unwrap_or(self.most_likely).dialect().tag()
    }

    pub(in crate::protocol::dialect) fn encode(&mut self, event: Event, out: &mut dyn OutputSink) {
        match event {
            Event::Admitted { .. } => out.binary(wire::CONNECTED),
            Event::LinkedToMember { .. } => out.binary(wire::NOT_CONNECTED),
            Event::BecameMember { .. } | Event::LinkedToJoiner { .. } | Event::Undeliverable { .. } => {}
            Event::Refused(reason) | Event::Evicted(reason) => {
                out.close(close_frame_for(self.most_likely, &reason));
            }
            Event::Relayed { link, side, message, sender } => match message {
                LinkMessage::Data { payload, .. } => {
                    out.send(self.content(link, side, Some(payload.into_bytes()), sender));
                }
                // These dialects never forward that a peer has no more to send (measured).
                LinkMessage::End | LinkMessage::Empty => {}
                LinkMessage::Error { .. } => out.send(self.content(link, side, None, sender)),
            },
            Event::LinkEnded { link, side, .. } => {
                out.send(self.content(link, side, None, SenderTag::default()));
            }
        }
    }

    fn content(&self, link: LinkId, side: Side, data: Option<Bytes>, sender: SenderTag) -> Outgoing {
        if self.layout.is_none()
            && side == Side::Member
            && let Some(frame) = data.as_ref().and_then(|data| wire::encode_for_any(link.0, data))
        {
            return Message::Binary(frame).into();
        }
        // The sender's layout, if it is one of this family: rooms are rarely mixed.
        let of_sender = || {
            let sender = Dialect::from_tag(sender)?;
            sender.content_layout().filter(|_| sender.family() == Family::ProtobufV2)
        };
        let layout = self.layout.or_else(of_sender).unwrap_or(self.most_likely_layout);
        wire::encode_content(link.0, side, data, layout)
    }

    pub(in crate::protocol::dialect) fn deadline(&self) -> Option<Instant> {
        self.keepalive.deadline()
    }

    pub(in crate::protocol::dialect) fn poll(&mut self, now: Instant, out: &mut dyn OutputSink) {
        match self.keepalive.poll(now) {
            None => {}
            Some(KeepaliveDue::SendPing) => out.binary(wire::V2_HEARTBEAT),
            Some(KeepaliveDue::Close | KeepaliveDue::SendPingThenClose) => {
                out.close(close_frame_for(self.most_likely, &Reason::Unresponsive));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Part of the memory of every idle member.
    #[test]
    fn codec_is_small() {
        assert_eq!(size_of::<V2>(), 48);
    }
}
