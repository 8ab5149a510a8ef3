//! What peers send to one another, and how it is carried between a dialect of JSON and one of bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use bytestring::ByteString;
use serde_json::{Map, Value};

/// What travels over a link.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// A payload.
    Data {
        /// The payload.
        payload: Payload,
        /// The sender sends nothing more over this link.
        last: bool,
    },
    /// The sender sends nothing more over this link.
    End,
    /// The sender gave up on this link.
    Fail {
        /// Whether it no longer listens either (sigver 18).
        both_ways: bool,
    },
    /// A content without anything in it, for which some dialects close the sender if the link is alive.
    Empty,
}

impl Signal {
    /// The length of its payload in bytes.
    pub fn len(&self) -> usize {
        match self {
            Signal::Data { payload, .. } => payload.len(),
            Signal::End | Signal::Fail { .. } | Signal::Empty => 0,
        }
    }

    /// Whether it carries no payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A payload, in the form in which it was sent. It is converted only if its receiver's dialect needs the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Bytes, of the protobuf dialects.
    Bytes(Bytes),
    /// Any JSON value as compact text, of the dialects that send data in an attribute of its own (sigver 6 to 14).
    Json(ByteString),
    /// The attributes of a whole JSON object, of the dialects that have no envelope for data (sigver 5). The text
    /// is the frame as it came, names reserved by the dialect included.
    Attributes {
        /// The frame.
        text: ByteString,
        /// The frame was a binary one.
        binary: bool,
    },
}

/// Names that an attribute-style frame uses itself, and which can therefore not be a payload's own.
const RESERVED: [&str; 4] = ["type", "key", "index", "id"];

/// The name under which bytes that are not JSON travel in a JSON dialect, in base64.
const BYTES: &str = "$bytes";

impl Payload {
    /// Bytes out of a frame of `frame` bytes. They share its memory, unless they are so small a part of it that what
    /// waits for a slow reader would hold far more than it counts for.
    pub fn of_frame(bytes: Bytes, frame: usize) -> Self {
        let shares = bytes.len() >= frame / 2 || frame < 1024;
        Payload::Bytes(if shares { bytes } else { Bytes::copy_from_slice(&bytes) })
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Json(text) => text.len(),
            Payload::Attributes { text, .. } => text.len(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The payload as bytes: bytes as they are, anything else as compact JSON text, except that the JSON form of
    /// bytes becomes those bytes again.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Payload::Bytes(bytes) => bytes,
            Payload::Json(text) if text.contains(BYTES) => {
                bytes_of_value(&serde_json::from_str(&text).unwrap_or_default())
            }
            Payload::Json(text) => text.into_bytes(),
            Payload::Attributes { text, .. } => {
                let value = value_of_attributes(object(&text));
                bytes_of_value(&value)
            }
        }
    }

    /// The payload as the compact text of a JSON value, which it is if it was JSON. Other bytes are an object with one
    /// attribute `$bytes`, in base64.
    pub fn into_json(self) -> ByteString {
        match self {
            Payload::Bytes(bytes) => value_of_bytes(&bytes).to_string().into(),
            Payload::Json(text) => text,
            Payload::Attributes { text, .. } => value_of_attributes(object(&text)).to_string().into(),
        }
    }

    /// The payload as the attributes of a JSON object. Of bytes: their own if they are a JSON object without reserved
    /// names, else one attribute `data`. Of attributes: all of them, whatever their names.
    pub fn into_attributes(self) -> Map<String, Value> {
        match self {
            Payload::Bytes(bytes) => attributes_of_value(value_of_bytes(&bytes)),
            Payload::Json(text) => attributes_of_value(serde_json::from_str(&text).unwrap_or_default()),
            Payload::Attributes { text, .. } => object(&text),
        }
    }
}

/// The object a text holds. A codec makes such payloads only from text that does hold one.
fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

fn value_of_bytes(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| {
        let mut wrapped = Map::new();
        wrapped.insert(BYTES.to_owned(), BASE64.encode(bytes).into());
        wrapped.into()
    })
}

fn bytes_of_value(value: &Value) -> Bytes {
    if let Value::Object(object) = value
        && object.len() == 1
        && let Some(Value::String(text)) = object.get(BYTES)
        && let Ok(bytes) = BASE64.decode(text)
    {
        return bytes.into();
    }
    value.to_string().into()
}

fn attributes_of_value(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object)
            if !is_wrapped(&object) && !RESERVED.iter().any(|name| object.contains_key(*name)) =>
        {
            object
        }
        other => {
            let mut wrapped = Map::new();
            wrapped.insert("data".to_owned(), other);
            wrapped
        }
    }
}

fn value_of_attributes(mut attributes: Map<String, Value>) -> Value {
    attributes.retain(|name, _| !RESERVED.contains(&name.as_str()));
    if is_wrapped(&attributes)
        && let Some(value) = attributes.remove("data")
    {
        return value;
    }
    attributes.into()
}

/// Whether `data` is all there is: then it stands for the payload itself.
fn is_wrapped(object: &Map<String, Value>) -> bool {
    object.len() == 1 && object.contains_key("data")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(text: &str) -> Payload {
        Payload::Attributes { text: text.into(), binary: false }
    }

    fn back_and_forth(bytes: &'static [u8]) -> Bytes {
        let attributes = Payload::Bytes(Bytes::from_static(bytes)).into_attributes();
        let text = Value::Object(attributes).to_string();
        Payload::Attributes { text: text.into(), binary: false }.into_bytes()
    }

    #[test]
    fn bytes_survive_a_json_dialect() {
        for bytes in [
            b"\x12\xff\x00".as_slice(),
            b"",
            b"plain text",
            br#"{"offer":"x"}"#,
            br#"{"data":"x"}"#,
            br#"{"data":{"data":1},"id":7}"#,
            br#"{"type":"offer","sdp":"v=0"}"#,
            b"5",
            b"null",
            br#"[1,{"a":[]}]"#,
        ] {
            assert_eq!(back_and_forth(bytes), bytes, "{bytes:?}");
        }
    }

    #[test]
    fn bytes_survive_data_of_json() {
        for bytes in [b"\x12\xff\x00".as_slice(), b"", b"plain text", br#"{"offer":"x"}"#, b"5", b"null"] {
            let json = Payload::Bytes(Bytes::from_static(bytes)).into_json();
            assert_eq!(Payload::Json(json).into_bytes(), bytes, "{bytes:?}");
        }
    }

    #[test]
    fn data_survives_attributes() {
        for text in [r#"{"offer":{"sdp":"v"}}"#, r#""x""#, r#"{"id":1,"data":2}"#, "[1]"] {
            let attributes = Payload::Json(text.into()).into_attributes();
            let back =
                Payload::Attributes { text: Value::Object(attributes).to_string().into(), binary: false };
            assert_eq!(back.into_json(), text);
        }
    }

    #[test]
    fn a_small_part_of_a_large_frame_does_not_hold_it() {
        let frame = Bytes::from(vec![7; 4096]);
        let held = |part: Bytes| match Payload::of_frame(part, 4096) {
            Payload::Bytes(bytes) => frame.as_ptr_range().contains(&bytes.as_ptr()),
            Payload::Json(_) | Payload::Attributes { .. } => false,
        };
        assert!(held(frame.slice(10..)));
        assert!(!held(frame.slice(10..20)));
    }

    #[test]
    fn a_data_attribute_alone_is_the_payload() {
        assert_eq!(attributes(r#"{"data":"x","index":"0"}"#).into_bytes(), r#""x""#);
        assert_eq!(attributes(r#"{"data":"x","more":1}"#).into_bytes(), r#"{"data":"x","more":1}"#);
        assert_eq!(attributes(r#"{"offer":{"sdp":"v"}}"#).into_bytes(), r#"{"offer":{"sdp":"v"}}"#);
    }

    #[test]
    fn bytes_that_are_not_json_are_wrapped() {
        let attributes = Payload::Bytes(Bytes::from_static(&[0xff])).into_attributes();
        assert_eq!(Value::Object(attributes).to_string(), r#"{"$bytes":"/w=="}"#);
    }
}
