//! sigver 1 to 5: `{"type":"open"|"join"}` with the key in `id` (1 to 3) or `key`, and then whole objects as they are:
//! offers and candidates only (1 to 4), or any (5). What is for a joiner names it by an `index`.

use std::fmt::Write as _;

use bytestring::ByteString;
use serde_json::{Map, Value};

use super::joiner_index::JoinerIndex;
use super::js_semantics::{compact, digits, room_key};
use super::{JsonError, MAX_KEY, close, text_of};
use crate::protocol::dialect::OutputSink;
use crate::protocol::dialect::Release;
use crate::protocol::frame::Message;
use crate::protocol::model::canonical::Attributes;
use crate::protocol::model::{
    Command, Event, Join, LinkMessage, MemberChoice, Open, Payload, Reason, Recipient, RejoinPolicy, RoomKey,
    Side, WhenEmpty,
};

/// The codec of one connection.
#[derive(Debug)]
pub(in crate::protocol::dialect) struct V1To5Codec {
    release: Release,
    joiners: JoinerIndex,
    joiner: bool,
}

/// What counts of an object: its other attributes are passed on unread.
struct Head {
    kind: Option<Value>,
    key: Option<Value>,
    index: Option<Value>,
}

impl Head {
    fn of_canonical(attributes: &Attributes<'_>, key_name: &str) -> Self {
        let read = |name| attributes.get(name).and_then(|value| serde_json::from_str(value).ok());
        Head { kind: read("type"), key: read(key_name), index: read("index") }
    }

    fn of_tree(mut object: Map<String, Value>, key_name: &str) -> Self {
        let mut take = |name| object.remove(name);
        Head { kind: take("type"), key: take(key_name), index: take("index") }
    }
}

impl V1To5Codec {
    pub(in crate::protocol::dialect) fn new(release: Release) -> Self {
        V1To5Codec { release, joiners: JoinerIndex::default(), joiner: false }
    }

    pub(in crate::protocol::dialect) fn decode(&mut self, message: &Message, out: &mut dyn OutputSink) {
        let Some(text) = text_of(message) else { return self.refuse(JsonError::NotJson, out) };
        let binary = matches!(message, Message::Binary(_));
        let head = Attributes::of(&text).map(|attributes| Head::of_canonical(&attributes, self.key_name()));
        match head {
            Some(head) => self.object(head, text, binary, out),
            None => self.any_text(text, binary, out),
        }
    }

    /// What it said, whatever it is: read into a tree.
    fn any_text(&mut self, text: ByteString, binary: bool, out: &mut dyn OutputSink) {
        match serde_json::from_str(&text) {
            Ok(Value::Object(object)) => {
                self.object(Head::of_tree(object, self.key_name()), text, binary, out)
            }
            Ok(Value::Null) | Err(_) => self.refuse(JsonError::NotJson, out),
            Ok(_) if self.any_object() => self.refuse(JsonError::BeforeJoin, out),
            Ok(_) => self.refuse(JsonError::Unknown(&text), out),
        }
    }

    /// The name under which it has the key.
    fn key_name(&self) -> &'static str {
        if self.release == Release::V3_0_0 { "id" } else { "key" }
    }

    /// Whether any object is relayed, not only offers and candidates.
    fn any_object(&self) -> bool {
        self.release >= Release::V5_0_0
    }

    fn object(&mut self, head: Head, text: ByteString, binary: bool, out: &mut dyn OutputSink) {
        let Head { kind, key, index } = head;
        match (kind.as_ref().and_then(Value::as_str), &key) {
            (Some("open" | "join"), Some(key)) if room_key(key).as_str().len() > MAX_KEY => {
                return self.refuse(JsonError::KeyTooLong, out);
            }
            (Some("open"), Some(key)) => {
                self.joiners = JoinerIndex::default();
                let open = Open { exclusive: true, keep_other_rooms: false };
                return out.enter(room_key(key), Command::Open(open));
            }
            (Some("join"), Some(key)) => return self.join(room_key(key), out),
            (Some("open" | "join"), None) if !self.any_object() => {
                return self.refuse(JsonError::KeyUnknown(""), out);
            }
            (Some("offer" | "icecandidate"), _) if !self.any_object() => {}
            _ if !self.any_object() => return self.refuse(JsonError::Unknown(&text), out),
            _ if kind.is_some() && key.is_some() => return self.refuse(JsonError::Unknown(&text), out),
            _ => {}
        }
        let to = match index {
            Some(index) => match self.joiner_at(&index) {
                Some(link) => link,
                None => return self.refuse(JsonError::UnknownId, out),
            },
            None if self.joiner => Recipient::Member,
            None => return self.refuse(JsonError::BeforeJoin, out),
        };
        let message = LinkMessage::Data { payload: Payload::ObjectFrame { text, binary }, last: false };
        out.ask(Command::Relay { to, message, sender: self.release.dialect().tag() });
    }

    fn join(&mut self, key: RoomKey, out: &mut dyn OutputSink) {
        self.joiner = true;
        let join = Join {
            when_empty: WhenEmpty::Refuse,
            choice: MemberChoice::Oldest,
            rejoin: RejoinPolicy::KeepReceiving,
        };
        out.enter(key, Command::Join(join));
    }

    /// The joiner that an index names, as a number or in digits.
    fn joiner_at(&self, index: &Value) -> Option<Recipient> {
        let index = match index {
            Value::String(digits) => digits.parse().ok()?,
            Value::Number(number) => usize::try_from(number.as_u64()?).ok()?,
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        self.joiners.at(index).map(Recipient::Joiner)
    }

    pub(in crate::protocol::dialect) fn encode(&mut self, event: Event, out: &mut dyn OutputSink) {
        match event {
            Event::LinkedToJoiner { link } => {
                self.joiners.index_of(link);
                out.static_text("{\"type\":\"join\"}");
            }
            Event::Relayed { link, side, message: LinkMessage::Data { payload, .. }, .. } => {
                match (side, payload) {
                    (Side::Joiner, Payload::ObjectFrame { text, binary }) => {
                        out.send(forwarded(text, binary))
                    }
                    (Side::Member, Payload::ObjectFrame { text, binary }) if !self.any_object() => {
                        out.send(forwarded(text, binary));
                    }
                    (Side::Joiner, payload) => {
                        out.text(self.object_text(payload));
                    }
                    (Side::Member, payload) => {
                        let index = self.joiners.index_of(link);
                        out.text(self.with_index(payload, index));
                    }
                }
            }
            Event::Refused(reason) | Event::Evicted(reason) => {
                out.close(close(self.release, JsonError::of(&reason, "")));
            }
            // An opener cannot know that a joiner is gone: nobody told it, and the others still need it.
            Event::Undeliverable { reason: Reason::UnknownRecipient, .. } => {}
            Event::Undeliverable { reason, .. } => {
                out.close(close(self.release, JsonError::of(&reason, "")));
            }
            // The dialect has no words for these.
            Event::Admitted { .. }
            | Event::BecameMember { .. }
            | Event::LinkedToMember { .. }
            | Event::Relayed {
                message: LinkMessage::End | LinkMessage::Error { .. } | LinkMessage::Empty,
                ..
            }
            | Event::LinkEnded { .. } => {}
        }
    }

    /// The text of an object for this client.
    fn object_text(&self, payload: Payload) -> ByteString {
        match payload.into_attributes_text() {
            Ok(text) => match self.kind_of_text(&text) {
                Some(kind) => extended(&text, Some(kind), None),
                None => text,
            },
            Err(payload) => Value::Object(self.attributes(payload)).to_string().into(),
        }
    }

    /// The text of an object for this client, with the index of the joiner it is from.
    fn with_index(&self, payload: Payload, index: usize) -> ByteString {
        if let Payload::ObjectFrame { text, .. } = &payload
            && let Some(attributes) = Attributes::of(text)
            && attributes.get("index").is_none()
        {
            return extended(text, None, Some(index));
        }
        match payload.into_attributes_text() {
            Ok(text) => extended(&text, self.kind_of_text(&text), Some(index)),
            Err(payload) => self.tree_with_index(payload, index),
        }
    }

    /// The same of any object.
    fn tree_with_index(&self, payload: Payload, index: usize) -> ByteString {
        let mut attributes = self.attributes(payload);
        attributes.insert("index".to_owned(), index.to_string().into());
        compact(Value::Object(attributes))
    }

    /// The attributes of an object for this client.
    fn attributes(&self, payload: Payload) -> Map<String, Value> {
        let mut attributes = payload.into_attributes();
        if !attributes.contains_key("type") {
            let kind = self.kind(|name| attributes.contains_key(name));
            attributes.extend(kind.map(|kind| ("type".to_owned(), kind.into())));
        }
        attributes
    }

    /// The type of an object that has none, and has attributes of these names. Up to sigver 4 offers and candidates have
    /// one, and answers are offers, as both sides make them.
    fn kind(&self, has: impl Fn(&str) -> bool) -> Option<&'static str> {
        if self.any_object() {
            return None;
        }
        let kind = if has("offer") || has("answer") { Some("offer") } else { None };
        kind.or(has("candidate").then_some("icecandidate"))
    }

    /// The same of the text of one.
    fn kind_of_text(&self, text: &str) -> Option<&'static str> {
        let attributes = if self.any_object() { None } else { Attributes::of(text) };
        attributes.and_then(|attributes| self.kind(|name| attributes.get(name).is_some()))
    }

    fn refuse(&self, fault: JsonError<'_>, out: &mut dyn OutputSink) {
        out.close(close(self.release, fault));
    }
}

/// The compact text of an object with what is added to it: written at once, into memory of its size.
fn extended(text: &ByteString, kind: Option<&str>, index: Option<usize>) -> ByteString {
    let open = text.strip_suffix('}').unwrap_or(text);
    let added = kind.map_or(0, |kind| r#","type":"""#.len() + kind.len())
        + index.map_or(0, |index| r#","index":"""#.len() + digits(index));
    let mut out = String::with_capacity(text.len() + added);
    out.push_str(open);
    let mut comma = if open == "{" { "" } else { "," };
    // Writing to a string does not fail.
    if let Some(kind) = kind {
        let _ = write!(out, "{comma}\"type\":\"{kind}\"");
        comma = ",";
    }
    if let Some(index) = index {
        let _ = write!(out, "{comma}\"index\":\"{index}\"");
    }
    out.push('}');
    out.into()
}

/// The sender's frame as it is.
fn forwarded(text: ByteString, binary: bool) -> Message {
    if binary { Message::Binary(text.into_bytes()) } else { Message::Text(text) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::dialect::Output;
    use crate::protocol::frame::Outgoing;
    use crate::protocol::model::test_json;
    use crate::protocol::model::{LinkId, SenderTag};

    const RELEASES: [Release; 3] = [Release::V3_0_0, Release::V4_0_0, Release::V5_0_0];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Looked over or read into a tree: the same comes of it.
        #[test]
        fn canonical_text_means_what_any_text_means(
            text in test_json::sent(),
            release in prop::sample::select(&RELEASES[..]),
            joiner: bool,
            binary: bool,
        ) {
            let codec = || {
                let mut codec = V1To5Codec::new(release);
                codec.joiner = joiner;
                codec.joiners.index_of(LinkId(70));
                codec
            };
            let message = forwarded(text.as_str().into(), binary);
            let (mut fast, mut general) = (Vec::<Output>::new(), Vec::<Output>::new());
            codec().decode(&message, &mut fast);
            codec().any_text(text.into(), binary, &mut general);
            prop_assert_eq!(fast, general);
        }

        #[test]
        fn an_index_is_added_to_text_as_to_a_tree(text in test_json::sent(), index in 0..1000_usize, binary: bool) {
            let codec = V1To5Codec::new(Release::V5_0_0);
            let payload = Payload::ObjectFrame { text: text.into(), binary };
            prop_assert_eq!(codec.with_index(payload.clone(), index), codec.tree_with_index(payload, index));
        }

        /// Of dialects that say it otherwise.
        #[test]
        fn text_becomes_an_object_as_a_tree_does(
            text in prop_oneof![test_json::sent(), test_json::simple()],
            release in prop::sample::select(&RELEASES[..]),
            bytes: bool,
            index in 0..1000_usize,
        ) {
            let codec = V1To5Codec::new(release);
            let payload = match serde_json::from_str::<Value>(&text) {
                Ok(value) if !bytes => Payload::Json(value.to_string().into()),
                _ => Payload::Bytes(text.into()),
            };
            let tree = Value::Object(codec.attributes(payload.clone())).to_string();
            prop_assert_eq!(&codec.object_text(payload.clone())[..], tree);
            prop_assert_eq!(codec.with_index(payload.clone(), index), codec.tree_with_index(payload, index));
        }
    }

    fn sent(codec: &mut V1To5Codec, event: Event) -> Vec<Output> {
        let mut out = Vec::new();
        codec.encode(event, &mut out);
        out
    }

    fn decoded(codec: &mut V1To5Codec, text: &str) -> Vec<Output> {
        let mut out = Vec::new();
        codec.decode(&Message::text(text), &mut out);
        out
    }

    fn text(text: &str) -> Output {
        Output::Send(Message::text(text).into())
    }

    fn relayed(link: u32, side: Side, text: &'static str) -> Event {
        let payload = Payload::ObjectFrame { text: text.into(), binary: false };
        let message = LinkMessage::Data { payload, last: false };
        Event::Relayed { link: LinkId(link), side, message, sender: SenderTag::default() }
    }

    const OFFER: &str = r#"{ "type": "offer", "id": 1, "sdp": "v" }"#;

    /// As the original does, which serialises the whole object again (sigver 5.0.0, measured).
    #[test]
    fn an_opener_of_5_sees_all_of_a_joiners_attributes_and_its_index() {
        let mut codec = V1To5Codec::new(Release::V5_0_0);
        sent(&mut codec, Event::LinkedToJoiner { link: LinkId(70) });
        sent(&mut codec, Event::LinkedToJoiner { link: LinkId(80) });
        assert_eq!(
            sent(&mut codec, relayed(80, Side::Member, OFFER)),
            [text(r#"{"type":"offer","id":1,"sdp":"v","index":"1"}"#)]
        );
    }

    /// As the original does (sigver 4.0.0, measured).
    #[test]
    fn an_opener_of_4_sees_the_frame_as_it_came() {
        let mut codec = V1To5Codec::new(Release::V4_0_0);
        sent(&mut codec, Event::LinkedToJoiner { link: LinkId(70) });
        assert_eq!(sent(&mut codec, relayed(70, Side::Member, OFFER)), [text(OFFER)]);
    }

    #[test]
    fn a_key_without_end_is_refused() {
        let key = "k".repeat(MAX_KEY + 1);
        let mut codec = V1To5Codec::new(Release::V5_0_0);
        let refused = decoded(&mut codec, &format!(r#"{{"type":"open","key":"{key}"}}"#));
        assert!(matches!(&refused[..], [Output::Send(Outgoing::Close(close))] if close.code == Some(1008)));
    }

    #[test]
    fn only_offers_and_candidates_are_relayed_up_to_4() {
        let mut codec = V1To5Codec::new(Release::V4_0_0);
        decoded(&mut codec, r#"{"type":"join","key":"k"}"#);
        assert!(matches!(decoded(&mut codec, OFFER)[..], [Output::Ask(Command::Relay { .. })]));
        let refused = decoded(&mut codec, r#"{"type":"answer"}"#);
        assert!(matches!(refused[..], [Output::Send(Outgoing::Close(_))]));
    }
}
