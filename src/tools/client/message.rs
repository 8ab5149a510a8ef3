//! Test messages: each has a unique marker, so that it is recognised wherever and in whatever form it
//! arrives. How a dialect frames them is in `dialects`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use strum::{IntoStaticStr, VariantArray};

/// The kind of a message. The first three have the names of a WebRTC negotiation, because some dialects can
/// carry nothing else; their contents are an application's own anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum MessageKind {
    /// A JSON value named `offer`.
    Offer,
    /// A JSON value named `answer`.
    Answer,
    /// A JSON value named `candidate`.
    Candidate,
    /// Any JSON value.
    Json,
    /// Bytes that are not JSON.
    Bytes,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestMessage {
    /// The kind of message.
    pub kind: MessageKind,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// A marker, with much around it that could be lost on the way.
    Marked(String),
    /// Nothing but this filling.
    Filling(String),
    /// These bytes.
    Exact(Vec<u8>),
}

/// A message as a client received it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedMessage {
    /// The kind of message, if the dialect has it.
    pub kind: Option<MessageKind>,
    /// The content.
    pub body: MessageBody,
}

/// The content of a received message.
#[derive(Clone, Debug, PartialEq)]
pub enum MessageBody {
    /// A JSON value.
    Json(Value),
    /// Bytes that are not JSON.
    Bytes(Vec<u8>),
}

/// The delivery of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// Unchanged.
    Intact,
    /// Complete, but without its kind.
    KindLost,
    /// With another content.
    Altered,
    /// Not at all.
    Lost,
}

/// Name of the attribute in which a gateway sends bytes to clients of JSON dialects, in base64.
const BYTES: &str = "$bytes";

/// Byte that no JSON text begins with.
const NOT_JSON: u8 = 0xff;

impl MessageKind {
    /// All kinds.
    pub const ALL: &[MessageKind] = MessageKind::VARIANTS;

    /// Returns the kind's name: for the first three, that of the attribute that carries it.
    pub fn name(self) -> &'static str {
        self.into()
    }

    fn from_attribute(name: &str) -> Option<MessageKind> {
        [MessageKind::Offer, MessageKind::Answer, MessageKind::Candidate]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl TestMessage {
    /// Returns a message of this kind. No other message may have this marker.
    pub fn new(kind: MessageKind, marker: &str) -> Self {
        TestMessage { kind, content: Content::Marked(marker.to_owned()) }
    }

    /// Returns a message of which only the size counts: `size` bytes, or a JSON value of `size` bytes, but no
    /// fewer than each needs.
    pub fn with_size(kind: MessageKind, size: usize) -> Self {
        let overhead = match kind {
            MessageKind::Bytes => 1,
            _ => json!({"note": ""}).to_string().len(),
        };
        TestMessage { kind, content: Content::Filling("7".repeat(size.saturating_sub(overhead))) }
    }

    /// Returns a message of exactly these bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        TestMessage { kind: MessageKind::Bytes, content: Content::Exact(bytes) }
    }

    /// Returns the content as a JSON value. For the content of bytes, see [`bytes`](Self::bytes).
    pub fn body(&self) -> Value {
        let marker = match &self.content {
            Content::Marked(marker) => marker,
            Content::Filling(filling) => return json!({"note": filling}),
            Content::Exact(bytes) => return json!({BYTES: BASE64.encode(bytes)}),
        };
        // Lengths beyond 127 take two bytes in protobuf; real offers have several hundred bytes.
        let long = if self.kind == MessageKind::Offer { "v=0\r\n".repeat(80) } else { String::new() };
        json!({
            "note": marker,
            "list": [1, -2.5, true, null, "", {"deep": "\u{e9}\u{1f600} \"quoted\" \\ \u{1}"}],
            "long": long,
        })
    }

    /// Returns the message as a JSON value, if it is one.
    pub(crate) fn to_json(&self) -> Option<Value> {
        match self.kind {
            MessageKind::Offer | MessageKind::Answer | MessageKind::Candidate => {
                Some(json!({self.kind.name(): self.body()}))
            }
            MessageKind::Json => Some(self.body()),
            MessageKind::Bytes => None,
        }
    }

    /// Returns the message as bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match (self.to_json(), &self.content) {
            (Some(value), _) => value.to_string().into_bytes(),
            (None, Content::Exact(bytes)) => bytes.clone(),
            (None, Content::Filling(filling)) => [&[NOT_JSON], filling.as_bytes()].concat(),
            (None, Content::Marked(marker)) => {
                [&[NOT_JSON, 0, 0xfe], marker.as_bytes(), b"\x80\x00\x0a"].concat()
            }
        }
    }

    /// Returns how this message arrived, if `received` is this message.
    pub fn compare(&self, received: &ReceivedMessage) -> Option<Delivery> {
        let is_this = match &self.content {
            Content::Marked(marker) | Content::Filling(marker) => received.body.contains(marker.as_bytes()),
            Content::Exact(bytes) => received.body.contains(bytes),
        };
        if !is_this {
            return None;
        }
        Some(match &received.body {
            MessageBody::Bytes(bytes) if self.kind == MessageKind::Bytes && *bytes == self.bytes() => {
                Delivery::Intact
            }
            MessageBody::Json(value) if self.kind != MessageKind::Bytes && *value == self.body() => {
                if received.kind == Some(self.kind) {
                    Delivery::Intact
                } else {
                    Delivery::KindLost
                }
            }
            MessageBody::Bytes(_) | MessageBody::Json(_) => Delivery::Altered,
        })
    }
}

impl ReceivedMessage {
    /// Returns the message in a JSON value. Offers, answers and candidates are objects with one attribute of
    /// that name.
    pub(crate) fn from_json(value: Value) -> Self {
        if let Value::Object(object) = &value
            && object.len() == 1
            && let Some((name, inner)) = object.iter().next()
        {
            if let Some(kind) = MessageKind::from_attribute(name) {
                return ReceivedMessage { kind: Some(kind), body: MessageBody::Json(inner.clone()) };
            }
            if let (BYTES, Value::String(text)) = (name.as_str(), inner)
                && let Ok(bytes) = BASE64.decode(text)
            {
                return ReceivedMessage::from_bytes(&bytes);
            }
        }
        ReceivedMessage { kind: Some(MessageKind::Json), body: MessageBody::Json(value) }
    }

    /// Returns the message in bytes, which may be the text of a JSON value.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(bytes) {
            // A client that can receive bytes must not get them wrapped in JSON.
            Ok(value) if value.get(BYTES).is_none() => ReceivedMessage::from_json(value),
            _ => ReceivedMessage { kind: Some(MessageKind::Bytes), body: MessageBody::Bytes(bytes.to_vec()) },
        }
    }

    /// Returns true if the content is empty.
    pub fn is_empty(&self) -> bool {
        match &self.body {
            MessageBody::Json(value) => value.as_object().is_some_and(Map::is_empty),
            MessageBody::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

impl MessageBody {
    /// Returns true if `marker` stands anywhere in the content.
    pub fn contains(&self, marker: &[u8]) -> bool {
        let is_in =
            |bytes: &[u8]| marker.is_empty() || bytes.windows(marker.len()).any(|window| window == marker);
        match self {
            MessageBody::Json(value) => is_in(value.to_string().as_bytes()),
            MessageBody::Bytes(bytes) => is_in(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intact_message_is_recognised() {
        for &kind in MessageKind::ALL {
            let message = TestMessage::new(kind, "m1");
            let received = ReceivedMessage::from_bytes(&message.bytes());
            assert_eq!(message.compare(&received), Some(Delivery::Intact), "{kind:?}");
            assert_eq!(TestMessage::new(kind, "m2").compare(&received), None);
            if let Some(value) = message.to_json() {
                let received = ReceivedMessage::from_json(value);
                assert_eq!(message.compare(&received), Some(Delivery::Intact), "{kind:?}");
            }
        }
    }

    #[test]
    fn sized_message_has_its_size() {
        for size in [1, 64, 1000] {
            let bytes = TestMessage::with_size(MessageKind::Bytes, size).bytes();
            assert_eq!(bytes.len(), size);
            assert_eq!(ReceivedMessage::from_bytes(&bytes).kind, Some(MessageKind::Bytes));
            let json = TestMessage::with_size(MessageKind::Json, size).bytes();
            assert_eq!(json.len(), size.max(11));
            assert_eq!(ReceivedMessage::from_bytes(&json).kind, Some(MessageKind::Json));
        }
    }

    #[test]
    fn losses_are_detected() {
        let message = TestMessage::new(MessageKind::Offer, "m1");
        let untyped = ReceivedMessage::from_json(message.body());
        assert_eq!(message.compare(&untyped), Some(Delivery::KindLost));
        let mut body = message.body();
        body["list"][1] = json!(-2);
        assert_eq!(message.compare(&ReceivedMessage::from_json(body)), Some(Delivery::Altered));
        let message = TestMessage::new(MessageKind::Bytes, "m1");
        let mut bytes = message.bytes();
        bytes.pop();
        assert_eq!(message.compare(&ReceivedMessage::from_bytes(&bytes)), Some(Delivery::Altered));
    }

    #[test]
    fn wrapped_bytes_are_unwrapped_from_json_only() {
        let message = TestMessage::new(MessageKind::Bytes, "m1");
        let wrapped = json!({"$bytes": BASE64.encode(message.bytes())});
        let received = ReceivedMessage::from_json(wrapped.clone());
        assert_eq!(message.compare(&received), Some(Delivery::Intact));
        let received = ReceivedMessage::from_bytes(wrapped.to_string().as_bytes());
        assert_ne!(message.compare(&received), Some(Delivery::Intact));
    }
}
