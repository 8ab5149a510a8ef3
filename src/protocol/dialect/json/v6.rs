//! sigver 6: `{"key":K}` opens and `{"joinkey":K}` joins. A joiner sends `{"offer":X}`, and the opener
//! answers all joiners that wait for it with one `{"answer":Y}`.

use bytestring::ByteString;

use super::js_semantics::{room_key, string_content};
use super::unanswered_joiners::UnansweredJoiners;
use super::{MAX_KEY_BYTES, text_of};
use crate::protocol::dialect::json_errors::{JsonError, close};
use crate::protocol::dialect::json_text::{JsonObject, JsonValue};
use crate::protocol::dialect::{Dialect, OutputSink, Release, close_frame_for};
use crate::protocol::frame::Message;
use crate::protocol::model::{
    Command, Event, Join, LinkMessage, MemberChoice, Open, Payload, Reason, Recipient, RejoinPolicy, Side,
    WhenEmpty,
};

const RELEASE: Release = Release::V6_0_0;

/// The codec of one connection.
#[derive(Debug, Default)]
pub(in crate::protocol::dialect) struct V6Codec {
    opened: bool,
    joined: bool,
    unanswered_joiners: UnansweredJoiners,
}

impl V6Codec {
    /// Creates the codec of an opener that could also have been one of another dialect until now.
    pub(super) fn from_opener(unanswered_joiners: UnansweredJoiners) -> Self {
        V6Codec { opened: true, joined: false, unanswered_joiners }
    }

    /// Decodes a message from the client. `json` is its value, if it is parsed already.
    pub(in crate::protocol::dialect) fn decode(
        &mut self,
        message: &Message,
        json: Option<JsonValue>,
        out: &mut dyn OutputSink,
    ) {
        let Some(text) = text_of(message) else { return refuse(JsonError::NotJson, out) };
        match json.map_or_else(|| JsonValue::parse(text), Ok) {
            Ok(JsonValue::Object(object)) => self.object(&object, out),
            Ok(JsonValue::Other(value)) if value != "null" => refuse(JsonError::Unknown(""), out),
            Ok(JsonValue::Other(_)) => refuse(JsonError::NotJson, out),
            Err(error) => refuse(error.into(), out),
        }
    }

    fn object(&mut self, object: &JsonObject, out: &mut dyn OutputSink) {
        if let Some(key) = object.get("key").or(object.get("joinkey")) {
            let key = room_key(key);
            if key.as_str().len() > MAX_KEY_BYTES {
                return refuse(JsonError::KeyTooLong, out);
            }
            if object.has("key") {
                self.opened = true;
                self.unanswered_joiners = UnansweredJoiners::default();
                return out.enter(key, Command::Open(Open { exclusive: true, keep_other_rooms: false }));
            }
            self.joined = true;
            let join = Join {
                when_empty: WhenEmpty::Refuse,
                choice: MemberChoice::Oldest,
                rejoin: RejoinPolicy::KeepReceiving,
            };
            return out.enter(key, Command::Join(join));
        }
        if let Some(offer) = sole_attribute(object, "offer") {
            return if self.joined {
                relay(Recipient::Member, offer, out)
            } else {
                refuse(JsonError::BeforeJoin, out)
            };
        }
        let Some(answer) = sole_attribute(object, "answer") else {
            return refuse(JsonError::Unknown(""), out);
        };
        if !self.opened {
            return refuse(JsonError::BeforeOpen, out);
        }
        for joiner in self.unanswered_joiners.take() {
            relay(Recipient::Joiner(joiner), answer.clone(), out);
        }
    }

    /// Encodes an event for the client.
    pub(in crate::protocol::dialect) fn encode(&mut self, event: Event, out: &mut dyn OutputSink) {
        match event {
            Event::LinkedToMember { .. } => out.static_text("{\"reachable\":\"true\"}"),
            Event::LinkedToJoiner { link } => self.unanswered_joiners.add(link),
            Event::Relayed { side, message: LinkMessage::Data { payload, .. }, .. } => {
                // The dialect has no other messages.
                let name = match side {
                    Side::Member => "offer",
                    Side::Joiner => "answer",
                };
                if let Some(value) = attribute_text(payload, name) {
                    out.text(JsonObject::with_member(name, &value).into_text());
                }
            }
            Event::LinkEnded { link, side: Side::Member, .. } => self.unanswered_joiners.remove(link),
            Event::Refused(reason) | Event::Evicted(reason) => out.close(close_frame_for(RELEASE, &reason)),
            Event::Undeliverable { to: Recipient::Member | Recipient::JoinerOrMember(_), reason } => {
                // The opener has disconnected, unless the client never joined one.
                let error = if reason == Reason::NotJoined {
                    JsonError::BeforeJoin
                } else {
                    JsonError::OpenerGone("")
                };
                out.close(close(RELEASE, error));
            }
            // The dialect does not report that a joiner has disconnected.
            Event::Undeliverable { to: Recipient::Joiner(_), .. }
            | Event::Admitted { .. }
            | Event::BecameMember { .. }
            | Event::Relayed {
                message: LinkMessage::End | LinkMessage::Error { .. } | LinkMessage::Empty,
                ..
            }
            | Event::LinkEnded { side: Side::Joiner, .. } => {}
        }
    }
}

/// Returns the member of this name as an object of its own.
fn sole_attribute(object: &JsonObject, name: &str) -> Option<Payload> {
    let value = object.get(name)?;
    Some(Payload::Json(if object.has_only(name) {
        object.text().clone()
    } else {
        JsonObject::with_member(name, value).into_text()
    }))
}

/// Returns the value of the member of this name in a payload. Up to sigver 4, offer and answer are the
/// members of an object of the type `offer`.
pub(super) fn attribute_text(payload: Payload, name: &str) -> Option<ByteString> {
    let object = JsonObject::parse(match &payload {
        Payload::ObjectFrame { text, .. } => text.clone(),
        Payload::Json(_) | Payload::Bytes(_) => payload.clone().into_json(),
    })?;
    if let Some(value) = object.share(name) {
        return Some(value);
    }
    let is_offer = object.get("type").and_then(string_content).is_some_and(|name| name == "offer");
    (is_offer && matches!(payload, Payload::ObjectFrame { .. })).then(|| payload.into_json())
}

fn relay(to: Recipient, payload: Payload, out: &mut dyn OutputSink) {
    let message = LinkMessage::Data { payload, last: false };
    out.ask(Command::Relay { to, message, sender: Dialect::Sigver6.tag() });
}

fn refuse(error: JsonError<'_>, out: &mut dyn OutputSink) {
    out.close(close(RELEASE, error));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::Output;
    use crate::protocol::model::LinkId;

    fn codec() -> V6Codec {
        let mut codec = V6Codec { opened: true, joined: true, ..V6Codec::default() };
        codec.unanswered_joiners.add(LinkId(70));
        codec.unanswered_joiners.add(LinkId(80));
        codec
    }

    fn relayed(text: &'static str) -> Vec<(Recipient, ByteString)> {
        let mut out = Vec::new();
        codec().decode(&Message::text(text), None, &mut out);
        let relayed = out.into_iter().map(|output| match output {
            Output::Ask(Command::Relay { to, message: LinkMessage::Data { payload, .. }, .. }) => {
                (to, payload.into_json())
            }
            other => panic!("{other:?}"),
        });
        relayed.collect()
    }

    #[test]
    fn offers_and_answers_are_relayed_without_other_members() {
        for text in
            [r#"{"offer":{"a":1}}"#, r#"{ "offer": {"a": 1.0}, "x": 2 }"#, r#"{"x":2,"offer":{"a":1}}"#]
        {
            assert_eq!(
                relayed(text),
                [(Recipient::Member, ByteString::from(r#"{"offer":{"a":1}}"#))],
                "{text}"
            );
        }
        for text in [r#"{"answer":1}"#, r#"{"answer": 1, "offers": 2}"#] {
            let answer = ByteString::from(r#"{"answer":1}"#);
            let to = |link| Recipient::Joiner(LinkId(link));
            assert_eq!(relayed(text), [(to(70), answer.clone()), (to(80), answer)], "{text}");
        }
    }

    #[test]
    fn offers_are_found_in_payloads_of_other_dialects() {
        let frame = |text: &str| Payload::ObjectFrame { text: text.into(), binary: false };
        for (payload, expected) in [
            (Payload::Json(r#"{"offer":"x","a":1}"#.into()), Some(r#""x""#)),
            (Payload::Json("[1]".into()), None),
            (Payload::Bytes(r#"{ "offer" : [ 1 ] }"#.into()), Some("[1]")),
            (Payload::Bytes("\u{8}".into()), None),
            (frame(r#"{"type":"offer","offer":1}"#), Some("1")),
            (frame(r#"{"type":"offer","index":"0","sdp":"v"}"#), Some(r#"{"sdp":"v"}"#)),
            (frame(r#"{"type":"icecandidate","candidate":{}}"#), None),
        ] {
            assert_eq!(attribute_text(payload.clone(), "offer").as_deref(), expected, "{payload:?}");
        }
    }
}
