//! sigver 15 to 18: the server speaks first, a joiner is bound as it connects, and settles when it has reached
//! the group. One codec for the four dialects, ruled by a set of releases: pinned, the set has one; in
//! negotiation it may have several, and then what is said suits them all.

use std::time::{Duration, Instant};

use super::PROBE;
use super::wire::{self, ContentLayout, V1Body, V1Message, V1Schema};
use crate::protocol::dialect::OutputSink;
use crate::protocol::dialect::keepalive::{Keepalive, KeepaliveDue, KeepaliveTimer};
use crate::protocol::dialect::{Dialect, Release, ReleaseSet, close};
use crate::protocol::frame::{Message, Outgoing};
use crate::protocol::model::{
    Command, Event, Join, LinkId, LinkMessage, MemberChoice, Payload, Reason, Recipient, RejoinPolicy,
    RoomKey, SenderTag, Side, WhenEmpty,
};

/// The codec of one connection.
#[derive(Debug)]
pub(in crate::protocol::dialect) struct V1 {
    key: RoomKey,
    rules: Rules,
    liveness: KeepaliveTimer,
    member: bool,
    /// The client has said something, or can be of no other family.
    heard: bool,
    opened: Instant,
    /// How the last content for this client was marked: the end of a link must be in the same layout.
    company: SenderTag,
}

/// What differs between the releases.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rules {
    releases: ReleaseSet,
    /// The release in whose words errors are told: the only one, or the likeliest.
    likeliest: Release,
    /// `None` while the releases left differ in it.
    layout: Option<ContentLayout>,
    /// All that are left ping, and want their pings answered.
    pings: bool,
    /// Field 5 asks for another member. Not while it may be a pong.
    try_another: bool,
    liveness: Keepalive,
    /// Whether joiners are asked whether they are there, too.
    asks_joiners: bool,
}

impl Rules {
    fn of(releases: ReleaseSet, likeliest: Release) -> Self {
        let only = (releases.len() == 1).then_some(likeliest);
        let all_ping = releases.iter().all(pings);
        Rules {
            releases,
            likeliest,
            layout: releases.layout(),
            pings: all_ping,
            try_another: !releases.iter().any(pings) && releases.contains(Release::V18_0_0),
            liveness: if all_ping {
                // 15.0.2 differs in its interval from the others (measured).
                Keepalive::PingPong {
                    every: Duration::from_secs(if likeliest == Release::V15_0_2 { 4 } else { 5 }),
                }
            } else {
                let third = only.is_some_and(|only| only.dialect() == Dialect::Sigver16);
                Keepalive::Heartbeat { third, strict: only.is_some() }
            },
            asks_joiners: only.is_none_or(|only| only == Release::V18_0_0),
        }
    }
}

/// Whether field 4 is a ping that wants a pong, and not a heartbeat (sigver 15).
pub fn pings(release: Release) -> bool {
    matches!(release.dialect(), Dialect::Sigver15 | Dialect::Sigver15_1)
}

fn generation_of(release: Release) -> V1Schema {
    if release < Release::V15_1_0 {
        V1Schema::V15
    } else if release < Release::V16_0_0 {
        V1Schema::V15_1
    } else if release < Release::V18_0_0 {
        V1Schema::V16
    } else {
        V1Schema::V18
    }
}

impl V1 {
    pub(in crate::protocol::dialect) fn new(
        key: RoomKey,
        releases: ReleaseSet,
        likeliest: Release,
        opened: Instant,
    ) -> Self {
        let rules = Rules::of(releases, likeliest);
        V1 {
            key,
            rules,
            liveness: KeepaliveTimer::new(rules.liveness),
            member: false,
            heard: releases.len() == 1,
            opened,
            company: SenderTag::default(),
        }
    }

    /// The set of releases it may be has become smaller.
    pub(in crate::protocol::dialect) fn adopt(
        &mut self,
        releases: ReleaseSet,
        likeliest: Release,
        now: Instant,
        out: &mut dyn OutputSink,
    ) {
        let pinged_before = self.rules.pings;
        self.rules = Rules::of(releases, likeliest);
        self.liveness.change(self.rules.liveness);
        if self.member {
            self.liveness.insist();
        }
        if self.rules.pings && !pinged_before {
            // As if it had been known from the beginning: members are pinged at once.
            if self.member {
                self.ask_now(now, out);
            } else {
                self.liveness.stop();
            }
        } else if !self.rules.asks_joiners && !self.member {
            self.liveness.stop();
        }
    }

    pub(in crate::protocol::dialect) fn open(&mut self, out: &mut dyn OutputSink) {
        if self.rules.asks_joiners && !self.rules.pings {
            self.liveness.start(self.opened);
        }
        let choice = if self.rules.likeliest == Release::V17_0_1 {
            MemberChoice::Random
        } else {
            MemberChoice::Oldest
        };
        let join = Join { when_empty: WhenEmpty::BecomeMember, choice, rejoin: RejoinPolicy::Replace };
        out.enter(self.key.clone(), Command::Join(join));
    }

    pub(in crate::protocol::dialect) fn decode(&mut self, message: Message, out: &mut dyn OutputSink) {
        self.heard = true;
        let Message::Binary(bytes) = message else {
            // The Node.js servers read text as a message without fields.
            return;
        };
        let length = bytes.len();
        let (generation, layout) = self.generation(&bytes);
        let message = match wire::decode_v1(bytes, generation) {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(text) => return out.close(close(self.rules.likeliest, &Reason::DecodeError(text))),
        };
        match message {
            V1Message::Content { id, body } => self.relay(id, body, length, layout, out),
            V1Message::IsFirst => {}
            V1Message::JoinedOrStable => out.ask(Command::BecomeMember),
            V1Message::PingOrHeartbeat if self.rules.pings => out.binary(wire::PONG),
            V1Message::PingOrHeartbeat => self.liveness.answered(),
            V1Message::PongOrTryAnother if self.rules.try_another => out.ask(Command::TryAnother),
            V1Message::PongOrTryAnother => {
                if self.rules.releases.iter().any(pings) {
                    self.liveness.answered();
                }
            }
        }
    }

    /// As what a frame is read: as the likeliest release if that has the frame's layout, else as one that has. With
    /// the layout.
    fn generation(&self, frame: &[u8]) -> (V1Schema, ContentLayout) {
        let likely = self.rules.likeliest;
        let told = self.rules.layout.or_else(|| wire::detect_v1_layout(frame));
        match told.or(likely.dialect().layout()).unwrap_or(ContentLayout::V15_1) {
            layout if likely.dialect().layout() == Some(layout) => (generation_of(likely), layout),
            ContentLayout::V15_0 => (V1Schema::V15, ContentLayout::V15_0),
            ContentLayout::V15_1 | ContentLayout::V19 | ContentLayout::V20 => {
                (V1Schema::V18, ContentLayout::V15_1)
            }
        }
    }

    fn relay(&self, id: u32, body: V1Body, frame: usize, layout: ContentLayout, out: &mut dyn OutputSink) {
        let message = match body {
            V1Body::Data { data, end } => {
                LinkMessage::Data { payload: Payload::from_frame(data, frame), last: end }
            }
            V1Body::Error => LinkMessage::Error { closes_both: self.rules.likeliest == Release::V18_0_0 },
            V1Body::End => LinkMessage::End,
            V1Body::Nothing => LinkMessage::Empty,
        };
        // Others whose dialect is in doubt take it as a hint.
        let likely = self.rules.likeliest;
        let speaks = |release: &Release| release.dialect().layout() == Some(layout);
        let spoken = Some(likely).filter(speaks).or_else(|| self.rules.releases.iter().find(speaks));
        let sender = spoken.unwrap_or(likely).dialect();
        out.ask(Command::Relay { to: Recipient::JoinerOrMember(LinkId(id)), message, sender: sender.tag() });
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
                if matches!(self.rules.likeliest, Release::V15_0_1 | Release::V15_0_2) {
                    self.ask_now(now, out);
                }
            }
            Event::BecameMember { already } => self.settled(already, now, out),
            Event::LinkedToJoiner { .. } | Event::Undeliverable { .. } => {}
            Event::Refused(reason) | Event::Evicted(reason) => {
                out.close(close(self.rules.likeliest, &reason));
            }
            Event::Relayed { link, side, message, sender } => {
                self.company = sender;
                let layout = self.layout_for(sender);
                // Of a last payload that is no end in the sender's dialect, the end is told apart from the data.
                let then_end =
                    layout == ContentLayout::V15_1 && matches!(message, LinkMessage::Data { last: true, .. });
                out.send(content(link, side, body(message), layout));
                if then_end {
                    out.send(content(link, side, V1Body::End, layout));
                }
            }
            Event::LinkEnded { link, side, .. } => {
                out.send(content(link, side, V1Body::Error, self.layout_for(self.company)));
            }
        }
    }

    /// The layout this client reads: the known one, else the sender's if this client may speak the same dialect,
    /// else the likeliest.
    fn layout_for(&self, sender: SenderTag) -> ContentLayout {
        let company = self.rules.releases.iter().find(|release| release.dialect().tag() == sender);
        let likely = company.unwrap_or(self.rules.likeliest);
        self.rules.layout.or(likely.dialect().layout()).unwrap_or(ContentLayout::V15_1)
    }

    fn settled(&mut self, already: bool, now: Instant, out: &mut dyn OutputSink) {
        match (self.rules.likeliest, already) {
            (Release::V15_0_1 | Release::V15_0_2, true) => out.binary(wire::IS_NOT_FIRST),
            (Release::V15_0_1 | Release::V15_0_2, false) => {
                self.member = true;
                out.binary(wire::IS_FIRST);
            }
            (_, true) => {}
            (_, false) => self.become_member(now, out),
        }
    }

    fn become_member(&mut self, now: Instant, out: &mut dyn OutputSink) {
        self.member = true;
        if self.rules.pings {
            self.ask_now(now, out);
        } else if self.liveness.running() {
            // In doubt so far: as a member it has to answer, whichever dialect it speaks.
            self.liveness.insist();
        } else {
            self.liveness.start(now);
        }
    }

    fn ask_now(&mut self, now: Instant, out: &mut dyn OutputSink) {
        if self.liveness.start(now) {
            out.binary(wire::V1_BEAT);
        }
    }

    pub(in crate::protocol::dialect) fn deadline(&self) -> Option<Instant> {
        self.liveness.deadline()
    }

    pub(in crate::protocol::dialect) fn poll(&mut self, now: Instant, out: &mut dyn OutputSink) {
        // Not the plain one to a client that has not said a word: one of sigver 19 or 20 would take it for an answer.
        let ask = || Message::Binary(if self.heard { wire::V1_BEAT } else { PROBE });
        let give_up = || close(self.rules.likeliest, &Reason::Unresponsive);
        match self.liveness.poll(now) {
            None => {}
            Some(KeepaliveDue::SendPing) => out.send(ask()),
            Some(KeepaliveDue::Close) => out.close(give_up()),
            Some(KeepaliveDue::SendPingThenClose) => {
                out.send(ask());
                out.close(give_up());
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

fn content(link: LinkId, side: Side, body: V1Body, layout: ContentLayout) -> Outgoing {
    // A joiner hears everything from the id 0 (measured).
    let id = match side {
        Side::Member => link.0,
        Side::Joiner => 0,
    };
    wire::encode_v1_content(id, body, layout)
}
