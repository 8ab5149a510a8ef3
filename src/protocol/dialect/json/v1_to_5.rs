//! sigver 1 to 5: `{"type":"open"|"join"}` with the key in `id` (1 to 3) or `key`. After that, whole objects
//! are forwarded: offers and candidates only (1 to 4), or any (5). An opener names a joiner by an `index`.

use bytestring::ByteString;

use super::joiner_index::JoinerIndex;
use super::js_semantics::{room_key, string_content};
use super::{MAX_KEY_BYTES, text_of};
use crate::protocol::dialect::json_errors::{JsonError, close};
use crate::protocol::dialect::json_text::{JsonObject, JsonValue, ObjectBuilder};
use crate::protocol::dialect::{Dialect, OutputSink, Release, close_frame_for};
use crate::protocol::frame::Message;
use crate::protocol::model::{
    Command, Event, Join, LinkMessage, MemberChoice, Open, Payload, Reason, Recipient, RejoinPolicy, RoomKey,
    Side, WhenEmpty,
};

/// The codec of one connection.
#[derive(Debug)]
pub(in crate::protocol::dialect) struct V1To5Codec {
    release: Release,
    joiners: JoinerIndex,
    joined: bool,
}

impl V1To5Codec {
    pub(in crate::protocol::dialect) fn new(release: Release) -> Self {
        V1To5Codec { release, joiners: JoinerIndex::default(), joined: false }
    }

    /// Decodes a message from the client. `json` is its value, if it is parsed already.
    pub(in crate::protocol::dialect) fn decode(
        &mut self,
        message: &Message,
        json: Option<JsonValue>,
        out: &mut dyn OutputSink,
    ) {
        let Some(text) = text_of(message) else { return self.refuse(JsonError::NotJson, out) };
        match json.map_or_else(|| JsonValue::parse(text.clone()), Ok) {
            Ok(JsonValue::Object(object)) => {
                self.object(&object, text, matches!(message, Message::Binary(_)), out);
            }
            Ok(JsonValue::Other(value)) if value != "null" => {
                let error =
                    if self.relays_any_object() { JsonError::BeforeJoin } else { JsonError::Unknown(&text) };
                self.refuse(error, out)
            }
            Ok(JsonValue::Other(_)) => self.refuse(JsonError::NotJson, out),
            Err(error) => self.refuse(error.into(), out),
        }
    }

    /// Name of the member that holds the key.
    fn key_name(&self) -> &'static str {
        if self.release.dialect() == Dialect::Sigver1 { "id" } else { "key" }
    }

    /// Returns true if any object is forwarded, not only offers and candidates.
    fn relays_any_object(&self) -> bool {
        self.release.dialect() == Dialect::Sigver5
    }

    /// Decodes an object. `text` is the frame as received.
    fn object(&mut self, object: &JsonObject, text: ByteString, binary: bool, out: &mut dyn OutputSink) {
        let message_type = object.get("type").and_then(string_content);
        let key = object.get(self.key_name());
        match (message_type.as_deref(), key) {
            (Some("open" | "join"), Some(key)) if room_key(key).as_str().len() > MAX_KEY_BYTES => {
                return self.refuse(JsonError::KeyTooLong, out);
            }
            (Some("open"), Some(key)) => {
                self.joiners = JoinerIndex::default();
                let open = Open { exclusive: true, keep_other_rooms: false };
                return out.enter(room_key(key), Command::Open(open));
            }
            (Some("join"), Some(key)) => return self.join(room_key(key), out),
            (Some("open" | "join"), None) if !self.relays_any_object() => {
                return self.refuse(JsonError::KeyUnknown(""), out);
            }
            (Some("offer" | "icecandidate"), _) if !self.relays_any_object() => {}
            _ if !self.relays_any_object() => return self.refuse(JsonError::Unknown(&text), out),
            _ if object.has("type") && key.is_some() => return self.refuse(JsonError::Unknown(&text), out),
            _ => {}
        }
        let to = match object.get("index") {
            Some(index) => match self.joiner_at(index) {
                Some(joiner) => joiner,
                None => return self.refuse(JsonError::UnknownId, out),
            },
            None if self.joined => Recipient::Member,
            None => return self.refuse(JsonError::BeforeJoin, out),
        };
        let message = LinkMessage::Data { payload: Payload::ObjectFrame { text, binary }, last: false };
        out.ask(Command::Relay { to, message, sender: self.release.dialect().tag() });
    }

    fn join(&mut self, key: RoomKey, out: &mut dyn OutputSink) {
        self.joined = true;
        let join = Join {
            when_empty: WhenEmpty::Refuse,
            choice: MemberChoice::Oldest,
            rejoin: RejoinPolicy::KeepReceiving,
        };
        out.enter(key, Command::Join(join));
    }

    /// Returns the joiner of an index, which is a number or a string of digits.
    fn joiner_at(&self, index: &str) -> Option<Recipient> {
        let index = string_content(index).unwrap_or(index.into()).parse().ok()?;
        self.joiners.get(index).map(Recipient::Joiner)
    }

    /// Encodes an event for the client.
    pub(in crate::protocol::dialect) fn encode(&mut self, event: Event, out: &mut dyn OutputSink) {
        match event {
            Event::LinkedToJoiner { link } => {
                self.joiners.index_or_insert(link);
                out.static_text("{\"type\":\"join\"}");
            }
            Event::Relayed { link, side, message: LinkMessage::Data { payload, .. }, .. } => {
                out.send(match (side, payload) {
                    (Side::Joiner, Payload::ObjectFrame { text, binary }) => verbatim(text, binary),
                    (Side::Member, Payload::ObjectFrame { text, binary }) if !self.relays_any_object() => {
                        verbatim(text, binary)
                    }
                    (Side::Joiner, payload) => Message::Text(self.object_text(payload, None)),
                    (Side::Member, payload) => {
                        let index = self.joiners.index_or_insert(link);
                        Message::Text(self.object_text(payload, Some(index)))
                    }
                });
            }
            Event::Refused(reason) | Event::Evicted(reason) => {
                out.close(close_frame_for(self.release, &reason));
            }
            // The opener cannot know that a joiner has disconnected: these dialects do not report it.
            Event::Undeliverable { reason: Reason::UnknownRecipient, .. } => {}
            Event::Undeliverable { reason, .. } => {
                out.close(close(self.release, JsonError::from_reason(&reason, "")));
            }
            // These dialects have no message for the rest.
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

    /// Returns the text of a payload for this client, with the index of the joiner that sent it.
    fn object_text(&self, payload: Payload, index: Option<usize>) -> ByteString {
        let object = payload.into_object();
        match self.missing_type(&object) {
            None if index.is_none() => object.into_text(),
            message_type => append_fields(&object, message_type, index),
        }
    }

    /// Returns the type of an object without one. Up to sigver 4 each offer and candidate has a type, and an
    /// answer is sent as an offer.
    fn missing_type(&self, object: &JsonObject) -> Option<&'static str> {
        if self.relays_any_object() || object.has("type") {
            None
        } else if object.has("offer") || object.has("answer") {
            Some("offer")
        } else {
            object.has("candidate").then_some("icecandidate")
        }
    }

    fn refuse(&self, error: JsonError<'_>, out: &mut dyn OutputSink) {
        out.close(close(self.release, error));
    }
}

/// Returns the text of an object with a type and an index, which replaces the index it has.
fn append_fields(object: &JsonObject, message_type: Option<&str>, index: Option<usize>) -> ByteString {
    let index = index.map(|index| index.to_string());
    let added = [("type", message_type), ("index", index.as_deref())];
    let overhead = r#","":"""#.len();
    let lengths =
        added.iter().filter_map(|(name, value)| Some([overhead, name.len(), value.as_ref()?.len()]));
    let capacity = lengths.flatten().fold(object.text().len(), usize::saturating_add);
    let mut builder = ObjectBuilder::with_capacity(capacity);
    for (name, value) in object.iter() {
        match &index {
            Some(index) if name == "index" => builder.push_string(name, index),
            _ => builder.push(name, value),
        }
    }
    for (name, value) in added {
        if let Some(value) = value
            && !object.has(name)
        {
            builder.push_string(name, value);
        }
    }
    builder.finish().into_text()
}

/// Returns the sender's message unchanged.
fn verbatim(text: ByteString, binary: bool) -> Message {
    if binary { Message::Binary(text.into_bytes()) } else { Message::Text(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::Output;
    use crate::protocol::frame::Outgoing;
    use crate::protocol::model::{LinkId, SenderTag};

    fn encoded(codec: &mut V1To5Codec, event: Event) -> Vec<Output> {
        let mut out = Vec::new();
        codec.encode(event, &mut out);
        out
    }

    fn decoded(codec: &mut V1To5Codec, text: &str) -> Vec<Output> {
        let mut out = Vec::new();
        codec.decode(&Message::text(text), None, &mut out);
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

    /// The server stringifies the whole object (sigver 5.0.0, measured).
    #[test]
    fn opener_of_5_receives_the_object_with_an_index() {
        let mut codec = V1To5Codec::new(Release::V5_0_0);
        encoded(&mut codec, Event::LinkedToJoiner { link: LinkId(70) });
        encoded(&mut codec, Event::LinkedToJoiner { link: LinkId(80) });
        assert_eq!(
            encoded(&mut codec, relayed(80, Side::Member, OFFER)),
            [text(r#"{"type":"offer","id":1,"sdp":"v","index":"1"}"#)]
        );
    }

    /// sigver 4.0.0, measured.
    #[test]
    fn opener_of_4_receives_the_frame_unchanged() {
        let mut codec = V1To5Codec::new(Release::V4_0_0);
        encoded(&mut codec, Event::LinkedToJoiner { link: LinkId(70) });
        assert_eq!(encoded(&mut codec, relayed(70, Side::Member, OFFER)), [text(OFFER)]);
    }

    #[test]
    fn too_long_key_is_refused() {
        let key = "k".repeat(MAX_KEY_BYTES + 1);
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

    #[test]
    fn payloads_of_other_dialects_become_typed_objects_up_to_4() {
        let text = |release, payload: &str, index| {
            V1To5Codec::new(release).object_text(Payload::Json(payload.into()), index).to_string()
        };
        for (payload, of_4, of_5) in [
            (r#"{"offer":1}"#, r#"{"offer":1,"type":"offer","index":"7"}"#, r#"{"offer":1,"index":"7"}"#),
            (r#"{"answer":1}"#, r#"{"answer":1,"type":"offer","index":"7"}"#, r#"{"answer":1,"index":"7"}"#),
            (
                r#"{"candidate":1}"#,
                r#"{"candidate":1,"type":"icecandidate","index":"7"}"#,
                r#"{"candidate":1,"index":"7"}"#,
            ),
            ("{}", r#"{"index":"7"}"#, r#"{"index":"7"}"#),
            ("[1]", r#"{"data":[1],"index":"7"}"#, r#"{"data":[1],"index":"7"}"#),
            (r#"{"index":1}"#, r#"{"data":{"index":1},"index":"7"}"#, r#"{"data":{"index":1},"index":"7"}"#),
        ] {
            assert_eq!(text(Release::V4_0_0, payload, Some(7)), of_4);
            assert_eq!(text(Release::V5_0_0, payload, Some(7)), of_5);
            assert_eq!(
                text(Release::V5_0_0, payload, None),
                of_5.replace(",\"index\":\"7\"", "").replace("\"index\":\"7\"", "")
            );
        }
    }

    #[test]
    fn index_of_an_object_frame_is_replaced() {
        let payload = Payload::ObjectFrame { text: r#"{ "index": 3, "a": 1.0 }"#.into(), binary: false };
        let text = V1To5Codec::new(Release::V5_0_0).object_text(payload, Some(7));
        assert_eq!(text, r#"{"index":"7","a":1}"#);
    }
}
