//! Evidence of a frame for the dialect of the client that sent it: one table.
//!
//! | frame | the client speaks |
//! |---|---|
//! | text; bytes that begin with `{` | a JSON dialect; which, by the attributes ([`MessageShape::possible_dialects`]) |
//! | bytes that begin with `1a` (connect), `08` (heartbeat) | sigver 19 or 20 |
//! | `12` (content) | sigver 19 or 20; which, if the content has a field of one of them only |
//! | `0a` (content) | sigver 15 to 18; 15.0 or later, if the content has a field of some of them only |
//! | `18` (joined, stable) | sigver 15 to 18 |
//! | `20` (ping or heartbeat) | sigver 15 to 18; 16 to 18 if it was probed, as 15 had answered the probe with `28`, and this is not its first frame: some of 15 ping before they answer |
//! | `28` (pong or tryAnother) | 18 if from a joiner that sent heartbeats; else 15, however late: its page may be slow |
//! | any other | nothing |
//!
//! The first bytes are protobuf tags, which the two protobuf families share none of (measured on all
//! Node.js servers).

use crate::protocol::dialect::{
    Dialect, Family, MessageShape, ParsedMessage, Release, ReleaseSet, detect_v1_layout, detect_v2_layout,
};
use crate::protocol::frame::Message;
use crate::protocol::model::Event;

/// Earlier frames of a connection, as far as they bear on the meaning of the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// The client was sent the probe, which a client of sigver 15 answers at once.
    pub(super) probed: bool,
    /// The time in which a client of sigver 15 answers the probe is over.
    pub(super) probe_expired: bool,
    /// The client sent a frame.
    pub(super) spoken: bool,
    /// The client sent a heartbeat.
    pub(super) heartbeat_seen: bool,
    /// The client is a member.
    pub(super) member: bool,
    /// The last request of the client is to join.
    pub(super) joining: bool,
    /// The client was sent an offer of no peer, which only one of sigver 7.0 answers.
    pub(super) identity_probed: bool,
}

/// A message under examination.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameFacts<'a> {
    message: &'a Message,
    /// Shape of a text that is a JSON object, or of bytes that may be one.
    shape: Option<MessageShape>,
}

impl<'a> FrameFacts<'a> {
    pub(super) fn new(parsed: &'a ParsedMessage) -> Self {
        FrameFacts { message: parsed.message(), shape: parsed.shape() }
    }

    fn has_heartbeat_tag(self) -> bool {
        matches!(self.message, Message::Binary(bytes) if bytes.first() == Some(&0x20))
    }
}

impl History {
    /// Notes an event that the client is sent.
    pub(super) fn note_event(&mut self, event: &Event) {
        match event {
            Event::Admitted { .. } | Event::BecameMember { .. } => self.member = true,
            Event::LinkedToMember { .. } => self.member = false,
            Event::LinkedToJoiner { .. }
            | Event::Refused(_)
            | Event::Relayed { .. }
            | Event::Undeliverable { .. }
            | Event::LinkEnded { .. }
            | Event::Evicted(_) => {}
        }
    }

    /// Notes what bears on later frames.
    pub(super) fn note(&mut self, facts: FrameFacts<'_>) {
        match facts.message {
            Message::Binary(_) => self.heartbeat_seen |= facts.has_heartbeat_tag() && !self.may_ping(),
            Message::Text(_) => {
                if let Some(asked) = facts.shape.and_then(MessageShape::join_or_open) {
                    self.joining = asked;
                }
            }
        }
        self.spoken = true;
    }

    /// Returns true if `20` may be a ping: heartbeats begin later.
    fn may_ping(self) -> bool {
        !self.spoken && !self.probe_expired
    }

    /// Returns true if the frame is either a ping of a client that is about to answer the probe, or an early
    /// heartbeat.
    pub(super) fn awaits_pong(self, facts: FrameFacts<'_>, releases: ReleaseSet) -> bool {
        facts.has_heartbeat_tag() && self.may_ping() && self.probed && releases.len() > 1
    }
}

/// Returns the releases that a client may speak which sends this frame.
pub(super) fn narrow(facts: FrameFacts<'_>, history: History, releases: ReleaseSet) -> ReleaseSet {
    let family = |family| releases.of_family(family);
    let bytes = match facts.message {
        Message::Text(_) => return json(facts.shape, history, family(Family::Json)),
        Message::Binary(bytes) => bytes,
    };
    let v1 = || family(Family::ProtobufV1);
    let v2 = || family(Family::ProtobufV2);
    // A client that pings would have answered the probe before it sent anything else. If only such are left,
    // it did.
    let unprobed = |set: ReleaseSet| {
        let rest = set.filter(|release| !(history.probed && release.has_protobuf_pong()));
        if rest.is_empty() { set } else { rest }
    };
    match bytes.first() {
        Some(b'{') if std::str::from_utf8(bytes).is_err() => family(Family::Json),
        Some(b'{') => json(facts.shape, history, family(Family::Json).filter(Release::accepts_binary_json)),
        Some(0x1a | 0x08) => v2(),
        Some(0x12) => match detect_v2_layout(bytes) {
            Some(layout) => releases.of_content_layout(layout),
            None => v2(),
        },
        Some(0x0a) => match detect_v1_layout(bytes) {
            Some(layout) => unprobed(releases.of_content_layout(layout)),
            None => v1(),
        },
        Some(0x18) => v1(),
        Some(0x20) if history.may_ping() => v1(),
        Some(0x20) => unprobed(v1()),
        Some(0x28) if history.member || !history.heartbeat_seen => v1().filter(Release::has_protobuf_pong),
        Some(0x28) => v1().filter(Release::has_try_another),
        _ => releases,
    }
}

/// Returns the JSON releases of which a text of this shape may be a message; all of them if it is none of
/// any.
fn json(shape: Option<MessageShape>, history: History, releases: ReleaseSet) -> ReleaseSet {
    let Some(shape) = shape else { return releases };
    if history.identity_probed && shape.answers_identity_probe() {
        return releases.of_dialect(Dialect::Sigver7);
    }
    match shape.possible_dialects(history.member && history.joining) {
        Some(dialects) => releases.filter(|release| dialects.contains(&release.dialect())),
        None => releases,
    }
}
