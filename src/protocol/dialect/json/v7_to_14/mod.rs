//! sigver 7 to 14: a key is opened or joined, and then `{"data":D}` goes up and `{"id":N,"data":D}` down. One codec,
//! ruled by a set of releases: while several are possible, one answer holds what each of them looks for, and what
//! only some would understand is not said. What each release answers is measured on the originals.
//!
//! What a client says is read here; what it hears is in [`answers`].

mod encode;

use std::fmt::Display;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use serde_json::{Map, Value};

use super::joiner_index::JoinerIndex;
use super::js_semantics::{compact, is_truthy, room_key};
use super::{JsonError, MAX_JOINERS, MAX_KEY, V6Codec, close, text_of};
use crate::protocol::dialect::OutputSink;
use crate::protocol::dialect::keepalive::{Keepalive, KeepaliveDue, KeepaliveTimer};
use crate::protocol::dialect::{Dialect, Family, Release, ReleaseSet};
use crate::protocol::frame::{Close, Message};
use crate::protocol::model::canonical::{self, Attributes};
use crate::protocol::model::{
    Command, Join, LinkId, LinkMessage, MemberChoice, Open, Payload, Reason, Recipient, RejoinPolicy,
    RoomKey, WhenEmpty,
};

/// How long one that may take itself for an opener has to answer its first joiner, before it is known not to.
const PROOF: Duration = Duration::from_secs(5);

/// The longest key of sigver 8 to 14, in UTF-16 units.
const MAX_UNITS: usize = 512;

const PING: &str = "{\"ping\":true}";
const PONG: &str = "{\"pong\":true}";

/// The codec of one connection.
#[derive(Debug)]
pub(in crate::protocol::dialect) struct V7To14Codec {
    rules: Rules,
    /// The key it asked for last, for words that name it.
    key: ByteString,
    asked: LastRequest,
    opened: bool,
    joined: bool,
    /// Of those that call joiners by their place (sigver 7.0 and 7.1).
    joiners: Option<JoinerIndex>,
    /// All joiners, as long as it may be an opener of sigver 6, which answers all of them.
    waiting: Vec<LinkId>,
    proof: OpenerConfirmation,
    /// It was answered by a question that tells openers of 7.0 from those of 7.6.
    questioned: bool,
    liveness: KeepaliveTimer,
}

/// What it asked last.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LastRequest {
    Open,
    Join,
}

/// Whether one that was told that it is the opener after it had asked to join takes itself for one. Those of sigver 9
/// do, those of 7.6 and 8 take it for a refusal, and stay.
#[derive(Clone, Copy, Debug, PartialEq)]
enum OpenerConfirmation {
    NotNeeded,
    Wanted,
    /// A joiner has been waiting for its answer.
    WantedBy(Instant),
}

/// What differs between the releases.
#[derive(Clone, Copy, Debug)]
struct Rules {
    releases: ReleaseSet,
    /// In whose words errors are told.
    likeliest: Release,
}

impl Rules {
    fn any(self, is: impl Fn(Release) -> bool) -> bool {
        self.releases.iter().any(is)
    }

    fn all(self, is: impl Fn(Release) -> bool) -> bool {
        !self.any(|release| !is(release))
    }

    fn only(self, release: Release) -> bool {
        self.all(|other| other == release)
    }
}

/// sigver 7.0 and 7.1.
fn is_7(release: Release) -> bool {
    release.dialect() == Dialect::Sigver7
}

/// sigver 7.0 to 7.6: attributes beside those that count do no harm, keys may be of any type, and frames of bytes.
fn up_to_7(release: Release) -> bool {
    release < Release::V8_0_2
}

/// sigver 7 and 8, which refuse who joins a free key, or opens one that is taken.
fn refuses(release: Release) -> bool {
    up_to_7(release) || is_8(release)
}

/// sigver 7.6 and 8, which say whether a key is accepted.
fn confirms_keys(release: Release) -> bool {
    release == Release::V7_6_4 || is_8(release)
}

fn is_8(release: Release) -> bool {
    release.dialect() == Dialect::Sigver8
}

fn is_9(release: Release) -> bool {
    release.dialect() == Dialect::Sigver9
}

/// sigver 11 to 14.
fn from_11(release: Release) -> bool {
    release >= Release::V11_0_0
}

impl V7To14Codec {
    pub(in crate::protocol::dialect) fn new(releases: ReleaseSet, likeliest: Release) -> Self {
        let rules = Rules { releases: releases.of_family(Family::Json), likeliest };
        V7To14Codec {
            rules,
            key: ByteString::new(),
            asked: LastRequest::Join,
            opened: false,
            joined: false,
            joiners: rules.all(is_7).then(JoinerIndex::default),
            waiting: Vec::new(),
            proof: OpenerConfirmation::NotNeeded,
            questioned: false,
            liveness: KeepaliveTimer::new(if rules.only(Release::V14_0_0) {
                Keepalive::PingPong { every: Duration::from_secs(5) }
            } else {
                Keepalive::None
            }),
        }
    }

    /// sigver 13 asks at once whether the client is there.
    pub(in crate::protocol::dialect) fn open(&mut self, opened: Instant, out: &mut dyn OutputSink) {
        self.ask_now(opened, out);
    }

    /// The set of releases it may be has become smaller. Returns the codec that takes over, if it is another one.
    pub(in crate::protocol::dialect) fn adopt(
        &mut self,
        releases: ReleaseSet,
        likeliest: Release,
        now: Instant,
        out: &mut dyn OutputSink,
    ) -> Option<V6Codec> {
        let pinged = self.rules.only(Release::V14_0_0);
        self.rules = Rules { releases, likeliest };
        if !self.rules.any(refuses) {
            self.proof = OpenerConfirmation::NotNeeded;
        }
        if self.rules.only(Release::V14_0_0) && !pinged {
            self.liveness.change(Keepalive::PingPong { every: Duration::from_secs(5) });
            self.ask_now(now, out);
        }
        self.rules.only(Release::V6_0_0).then(|| V6Codec::of_opener(std::mem::take(&mut self.waiting)))
    }

    pub(in crate::protocol::dialect) fn decode(&mut self, message: &Message, out: &mut dyn OutputSink) {
        if matches!(message, Message::Binary(_)) && !self.rules.any(Release::takes_bytes) {
            return self.refuse(JsonError::NotJson, out);
        }
        let Some(text) = text_of(message) else { return self.refuse(JsonError::NotJson, out) };
        match canonical_data(&text) {
            Some((None, data)) => self.upward(data, &text, out),
            Some((Some(id), data)) => self.downward(&id, data, &text, out),
            None => self.any_text(&text, out),
        }
    }

    /// What it said, whatever it is: read into a tree.
    fn any_text(&mut self, text: &str, out: &mut dyn OutputSink) {
        let value = match serde_json::from_str(text) {
            Ok(Value::Object(object)) => return self.object(object, text, out),
            Ok(value) => value,
            Err(_) => return self.refuse(JsonError::NotJson, out),
        };
        let likeliest = self.rules.likeliest;
        if is_7(likeliest) && value.is_null() {
            return self.refuse(JsonError::NotJson, out);
        }
        if !value.is_array() && self.rules.all(|release| is_8(release) || is_9(release)) {
            return;
        }
        if !value.is_array() && from_11(likeliest) {
            return out.close(Close::empty());
        }
        self.refuse(JsonError::Unknown(text), out)
    }

    fn object(&mut self, mut object: Map<String, Value>, text: &str, out: &mut dyn OutputSink) {
        // sigver 8 and later know a message by all of its attributes, those before by one of them.
        let exact = !self.rules.any(up_to_7);
        let alone = object.len() == 1;
        if let Some(key) = object.get("key").filter(|_| self.rules.any(up_to_7)) {
            self.enter(LastRequest::Open, &key.clone(), out);
            return;
        }
        if let Some(key) = object.get("open").filter(|_| alone && self.rules.any(|release| !up_to_7(release)))
        {
            self.enter(LastRequest::Open, &key.clone(), out);
            return;
        }
        if let Some(key) = object.get("join").filter(|_| alone || !exact) {
            let data = object.get("data").cloned();
            let entered = self.enter(LastRequest::Join, &key.clone(), out);
            if let Some(data) = data.filter(|_| entered) {
                self.relay(Recipient::Member, compact(data), out);
            }
            return;
        }
        if let Some(ping) = object.get("ping").filter(|_| alone && self.rules.any(pings)) {
            if is_truthy(ping) {
                return out.static_text(PONG);
            }
            return self.refuse(JsonError::Unknown(text), out);
        }
        if alone && object.contains_key("pong") && self.rules.any(pings) {
            return self.liveness.answered();
        }
        match (object.remove("id"), object.remove("data")) {
            (Some(id), Some(data)) if object.is_empty() || !exact => {
                self.downward(&id, compact(data), text, out)
            }
            (None, Some(data)) if object.is_empty() || !exact => self.upward(compact(data), text, out),
            // A word without data from an opener of these: not for the joiner, and no reason to close the room.
            (Some(_), None) if self.opened && self.rules.any(is_7) => {}
            _ => self.refuse(JsonError::Unknown(text), out),
        }
    }

    /// Enters the room with this key. Returns false if the key is refused or ignored.
    fn enter(&mut self, asked: LastRequest, key: &Value, out: &mut dyn OutputSink) -> bool {
        let any_key = self.rules.any(up_to_7);
        if !any_key
            && asked == LastRequest::Open
            && !is_truthy(key)
            && self.rules.all(|release| release < Release::V10_1_0)
        {
            // Treated as no attribute at all, by sigver 8 and 9.
            return false;
        }
        let error = match key {
            _ if any_key => (room_key(key).as_str().len() > MAX_KEY).then_some(JsonError::KeyTooLong),
            Value::String(key) if key.is_empty() => Some(JsonError::KeyEmpty),
            Value::String(key) => (key.encode_utf16().count() > MAX_UNITS).then_some(JsonError::KeyTooLong),
            _ => Some(JsonError::KeyType(key)),
        };
        if let Some(error) = error {
            self.refuse(error, out);
            return false;
        }
        let room = room_key(key);
        self.key = super::js_semantics::in_words(key).into();
        self.asked = asked;
        match asked {
            LastRequest::Open => self.open_room(room, out),
            LastRequest::Join => self.join(room, out),
        }
        true
    }

    fn open_room(&mut self, room: RoomKey, out: &mut dyn OutputSink) {
        self.opened = true;
        self.proof = OpenerConfirmation::NotNeeded;
        if let Some(joiners) = &mut self.joiners {
            *joiners = JoinerIndex::default();
        }
        let open = Open { exclusive: self.rules.all(refuses), keep_other_rooms: !self.rules.any(up_to_7) };
        if self.joined && self.rules.only(Release::V14_0_0) {
            self.joined = false;
            out.ask(Command::Unlink);
        }
        out.enter(room, Command::Open(open));
    }

    fn join(&mut self, room: RoomKey, out: &mut dyn OutputSink) {
        self.joined = true;
        let join = Join {
            when_empty: if self.rules.all(is_9) {
                WhenEmpty::BecomeMember
            } else if self.rules.any(is_9) {
                WhenEmpty::BecomeTentativeMember
            } else {
                WhenEmpty::Refuse
            },
            choice: MemberChoice::Oldest,
            rejoin: if self.rules.all(from_11) { RejoinPolicy::Reuse } else { RejoinPolicy::KeepReceiving },
        };
        out.enter(room, Command::Join(join));
    }

    /// Data for the joiner with this id.
    fn downward(&mut self, id: &Value, data: ByteString, text: &str, out: &mut dyn OutputSink) {
        let rules = self.rules;
        if rules.all(from_11) && !id.is_string() || rules.all(|r| is_8(r) || is_9(r)) && !id.is_number() {
            return self.refuse(JsonError::BadId, out);
        }
        if !self.opened {
            return match rules.likeliest {
                // Joiners may write an id; it is not looked at.
                _ if self.joined && rules.any(from_11) => self.relay(Recipient::Member, data, out),
                likeliest if from_11(likeliest) => {}
                likeliest if is_8(likeliest) || is_9(likeliest) => self.refuse(JsonError::BeforeOpen, out),
                likeliest if is_7(likeliest) => self.no_such_joiner(id, out),
                _ => self.refuse(JsonError::Unknown(text), out),
            };
        }
        self.proof = OpenerConfirmation::NotNeeded;
        match self.joiner(id) {
            Some(link) => self.relay(Recipient::Joiner(link), data, out),
            None if self.joined && rules.all(from_11) => self.relay(Recipient::Member, data, out),
            None => self.no_such_joiner(id, out),
        }
    }

    /// Data for the opener.
    fn upward(&mut self, data: ByteString, text: &str, out: &mut dyn OutputSink) {
        if self.joined {
            return self.relay(Recipient::Member, data, out);
        }
        match self.rules.likeliest {
            likeliest if is_7(likeliest) => self.refuse(JsonError::Unknown(text), out),
            likeliest if is_8(likeliest) || is_9(likeliest) => self.refuse(JsonError::BeforeJoin, out),
            _ => {}
        }
    }

    fn relay(&self, to: Recipient, data: ByteString, out: &mut dyn OutputSink) {
        let message = LinkMessage::Data { payload: Payload::Json(data), last: false };
        out.ask(Command::Relay { to, message, sender: self.rules.likeliest.dialect().tag() });
    }

    /// The joiner an id names.
    fn joiner(&self, id: &Value) -> Option<LinkId> {
        if let Some(joiners) = &self.joiners {
            let place = match id {
                Value::String(digits) => digits.parse().ok()?,
                _ => usize::try_from(id.as_u64()?).ok()?,
            };
            return joiners.at(place);
        }
        let id = match id {
            Value::String(name) => u32::from_str_radix(name, 16).ok()?,
            _ => u32::try_from(id.as_u64()?).ok()?,
        };
        Some(LinkId(id))
    }

    /// What is said of an id that is no joiner's.
    fn no_such_joiner(&self, id: &Value, out: &mut dyn OutputSink) {
        match self.rules.likeliest {
            Release::V7_0_0 => self.refuse(JsonError::UnknownId, out),
            Release::V7_1_0 if self.rules.all(is_7) => {
                out.text(format!("{{\"id\":{id},\"unavailable\":true}}"));
            }
            _ => self.undeliverable(id, out),
        }
    }

    /// What is said to an opener whose joiner has gone, or never was.
    fn undeliverable(&self, id: &impl Display, out: &mut dyn OutputSink) {
        if self.rules.all(is_8) {
            out.close(close(self.rules.likeliest, JsonError::JoinerGone));
        } else if self.rules.only(Release::V10_1_0) {
            out.text(format!("{{\"unavailable\":{id}}}"));
        }
    }

    pub(in crate::protocol::dialect) fn deadline(&self) -> Option<Instant> {
        let proof = match self.proof {
            OpenerConfirmation::WantedBy(at) => Some(at),
            OpenerConfirmation::NotNeeded | OpenerConfirmation::Wanted => None,
        };
        self.liveness.deadline().into_iter().chain(proof).min()
    }

    pub(in crate::protocol::dialect) fn poll(&mut self, now: Instant, out: &mut dyn OutputSink) {
        if let OpenerConfirmation::WantedBy(at) = self.proof
            && at <= now
        {
            self.proof = OpenerConfirmation::NotNeeded;
            // As the server of those that do not answer would have said at once.
            let refusing = self.rules.releases.iter().find(|release| refuses(*release));
            let fault = JsonError::KeyUnknown(&self.key);
            return out.close(close(refusing.unwrap_or(self.rules.likeliest), fault));
        }
        match self.liveness.poll(now) {
            None => {}
            Some(KeepaliveDue::SendPing) => out.static_text(PING),
            Some(KeepaliveDue::Close | KeepaliveDue::SendPingThenClose) => {
                out.close(self.closing(&Reason::Unresponsive))
            }
        }
    }

    fn ask_now(&mut self, now: Instant, out: &mut dyn OutputSink) {
        if self.liveness.start(now) {
            out.static_text(PING);
        }
    }

    fn closing(&self, reason: &Reason) -> Close {
        close(self.rules.likeliest, JsonError::of(reason, &self.key))
    }

    fn refuse(&self, fault: JsonError<'_>, out: &mut dyn OutputSink) {
        out.close(close(self.rules.likeliest, fault));
    }
}

fn pings(release: Release) -> bool {
    release == Release::V14_0_0
}

/// The id and data of a text that has nothing else, if the data can be passed as it is written.
fn canonical_data(text: &ByteString) -> Option<(Option<Value>, ByteString)> {
    let attributes = Attributes::of(text)?;
    let (id, data) = match attributes[..] {
        [("data", data)] => (None, data),
        [("id", id), ("data", data)] => (Some(serde_json::from_str(id).ok()?), data),
        _ => return None,
    };
    Some((id, canonical::part(text, data)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::dialect::Output;
    use crate::protocol::model::test_json;

    fn json_releases() -> Vec<Release> {
        Release::ALL.into_iter().filter(|release| release.dialect().family() == Family::Json).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Passed as it is or read into a tree: the same comes of it, whoever says it and wherever it is.
        #[test]
        fn canonical_data_means_what_any_text_means(
            text in test_json::sent(),
            release in prop::sample::select(json_releases()),
            alone: bool,
            opened: bool,
            joined: bool,
        ) {
            let releases = json_releases().into_iter().filter(|other| !alone || *other == release).collect();
            let codec = || {
                let mut codec = V7To14Codec::new(releases, release);
                codec.opened = opened;
                codec.joined = joined;
                if let Some(joiners) = &mut codec.joiners {
                    joiners.index_of(LinkId(70));
                }
                codec
            };
            let (mut fast, mut general) = (Vec::<Output>::new(), Vec::<Output>::new());
            codec().decode(&Message::text(text.as_str()), &mut fast);
            codec().any_text(&text, &mut general);
            prop_assert_eq!(fast, general);
        }
    }
}
