//! sigver 19 and 20: the client speaks first, says who it is and whom it knows, and is told whether it is
//! connected. One codec for both, which differ in the layout of a content.

use std::time::Instant;

use bytes::Bytes;

use super::wire::{self, CurrentMessage, Layout};
use crate::dialect::liveness::{Due, Liveness, Rule};
use crate::dialect::session::Action;
use crate::dialect::{Dialect, Release, Releases, close};
use crate::frame::Frame;
use crate::model::{
    Attach, Command, Event, LinkId, NetId, Origin, Payload, Reason, Recipient, RoomKey, Side, Signal,
};

/// The codec of one connection.
#[derive(Debug)]
pub(in crate::dialect) struct Current {
    key: RoomKey,
    favored: bool,
    /// The release whose inner variant is spoken: the only one, or the likeliest.
    likeliest: Release,
    /// `None` while it may be either.
    layout: Option<Layout>,
    liveness: Liveness,
}

impl Current {
    /// Heartbeats count from `opened`, connected or not (measured).
    pub(in crate::dialect) fn new(
        key: RoomKey,
        favored: bool,
        releases: Releases,
        likeliest: Release,
        opened: Instant,
    ) -> Self {
        let mut liveness = Liveness::new(Rule::Beats { third: false, strict: true });
        liveness.start(opened);
        let mut current = Current { key, favored, likeliest, layout: None, liveness };
        current.adopt(releases, likeliest);
        current
    }

    /// The set of releases it may be has become smaller.
    pub(in crate::dialect) fn adopt(&mut self, releases: Releases, likeliest: Release) {
        self.likeliest = likeliest;
        self.layout = releases.layout();
    }

    pub(in crate::dialect) fn decode(&mut self, frame: Frame) -> Action {
        let refuse = |reason| Action::Close(close(self.likeliest, &reason));
        let Frame::Binary(bytes) = frame else {
            return refuse(Reason::WrongFrameKind);
        };
        let length = bytes.len();
        let layout = self.layout.or_else(|| wire::current_layout(&bytes)).unwrap_or(Layout::D);
        match wire::decode_current(bytes, layout) {
            Err(text) => refuse(Reason::Undecodable(text)),
            Ok(None) => refuse(Reason::UnknownMessage),
            Ok(Some(CurrentMessage::Connected)) => Action::Nothing,
            Ok(Some(CurrentMessage::Heartbeat)) => {
                self.liveness.answered();
                Action::Nothing
            }
            Ok(Some(CurrentMessage::Content { recipient, last, data })) => Action::Ask(Command::Relay {
                to: Recipient::Either(LinkId(recipient)),
                signal: Signal::Data { payload: Payload::of_frame(data, length), last },
                origin: match layout {
                    Layout::C => Dialect::Sigver19.origin(),
                    Layout::A | Layout::B | Layout::D => Dialect::Sigver20.origin(),
                },
            }),
            Ok(Some(CurrentMessage::Connect { id, members })) => {
                let attach = Attach {
                    claim: NetId(id),
                    known: members.into_iter().map(NetId).collect(),
                    // 19.0.0 does not know it (measured).
                    favored: self.favored && self.likeliest != Release::V19_0_0,
                    // The library under 20.1.0 closes later than it answers (measured).
                    admitted_first: self.likeliest == Release::V20_1_0,
                };
                Action::Enter(self.key.clone(), Command::Attach(attach))
            }
        }
    }

    pub(in crate::dialect) fn encode(&mut self, event: Event, out: &mut Vec<Frame>) {
        match event {
            Event::Admitted { .. } => out.push(Frame::Binary(wire::CONNECTED)),
            Event::Bound { .. } => out.push(Frame::Binary(wire::NOT_CONNECTED)),
            Event::Settled { .. } | Event::JoinerArrived { .. } | Event::Undeliverable { .. } => {}
            Event::Refused(reason) | Event::Evicted(reason) => {
                out.push(Frame::Close(close(self.likeliest, &reason)));
            }
            Event::Relayed { link, side, signal, origin } => match signal {
                Signal::Data { payload, .. } => {
                    out.push(self.content(link, side, Some(payload.into_bytes()), origin));
                }
                // That a peer has no more to say is never forwarded in these dialects (measured).
                Signal::End | Signal::Empty => {}
                Signal::Fail { .. } => out.push(self.content(link, side, None, origin)),
            },
            Event::LinkEnded { link, side, .. } => {
                out.push(self.content(link, side, None, Origin::default()));
            }
        }
    }

    fn content(&self, link: LinkId, side: Side, data: Option<Bytes>, origin: Origin) -> Frame {
        if self.layout.is_none()
            && side == Side::Member
            && let Some(frame) = data.as_ref().and_then(|data| wire::encode_for_either(link.0, data))
        {
            return Frame::Binary(frame);
        }
        // The sender's layout, if it is one of this family: rooms are rarely mixed.
        let company = Dialect::of_origin(origin).and_then(Dialect::layout);
        let company = company.filter(|layout| matches!(layout, Layout::C | Layout::D));
        let layout = self.layout.or(company).unwrap_or(Layout::D);
        wire::encode_current_content(link.0, side == Side::Member, data, layout)
    }

    pub(in crate::dialect) fn deadline(&self) -> Option<Instant> {
        self.liveness.deadline()
    }

    pub(in crate::dialect) fn poll(&mut self, now: Instant, out: &mut Vec<Frame>) {
        match self.liveness.poll(now) {
            None => {}
            Some(Due::Ask) => out.push(Frame::Binary(wire::CURRENT_BEAT)),
            Some(Due::GiveUp | Due::AskAndGiveUp) => {
                out.push(Frame::Close(close(self.likeliest, &Reason::Unresponsive)));
            }
        }
    }
}
