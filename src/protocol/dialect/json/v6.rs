//! sigver 6: `{"key":K}` opens, `{"joinkey":K}` joins, an `{"offer":X}` goes up and an `{"answer":Y}` down, to every
//! joiner that waits for one.

use bytestring::ByteString;
use serde_json::{Map, Value};

use super::js_semantics::{compact, room_key};
use super::{JsonError, MAX_JOINERS, MAX_KEY, close, text_of};
use crate::protocol::dialect::OutputSink;
use crate::protocol::dialect::{Dialect, Release};
use crate::protocol::frame::Message;
use crate::protocol::model::canonical::{self, Attributes};
use crate::protocol::model::{
    Command, Event, Join, LinkId, LinkMessage, MemberChoice, Open, Payload, Reason, Recipient, RejoinPolicy,
    Side, WhenEmpty,
};

const RELEASE: Release = Release::V6_0_0;

/// The codec of one connection.
#[derive(Debug, Default)]
pub(in crate::protocol::dialect) struct V6Codec {
    opened: bool,
    joined: bool,
    /// Joiners to whom the next answer goes.
    waiting: Vec<LinkId>,
}

impl V6Codec {
    /// The codec of an opener that was spoken to as one of several dialects so far, with the joiners it has.
    pub(super) fn of_opener(waiting: Vec<LinkId>) -> Self {
        V6Codec { opened: true, joined: false, waiting }
    }

    pub(in crate::protocol::dialect) fn decode(&mut self, message: &Message, out: &mut dyn OutputSink) {
        let Some(text) = text_of(message) else { return refuse(JsonError::NotJson, out) };
        match canonical::only_name(&text) {
            Some("offer") => self.offer(Payload::Json(text), out),
            Some("answer") => self.answer(Payload::Json(text), out),
            _ => self.any_text(&text, out),
        }
    }

    /// What it said, whatever it is: read into a tree.
    fn any_text(&mut self, text: &str, out: &mut dyn OutputSink) {
        match serde_json::from_str(text) {
            Ok(Value::Object(object)) => self.object(object, out),
            Ok(Value::Null) | Err(_) => refuse(JsonError::NotJson, out),
            Ok(_) => refuse(JsonError::Unknown(text), out),
        }
    }

    fn object(&mut self, mut object: Map<String, Value>, out: &mut dyn OutputSink) {
        if let Some(key) = object.get("key").or(object.get("joinkey")) {
            let key = room_key(key);
            if key.as_str().len() > MAX_KEY {
                return refuse(JsonError::KeyTooLong, out);
            }
            if object.contains_key("key") {
                self.opened = true;
                self.waiting = Vec::new();
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
        if let Some(offer) = object.remove("offer") {
            return self.offer(payload("offer", offer), out);
        }
        if let Some(answer) = object.remove("answer") {
            return self.answer(payload("answer", answer), out);
        }
        refuse(JsonError::Unknown(""), out)
    }

    fn offer(&self, offer: Payload, out: &mut dyn OutputSink) {
        if !self.joined {
            return refuse(JsonError::BeforeJoin, out);
        }
        relay(Recipient::Member, offer, out);
    }

    fn answer(&mut self, answer: Payload, out: &mut dyn OutputSink) {
        if !self.opened {
            return refuse(JsonError::BeforeOpen, out);
        }
        for joiner in std::mem::take(&mut self.waiting) {
            relay(Recipient::Joiner(joiner), answer.clone(), out);
        }
    }

    pub(in crate::protocol::dialect) fn encode(&mut self, event: Event, out: &mut dyn OutputSink) {
        match event {
            Event::LinkedToMember { .. } => out.static_text("{\"reachable\":\"true\"}"),
            Event::LinkedToJoiner { link } => {
                if self.waiting.len() == MAX_JOINERS {
                    self.waiting.remove(0);
                }
                self.waiting.push(link);
            }
            Event::Relayed { side, message: LinkMessage::Data { payload, .. }, .. } => {
                // All that the dialect has words for: one goes up, the other down.
                let name = match side {
                    Side::Member => "offer",
                    Side::Joiner => "answer",
                };
                if let Some(text) = only(payload, name) {
                    out.text(text);
                }
            }
            Event::LinkEnded { link, side: Side::Member, .. } => {
                self.waiting.retain(|waiting| *waiting != link);
            }
            Event::Refused(reason) | Event::Evicted(reason) => {
                out.close(close(RELEASE, JsonError::of(&reason, "")));
            }
            // The opener is gone, and all that can be said to it.
            Event::Undeliverable { to: Recipient::Member | Recipient::JoinerOrMember(_), reason } => {
                let fault = match reason {
                    Reason::NotJoined => JsonError::BeforeJoin,
                    _ => JsonError::OpenerGone(""),
                };
                out.close(close(RELEASE, fault));
            }
            // A joiner that has gone misses nothing, and the opener need not know.
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

/// An object of nothing but what a payload says that goes by this name.
fn only(payload: Payload, name: &str) -> Option<ByteString> {
    match payload {
        Payload::Json(text) if canonical::only_name(&text) == Some(name) => Some(text),
        payload => said(payload, name).map(|said| compact(attribute(name, said))),
    }
}

/// The text of what a payload says that goes by this name.
pub(super) fn said_text(payload: &Payload, name: &str) -> Option<ByteString> {
    if let Payload::Json(text) = payload
        && let Some(attributes) = Attributes::of(text)
    {
        return attributes.get(name).map(|said| canonical::part(text, said));
    }
    said(payload.clone(), name).map(|said| said.to_string().into())
}

/// What a payload says that goes by this name. Up to sigver 4, both sides say it in an object of the type `offer`.
fn said(payload: Payload, name: &str) -> Option<Value> {
    if let Payload::ObjectFrame { .. } = payload {
        let mut attributes = payload.clone().into_attributes();
        let typed = attributes.get("type").is_some_and(|kind| kind == "offer");
        return match attributes.remove(name) {
            None if typed => serde_json::from_str(&payload.into_json()).ok(),
            said => said,
        };
    }
    match serde_json::from_str(&payload.into_json()) {
        Ok(Value::Object(mut object)) => object.remove(name),
        _ => None,
    }
}

fn attribute(name: &str, value: Value) -> Value {
    let mut object = Map::new();
    object.insert(name.to_owned(), value);
    object.into()
}

fn payload(name: &str, value: Value) -> Payload {
    Payload::Json(compact(attribute(name, value)))
}

fn relay(to: Recipient, payload: Payload, out: &mut dyn OutputSink) {
    let message = LinkMessage::Data { payload, last: false };
    out.ask(Command::Relay { to, message, sender: Dialect::Sigver6.tag() });
}

fn refuse(fault: JsonError<'_>, out: &mut dyn OutputSink) {
    out.close(close(RELEASE, fault));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::dialect::Output;
    use crate::protocol::model::test_json;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Looked over or read into a tree: the same comes of it.
        #[test]
        fn canonical_text_means_what_any_text_means(text in test_json::sent(), opened: bool, joined: bool) {
            let codec = || V6Codec { opened, joined, waiting: vec![LinkId(70), LinkId(80)] };
            let (mut fast, mut general) = (Vec::<Output>::new(), Vec::<Output>::new());
            codec().decode(&Message::text(text.as_str()), &mut fast);
            codec().any_text(&text, &mut general);
            prop_assert_eq!(fast, general);
        }

        #[test]
        fn canonical_text_is_what_it_says(text in test_json::sent()) {
            let payload = Payload::Json(text.into());
            let tree = said(payload.clone(), "offer").map(|said| compact(attribute("offer", said)));
            let part = said(payload.clone(), "offer").map(|said| said.to_string().into());
            prop_assert_eq!(said_text(&payload, "offer"), part);
            prop_assert_eq!(only(payload, "offer"), tree);
        }
    }
}
