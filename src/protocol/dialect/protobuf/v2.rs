//! sigver 19 and 20: the client speaks first, says who it is and whom it knows, and is told whether it is
//! connected. One codec for both, which differ in the layout of a content.

use std::time::Instant;

use bytes::Bytes;

use super::wire::{self, ContentLayout, V2Message};
use crate::protocol::dialect::OutputSink;
use crate::protocol::dialect::keepalive::{Keepalive, KeepaliveDue, KeepaliveTimer};
use crate::protocol::dialect::{Dialect, Release, ReleaseSet, close};
use crate::protocol::frame::{Message, Outgoing};
use crate::protocol::model::{
    Command, Connect, Event, LinkId, LinkMessage, NetId, Payload, Reason, Recipient, RoomKey, SenderTag, Side,
};

/// The codec of one connection.
#[derive(Debug)]
pub(in crate::protocol::dialect) struct V2 {
    key: RoomKey,
    favored: bool,
    /// The release whose inner variant is spoken: the only one, or the likeliest.
    likeliest: Release,
    /// `None` while it may be either.
    layout: Option<ContentLayout>,
    liveness: KeepaliveTimer,
}

impl V2 {
    /// Heartbeats count from `opened`, connected or not (measured).
    pub(in crate::protocol::dialect) fn new(
        key: RoomKey,
        favored: bool,
        releases: ReleaseSet,
        likeliest: Release,
        opened: Instant,
    ) -> Self {
        let mut liveness = KeepaliveTimer::new(Keepalive::Heartbeat { third: false, strict: true });
        liveness.start(opened);
        let mut current = V2 { key, favored, likeliest, layout: None, liveness };
        current.adopt(releases, likeliest);
        current
    }

    /// The set of releases it may be has become smaller.
    pub(in crate::protocol::dialect) fn adopt(&mut self, releases: ReleaseSet, likeliest: Release) {
        self.likeliest = likeliest;
        self.layout = releases.layout();
    }

    pub(in crate::protocol::dialect) fn decode(&mut self, message: Message, out: &mut dyn OutputSink) {
        let likeliest = self.likeliest;
        let refuse = |reason, out: &mut dyn OutputSink| out.close(close(likeliest, &reason));
        let Message::Binary(bytes) = message else {
            return refuse(Reason::WrongFrameKind, out);
        };
        let length = bytes.len();
        let layout = self.layout.or_else(|| wire::detect_v2_layout(&bytes)).unwrap_or(ContentLayout::V20);
        match wire::decode_current(bytes, layout) {
            Err(text) => refuse(Reason::DecodeError(text), out),
            Ok(None) => refuse(Reason::UnknownMessage, out),
            Ok(Some(V2Message::Connected)) => {}
            Ok(Some(V2Message::Heartbeat)) => self.liveness.answered(),
            Ok(Some(V2Message::Content { recipient, last, data })) => out.ask(Command::Relay {
                to: Recipient::JoinerOrMember(LinkId(recipient)),
                message: LinkMessage::Data { payload: Payload::from_frame(data, length), last },
                sender: match layout {
                    ContentLayout::V19 => Dialect::Sigver19.tag(),
                    ContentLayout::V15_1 | ContentLayout::V15_0 | ContentLayout::V20 => {
                        Dialect::Sigver20.tag()
                    }
                },
            }),
            Ok(Some(V2Message::Connect { id, members })) => {
                let attach = Connect {
                    net_id: NetId(id),
                    connected_to: members.into_iter().map(NetId).collect(),
                    // 19.0.0 does not know it (measured).
                    preferred: self.favored && self.likeliest != Release::V19_0_0,
                    // The library under 20.1.0 closes later than it answers (measured).
                    admit_before_unlink: self.likeliest == Release::V20_1_0,
                };
                out.enter(self.key.clone(), Command::Connect(attach));
            }
        }
    }

    pub(in crate::protocol::dialect) fn encode(&mut self, event: Event, out: &mut dyn OutputSink) {
        match event {
            Event::Admitted { .. } => out.binary(wire::CONNECTED),
            Event::LinkedToMember { .. } => out.binary(wire::NOT_CONNECTED),
            Event::BecameMember { .. } | Event::LinkedToJoiner { .. } | Event::Undeliverable { .. } => {}
            Event::Refused(reason) | Event::Evicted(reason) => {
                out.close(close(self.likeliest, &reason));
            }
            Event::Relayed { link, side, message, sender } => match message {
                LinkMessage::Data { payload, .. } => {
                    out.send(self.content(link, side, Some(payload.into_bytes()), sender));
                }
                // That a peer has no more to say is never forwarded in these dialects (measured).
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
            && let Some(frame) = data.as_ref().and_then(|data| wire::encode_for_either(link.0, data))
        {
            return Message::Binary(frame).into();
        }
        // The sender's layout, if it is one of this family: rooms are rarely mixed.
        let company = Dialect::from_tag(sender).and_then(Dialect::layout);
        let company = company.filter(|layout| matches!(layout, ContentLayout::V19 | ContentLayout::V20));
        let layout = self.layout.or(company).unwrap_or(ContentLayout::V20);
        wire::encode_current_content(link.0, side == Side::Member, data, layout)
    }

    pub(in crate::protocol::dialect) fn deadline(&self) -> Option<Instant> {
        self.liveness.deadline()
    }

    pub(in crate::protocol::dialect) fn poll(&mut self, now: Instant, out: &mut dyn OutputSink) {
        match self.liveness.poll(now) {
            None => {}
            Some(KeepaliveDue::SendPing) => out.binary(wire::V2_HEARTBEAT),
            Some(KeepaliveDue::Close | KeepaliveDue::SendPingThenClose) => {
                out.close(close(self.likeliest, &Reason::Unresponsive));
            }
        }
    }
}
