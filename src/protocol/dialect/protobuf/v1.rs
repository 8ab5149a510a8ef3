//! sigver 15 to 18: the server sends first, a joiner is linked as it connects, and becomes a member when it
//! has reached the group. One codec for the four dialects and a set of releases: during detection the set may
//! have several, and then the codec sends what suits them all.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::PROBE;
use super::layout::detect_v1_layout;
use super::wire::{self, V1Body, V1Message, encode_v1_content};
use crate::protocol::dialect::keepalive::{Keepalive, KeepaliveDue, KeepaliveTimer};
use crate::protocol::dialect::release::{V1Facts, V1Schema};
use crate::protocol::dialect::{ContentLayout, OutputSink, Release, ReleaseSet, close_frame_for};
use crate::protocol::frame::Message;
use crate::protocol::model::{
    Command, Event, Join, LinkId, LinkMessage, MemberChoice, Payload, Reason, Recipient, RejoinPolicy,
    SenderTag, WhenEmpty,
};

/// Codec of one connection.
#[derive(Debug)]
pub(in crate::protocol::dialect) struct V1 {
    key: Arc<str>,
    capabilities: Capabilities,
    keepalive: KeepaliveTimer,
    is_member: bool,
    /// The client has sent a frame, or can be of no other family.
    client_has_spoken: bool,
    opened: Instant,
    /// Tag of the last content for this client: the end of a link must be in the same layout.
    last_sender: SenderTag,
}

/// Facts about the releases that are possible, folded when the set changes.
#[derive(Clone, Copy, Debug)]
struct Capabilities {
    releases: ReleaseSet,
    /// Release in whose texts errors are reported: the only one, or the most likely one.
    most_likely: Release,
    /// Layout that all releases share.
    layout: Option<ContentLayout>,
    /// Layout and schema of the most likely release.
    most_likely_layout: ContentLayout,
    most_likely_schema: V1Schema,
    keepalive: Keepalive,
    /// All releases ping in the same frame, and expect their pings to be answered.
    all_ping: bool,
    /// A release pings: what is no heartbeat may be a pong.
    any_pings: bool,
    /// Field 5 asks for another member.
    try_another: bool,
    /// Joiners receive heartbeats, too.
    probes_joiners: bool,
    /// Joiners are pinged when they are linked.
    pings_joiners: bool,
    confirms_membership: bool,
    error_closes_both: bool,
    /// The peer protocols of the releases, one bit each, if there are several.
    peer_protocols: u8,
    member_choice: MemberChoice,
}

impl Capabilities {
    fn new(releases: ReleaseSet, most_likely: Release) -> Self {
        let fact = |fact: fn(&V1Facts) -> bool| move |release: Release| release.v1().is_some_and(fact);
        let only = releases.single_release();
        let all_ping = releases.all(Release::has_protobuf_pong) || only.is_some_and(Release::pings);
        let any_pings = all_ping || releases.any(Release::has_protobuf_pong);
        let keepalive_of_joiners = fact(|facts| facts.keepalive_of_joiners);
        Capabilities {
            releases,
            most_likely,
            layout: releases.content_layout(),
            most_likely_layout: most_likely.dialect().content_layout().unwrap_or(ContentLayout::V15_1),
            most_likely_schema: most_likely.v1().map_or(V1Schema::V18, |facts| facts.schema),
            keepalive: if all_ping || only.is_some() {
                most_likely.keepalive()
            } else {
                Keepalive::Heartbeat { send_final: false, enforce: false }
            },
            all_ping,
            any_pings,
            try_another: !any_pings && releases.any(Release::has_try_another),
            probes_joiners: !all_ping && only.is_none_or(keepalive_of_joiners),
            pings_joiners: most_likely.pings() && keepalive_of_joiners(most_likely),
            confirms_membership: fact(|facts| facts.confirms_membership)(most_likely),
            peer_protocols: releases.uncertain_peer_protocols(),
            error_closes_both: fact(|facts| facts.error_closes_both)(most_likely),
            member_choice: most_likely.v1().map_or(MemberChoice::Oldest, |facts| facts.member_choice),
        }
    }
}

impl V1 {
    pub(in crate::protocol::dialect) fn new(
        key: &str,
        releases: ReleaseSet,
        most_likely: Release,
        opened: Instant,
    ) -> Self {
        let capabilities = Capabilities::new(releases, most_likely);
        V1 {
            key: key.into(),
            capabilities,
            keepalive: KeepaliveTimer::new(capabilities.keepalive),
            is_member: false,
            client_has_spoken: releases.len() == 1,
            opened,
            last_sender: SenderTag::default(),
        }
    }

    /// Restricts the possible releases. What is now due is appended to `out`.
    pub(in crate::protocol::dialect) fn adopt(
        &mut self,
        releases: ReleaseSet,
        most_likely: Release,
        now: Instant,
        out: &mut dyn OutputSink,
    ) {
        let pinged_before = self.capabilities.all_ping;
        self.capabilities = Capabilities::new(releases, most_likely);
        self.keepalive.set_policy(self.capabilities.keepalive);
        if self.is_member {
            self.keepalive.enforce();
        }
        if self.capabilities.all_ping && !pinged_before {
            // Members are pinged at once, as they would have been if the dialect had been known.
            if self.is_member {
                self.start_pings(now, out);
            } else {
                self.keepalive.stop();
            }
        } else if !self.capabilities.probes_joiners && !self.is_member {
            self.keepalive.stop();
        }
    }

    pub(in crate::protocol::dialect) fn open(&mut self, out: &mut dyn OutputSink) {
        if self.capabilities.probes_joiners {
            self.keepalive.start(self.opened);
        }
        let join = Join {
            when_empty: WhenEmpty::BecomeMember,
            choice: self.capabilities.member_choice,
            rejoin: RejoinPolicy::Replace,
        };
        out.enter(Arc::clone(&self.key).into(), Command::Join(join));
    }

    pub(in crate::protocol::dialect) fn decode(&mut self, message: Message, out: &mut dyn OutputSink) {
        self.client_has_spoken = true;
        let Message::Binary(bytes) = message else {
            // The Node.js servers read text as a message without fields.
            return;
        };
        let length = bytes.len();
        let (schema, layout) = self.schema_of(&bytes);
        let message = match wire::decode_v1(bytes, schema) {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(text) => {
                let reason = Reason::DecodeError(text);
                return out.close(close_frame_for(self.capabilities.most_likely, &reason));
            }
        };
        match message {
            V1Message::Content { id, body } => self.relay(id, body, length, layout, out),
            V1Message::IsFirst => {}
            V1Message::JoinedOrStable => out.ask(Command::BecomeMember),
            V1Message::PingOrHeartbeat if self.capabilities.all_ping => out.binary(self.pong()),
            V1Message::PingOrHeartbeat => {
                self.keepalive.on_reply();
                // Clients that ping close without an answer; to the others it is an unknown field.
                if self.capabilities.any_pings {
                    out.binary(self.pong());
                }
            }
            V1Message::PongOrTryAnother if self.capabilities.try_another => out.ask(Command::TryAnother),
            V1Message::PongOrTryAnother if self.capabilities.any_pings => self.keepalive.on_reply(),
            V1Message::PongOrTryAnother => {}
        }
    }

    /// Returns the schema that a frame is decoded with, and its layout: those of the most likely release if
    /// the frame may have that layout, else those of another release.
    fn schema_of(&self, frame: &[u8]) -> (V1Schema, ContentLayout) {
        let Capabilities { layout, most_likely_layout, most_likely_schema, .. } = self.capabilities;
        let layout = layout.or_else(|| detect_v1_layout(frame)).unwrap_or(most_likely_layout);
        if layout == most_likely_layout {
            (most_likely_schema, layout)
        } else if layout == ContentLayout::V15_0 {
            (V1Schema::V15, layout)
        } else {
            (V1Schema::V18, layout)
        }
    }

    fn relay(&self, id: u32, body: V1Body, frame: usize, layout: ContentLayout, out: &mut dyn OutputSink) {
        let message = match body {
            V1Body::Data { data, end } => {
                LinkMessage::Data { payload: Payload::from_frame(data, frame), last: end }
            }
            V1Body::Error => LinkMessage::Error { closes_both: self.capabilities.error_closes_both },
            V1Body::End => LinkMessage::End,
            V1Body::Nothing => LinkMessage::Empty,
        };
        // Receivers of unknown dialect take the tag as a hint: it names a dialect of the frame's layout.
        let Capabilities { releases, most_likely, most_likely_layout, .. } = self.capabilities;
        let has_layout = |release: &Release| release.dialect().content_layout() == Some(layout);
        let other = || releases.iter().find(has_layout).unwrap_or(most_likely);
        let sender = if layout == most_likely_layout { most_likely } else { other() };
        let sender = sender.dialect().tag().with_peer_protocols(self.capabilities.peer_protocols);
        out.ask(Command::Relay { to: Recipient::JoinerOrMember(LinkId(id)), message, sender });
    }

    pub(in crate::protocol::dialect) fn encode(
        &mut self,
        event: Event,
        now: Instant,
        out: &mut dyn OutputSink,
    ) {
        match event {
            Event::Admitted { .. } => {
                out.binary(wire::IS_FIRST);
                self.become_member(now, out);
            }
            Event::LinkedToMember { .. } => {
                out.binary(wire::IS_NOT_FIRST);
                if self.capabilities.pings_joiners {
                    self.start_pings(now, out);
                }
            }
            Event::BecameMember { already } => self.became_member(already, now, out),
            Event::LinkedToJoiner { .. } | Event::Undeliverable { .. } => {}
            Event::Refused(reason) | Event::Evicted(reason) => {
                out.close(close_frame_for(self.capabilities.most_likely, &reason));
            }
            Event::Relayed { link, side, message, sender } => {
                self.last_sender = sender;
                let layout = self.layout_for(sender);
                // A content of this layout cannot have both data and an end.
                let then_end =
                    layout == ContentLayout::V15_1 && matches!(message, LinkMessage::Data { last: true, .. });
                out.send(encode_v1_content(link.0, side, body(message), layout));
                if then_end {
                    out.send(encode_v1_content(link.0, side, V1Body::End, layout));
                }
            }
            Event::LinkEnded { link, side, .. } => {
                out.send(encode_v1_content(link.0, side, V1Body::Error, self.layout_for(self.last_sender)));
            }
        }
    }

    /// Returns the layout that this client reads: the known one, else the sender's if the client may speak
    /// the same dialect, else the most likely one.
    fn layout_for(&self, sender: SenderTag) -> ContentLayout {
        let Capabilities { layout, most_likely_layout, releases, .. } = self.capabilities;
        let same_dialect = |release: &Release| release.dialect().tag() == sender.of_dialect();
        let of_sender = || releases.iter().find(same_dialect)?.dialect().content_layout();
        layout.or_else(of_sender).unwrap_or(most_likely_layout)
    }

    fn became_member(&mut self, already: bool, now: Instant, out: &mut dyn OutputSink) {
        match (self.capabilities.confirms_membership, already) {
            (true, true) => out.binary(wire::IS_NOT_FIRST),
            (true, false) => {
                self.is_member = true;
                out.binary(wire::IS_FIRST);
            }
            (false, true) => {}
            (false, false) => self.become_member(now, out),
        }
    }

    fn become_member(&mut self, now: Instant, out: &mut dyn OutputSink) {
        self.is_member = true;
        if self.capabilities.all_ping {
            self.start_pings(now, out);
        } else if self.keepalive.is_running() {
            // A member has to answer, whichever dialect it speaks.
            self.keepalive.enforce();
        } else {
            self.keepalive.start(now);
        }
    }

    fn start_pings(&mut self, now: Instant, out: &mut dyn OutputSink) {
        if self.keepalive.start(now) {
            out.binary(self.ping());
        }
    }

    fn ping(&self) -> Bytes {
        let Capabilities { all_ping, most_likely_schema, .. } = self.capabilities;
        if all_ping { most_likely_schema.ping() } else { wire::V1_HEARTBEAT }
    }

    fn pong(&self) -> Bytes {
        self.capabilities.most_likely_schema.pong()
    }

    pub(in crate::protocol::dialect) fn deadline(&self) -> Option<Instant> {
        self.keepalive.deadline()
    }

    pub(in crate::protocol::dialect) fn poll(&mut self, now: Instant, out: &mut dyn OutputSink) {
        // To a client that has sent nothing, the probe: one of sigver 19 or 20 would take a heartbeat for an
        // answer.
        let ping = Message::Binary(if self.client_has_spoken { self.ping() } else { PROBE });
        let close = || close_frame_for(self.capabilities.most_likely, &Reason::Unresponsive);
        match self.keepalive.poll(now) {
            None => {}
            Some(KeepaliveDue::SendPing) => out.send(ping),
            Some(KeepaliveDue::Close) => out.close(close()),
            Some(KeepaliveDue::SendPingThenClose) => {
                out.send(ping);
                out.close(close());
            }
        }
    }
}

fn body(message: LinkMessage) -> V1Body {
    match message {
        LinkMessage::Data { payload, last } => V1Body::Data { data: payload.into_bytes(), end: last },
        LinkMessage::End => V1Body::End,
        LinkMessage::Error { .. } => V1Body::Error,
        LinkMessage::Empty => V1Body::Nothing,
    }
}
