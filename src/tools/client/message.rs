//! What the clients send one another: each thing has a mark of its own, so that it is known again wherever and in
//! whatever form it arrives. How a dialect frames it is in `client`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

/// What kind of thing is sent. The first three are called like what negotiates a connection, for dialects that have
/// words for nothing else; what is in them is an application's own all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    /// Called an offer.
    Offer,
    /// Called an answer.
    Answer,
    /// Called a candidate.
    Candidate,
    /// Any JSON value.
    Json,
    /// Bytes that are no JSON.
    Bytes,
}

/// One thing to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestMessage {
    /// What kind of thing.
    pub shape: MessageKind,
    mark: String,
    filled: bool,
}

/// What a client made of something that came.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedMessage {
    /// What kind of thing it is, if that is told.
    pub shape: Option<MessageKind>,
    /// What is in it.
    pub body: Body,
}

/// What is in a thing that came.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A JSON value.
    Json(Value),
    /// Bytes that are no JSON.
    Bytes(Vec<u8>),
}

/// How a parcel came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// As it was sent.
    Intact,
    /// All of it, but not what kind of thing it is.
    Untyped,
    /// Not all of it, or something else.
    Altered,
    /// Not at all.
    Lost,
}

/// The name under which bytes travel in JSON, in base64.
const BYTES: &str = "$bytes";

/// What keeps bytes from being JSON.
const BYTES_AT_LEAST: usize = 1;

impl MessageKind {
    /// All of them.
    pub const ALL: [MessageKind; 5] = [
        MessageKind::Offer,
        MessageKind::Answer,
        MessageKind::Candidate,
        MessageKind::Json,
        MessageKind::Bytes,
    ];

    /// Its name: for the first three, the attribute that carries it.
    pub const fn name(self) -> &'static str {
        match self {
            MessageKind::Offer => "offer",
            MessageKind::Answer => "answer",
            MessageKind::Candidate => "candidate",
            MessageKind::Json => "json",
            MessageKind::Bytes => "bytes",
        }
    }

    fn of_attribute(name: &str) -> Option<MessageKind> {
        [MessageKind::Offer, MessageKind::Answer, MessageKind::Candidate]
            .into_iter()
            .find(|shape| shape.name() == name)
    }
}

impl TestMessage {
    /// A thing of this kind. Nothing else may have this mark.
    pub fn new(shape: MessageKind, mark: &str) -> Self {
        TestMessage { shape, mark: mark.to_owned(), filled: false }
    }

    /// A thing of this kind of which nothing counts but its size: so many bytes, or a JSON value with a text of so many,
    /// but for what each needs at least.
    pub fn of_size(shape: MessageKind, size: usize) -> Self {
        let length = match shape {
            MessageKind::Bytes => size.saturating_sub(BYTES_AT_LEAST),
            _ => size.saturating_sub(json!({"note": ""}).to_string().len()),
        };
        TestMessage { shape, mark: "7".repeat(length), filled: true }
    }

    /// What is in it: a JSON value with much that could get lost on the way. Of bytes, see [`bytes`](Self::bytes).
    pub fn body(&self) -> Value {
        if self.filled {
            return json!({"note": self.mark});
        }
        // Lengths beyond 127 take two bytes in protobuf; real offers have several hundred bytes.
        let long = if self.shape == MessageKind::Offer { "v=0\r\n".repeat(80) } else { String::new() };
        json!({
            "note": self.mark,
            "list": [1, -2.5, true, null, "", {"deep": "\u{e9}\u{1f600} \"quoted\" \\ \u{1}"}],
            "long": long,
        })
    }

    /// As a value of JSON, if it is one.
    pub fn value(&self) -> Option<Value> {
        match self.shape {
            MessageKind::Offer | MessageKind::Answer | MessageKind::Candidate => {
                let mut object = Map::new();
                object.insert(self.shape.name().to_owned(), self.body());
                Some(object.into())
            }
            MessageKind::Json => Some(self.body()),
            MessageKind::Bytes => None,
        }
    }

    /// As bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self.value() {
            Some(value) => value.to_string().into_bytes(),
            None if self.filled => [b"\xff".as_slice(), self.mark.as_bytes()].concat(),
            None => [b"\xff\x00\xfe".as_slice(), self.mark.as_bytes(), b"\x80\x00\x0a"].concat(),
        }
    }

    /// How it came, if this is it.
    pub fn judge(&self, got: &ReceivedMessage) -> Option<Delivery> {
        if !got.body.mentions(&self.mark) {
            return None;
        }
        Some(match &got.body {
            Body::Bytes(bytes) if self.shape == MessageKind::Bytes && *bytes == self.bytes() => {
                Delivery::Intact
            }
            Body::Json(value) if self.shape != MessageKind::Bytes && *value == self.body() => {
                if got.shape == Some(self.shape) { Delivery::Intact } else { Delivery::Untyped }
            }
            Body::Bytes(_) | Body::Json(_) => Delivery::Altered,
        })
    }
}

impl ReceivedMessage {
    /// A value of JSON: an offer, an answer or a candidate is an object with one attribute of that name.
    pub fn of_value(value: Value) -> Self {
        if let Value::Object(object) = &value
            && object.len() == 1
            && let Some((name, inner)) = object.iter().next()
        {
            if let Some(shape) = MessageKind::of_attribute(name) {
                return ReceivedMessage { shape: Some(shape), body: Body::Json(inner.clone()) };
            }
            // How a gateway shows bytes to those who have no words for them.
            if let (BYTES, Value::String(text)) = (name.as_str(), inner)
                && let Ok(bytes) = BASE64.decode(text)
            {
                return ReceivedMessage::of_bytes(&bytes);
            }
        }
        ReceivedMessage { shape: Some(MessageKind::Json), body: Body::Json(value) }
    }

    /// Bytes, which may be the text of a JSON value.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(bytes) {
            Ok(value) if !is_wrapped(&value) => ReceivedMessage::of_value(value),
            _ => ReceivedMessage { shape: Some(MessageKind::Bytes), body: Body::Bytes(bytes.to_vec()) },
        }
    }

    /// Whether there is anything in it.
    pub fn is_empty(&self) -> bool {
        match &self.body {
            Body::Json(value) => value.as_object().is_some_and(Map::is_empty),
            Body::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

/// Only JSON dialects need bytes to be wrapped: who can send them as they are must not get them so.
fn is_wrapped(value: &Value) -> bool {
    value.get(BYTES).is_some()
}

impl Body {
    fn mentions(&self, mark: &str) -> bool {
        match self {
            Body::Json(value) => value.to_string().contains(mark),
            Body::Bytes(bytes) => bytes.windows(mark.len()).any(|window| window == mark.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parcel_is_known_again() {
        for shape in MessageKind::ALL {
            let parcel = TestMessage::new(shape, "m1");
            assert_eq!(
                parcel.judge(&ReceivedMessage::of_bytes(&parcel.bytes())),
                Some(Delivery::Intact),
                "{shape:?}"
            );
            assert_eq!(
                TestMessage::new(shape, "m2").judge(&ReceivedMessage::of_bytes(&parcel.bytes())),
                None
            );
            if let Some(value) = parcel.value() {
                assert_eq!(
                    parcel.judge(&ReceivedMessage::of_value(value)),
                    Some(Delivery::Intact),
                    "{shape:?}"
                );
            }
        }
    }

    #[test]
    fn a_parcel_of_a_size_has_it() {
        for size in [1, 64, 1000] {
            let bytes = TestMessage::of_size(MessageKind::Bytes, size).bytes();
            assert_eq!(bytes.len(), size);
            assert_eq!(ReceivedMessage::of_bytes(&bytes).shape, Some(MessageKind::Bytes));
            let json = TestMessage::of_size(MessageKind::Json, size).bytes();
            assert_eq!(json.len(), size.max(11));
            assert_eq!(ReceivedMessage::of_bytes(&json).shape, Some(MessageKind::Json));
        }
    }

    #[test]
    fn what_is_lost_of_it_is_noticed() {
        let parcel = TestMessage::new(MessageKind::Offer, "m1");
        let untyped = ReceivedMessage::of_value(parcel.body());
        assert_eq!(parcel.judge(&untyped), Some(Delivery::Untyped));
        let mut body = parcel.body();
        body["list"][1] = json!(-2);
        assert_eq!(parcel.judge(&ReceivedMessage::of_value(body)), Some(Delivery::Altered));
        let mut bytes = TestMessage::new(MessageKind::Bytes, "m1").bytes();
        bytes.pop();
        assert_eq!(
            TestMessage::new(MessageKind::Bytes, "m1").judge(&ReceivedMessage::of_bytes(&bytes)),
            Some(Delivery::Altered)
        );
    }

    #[test]
    fn bytes_wrapped_in_json_are_bytes_again_but_not_where_bytes_can_be_sent() {
        let parcel = TestMessage::new(MessageKind::Bytes, "m1");
        let wrapped = json!({"$bytes": BASE64.encode(parcel.bytes())});
        assert_eq!(parcel.judge(&ReceivedMessage::of_value(wrapped.clone())), Some(Delivery::Intact));
        let got = ReceivedMessage::of_bytes(wrapped.to_string().as_bytes());
        assert_ne!(parcel.judge(&got), Some(Delivery::Intact));
    }
}
