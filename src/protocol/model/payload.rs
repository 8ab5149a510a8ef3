//! What peers send to one another, and how it is carried between a dialect of JSON and one of bytes. What a conversion
//! comes to is in [`tree`], and how most of them are done in [`scan`].

mod fast;
mod general;

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::{Map, Value};

/// What travels over a link.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkMessage {
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
    Error {
        /// Whether it no longer listens either (sigver 18).
        closes_both: bool,
    },
    /// A content without anything in it, for which some dialects close the sender if the link is alive.
    Empty,
}

impl LinkMessage {
    /// The length of its payload in bytes.
    pub fn len(&self) -> usize {
        match self {
            LinkMessage::Data { payload, .. } => payload.len(),
            LinkMessage::End | LinkMessage::Error { .. } | LinkMessage::Empty => 0,
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
    ObjectFrame {
        /// The frame.
        text: ByteString,
        /// The frame was a binary one.
        binary: bool,
    },
}

/// The name under which bytes that are not JSON travel in a JSON dialect, in base64.
pub(super) const BYTES: &str = "$bytes";

impl Payload {
    /// Bytes out of a frame of `frame` bytes. They share its memory, unless they are a small part of it.
    pub fn from_frame(bytes: Bytes, frame: usize) -> Self {
        Payload::Bytes(if should_share_buffer(bytes.len(), frame) {
            bytes
        } else {
            Bytes::copy_from_slice(&bytes)
        })
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Json(text) => text.len(),
            Payload::ObjectFrame { text, .. } => text.len(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The payload as bytes: bytes as they are, anything else as compact JSON text, except that the JSON form of
    /// bytes becomes those bytes again.
    pub fn into_bytes(self) -> Bytes {
        fast::bytes(self).unwrap_or_else(general::bytes)
    }

    /// The payload as the compact text of a JSON value, which it is if it was JSON. Other bytes are an object with one
    /// attribute `$bytes`, in base64.
    pub fn into_json(self) -> ByteString {
        fast::json(self).unwrap_or_else(general::json)
    }

    /// The payload as the attributes of a JSON object. Of bytes: their own if they are a JSON object without reserved
    /// names, else one attribute `data`. Of attributes: all of them, whatever their names.
    pub fn into_attributes(self) -> Map<String, Value> {
        general::attributes(self)
    }

    /// The text of [`into_attributes`](Self::into_attributes), without a tree, of a payload that was no attributes; it
    /// has no name that is reserved.
    ///
    /// # Errors
    /// A tree is needed; the payload is given back.
    pub fn into_attributes_text(self) -> Result<ByteString, Self> {
        fast::attributes(self)
    }
}

/// Whether a part of so many bytes may share the memory of the whole. If it is small, what waits for a slow reader would
/// hold far more than it counts for.
pub(super) fn should_share_buffer(part: usize, whole: usize) -> bool {
    part >= whole / 2 || whole < 1024
}

/// Whether an attribute of this name is an attribute-style frame's own, and cannot be a payload's.
fn is_reserved(name: &str) -> bool {
    matches!(name, "type" | "key" | "index" | "id")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::model::test_json;

    /// Payloads of all forms, of texts of all kinds, and of bytes that are none.
    fn payload() -> impl Strategy<Value = Payload> {
        let base64 = || {
            prop_oneof![
                3 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| {
                    general::json(Payload::Bytes([&[0xff], &bytes[..]].concat().into())).to_string()
                }),
                1 => prop::sample::select(
                    &[
                        r#"{"$bytes":""}"#,
                        r#"{"$bytes":"/w"}"#,
                        r#"{"$bytes":"_w=="}"#,
                        r#"{"$bytes":"\/w=="}"#,
                        r#"{"$bytes":"/w==\n"}"#,
                        r#"{"$bytes":"/w==" }"#,
                        r#"{"$bytes":"/w==","$bytes":"AA=="}"#,
                        r#"{"$bytes":"/w==","a":"AA=="}"#,
                        r#"{"$bytes":["/w=="]}"#,
                        r#"{"a":{"$bytes":"/w=="}}"#,
                        r#"["$bytes",1.0]"#,
                    ][..],
                )
                .prop_map(str::to_owned),
            ]
        };
        let attributes = |object: String| {
            let rest = object.strip_prefix('{').unwrap_or_default().to_owned();
            prop::sample::select(
                &["", "{\"index\":\"0\",", "{\"id\":7,\"type\":\"x\",", "{\"key\":{},", "{ \"index\":0,"][..],
            )
            .prop_map(move |before| {
                if before.is_empty() { format!("{{{rest}") } else { format!("{before}{rest}") }
            })
        };
        let text = prop_oneof![
            4 => test_json::sent(),
            2 => base64(),
            1 => base64().prop_map(|object| format!("{{\"data\":{object}}}")),
            1 => (base64(), prop::sample::select(&["0", "\"0\"", "[ ]"][..]))
                .prop_map(|(object, index)| format!("{{\"data\":{object},\"index\":{index}}}")),
            1 => base64().prop_flat_map(attributes),
            1 => test_json::sent().prop_flat_map(attributes),
            1 => test_json::simple().prop_flat_map(attributes),
        ];
        prop_oneof![
            2 => text.clone().prop_map(|text| Payload::Bytes(text.into())),
            1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Payload::Bytes(bytes.into())),
            1 => ("[ \t\n\r\"{0-9tfn\\[-]", prop::collection::vec(any::<u8>(), 0..6))
                .prop_map(|(first, rest)| Payload::Bytes([first.as_bytes(), &rest].concat().into())),
            2 => text.clone().prop_map(|text| Payload::Json(text.into())),
            2 => (text, any::<bool>()).prop_map(|(text, binary)| Payload::ObjectFrame { text: text.into(), binary }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Looked over or read into a tree: the same comes of it, byte for byte.
        #[test]
        fn what_is_looked_over_is_what_the_tree_comes_to(payload in payload()) {
            match fast::bytes(payload.clone()) {
                Ok(bytes) => prop_assert_eq!(bytes, general::bytes(payload.clone())),
                Err(back) => prop_assert_eq!(&back, &payload),
            }
            match fast::json(payload.clone()) {
                Ok(json) => prop_assert_eq!(json, general::json(payload.clone())),
                Err(back) => prop_assert_eq!(&back, &payload),
            }
            match fast::attributes(payload.clone()) {
                Ok(text) => {
                    let tree = general::attributes(payload.clone());
                    prop_assert!(!tree.keys().any(|name| is_reserved(name)));
                    prop_assert_eq!(&text[..], Value::Object(tree).to_string());
                }
                Err(back) => prop_assert_eq!(&back, &payload),
            }
        }
    }

    /// What clients send takes no tree: a content of JSON, one of bytes, and bytes on their way back.
    #[test]
    fn what_clients_send_is_looked_over() {
        let bytes = |text: &'static str| Payload::Bytes(Bytes::from_static(text.as_bytes()));
        let json = |text: &str| Payload::Json(text.into());
        for (text, json_text, back) in [
            (r#"{"note":"77"}"#, r#"{"note":"77"}"#, r#"{"index":"0","note":"77"}"#),
            (r#"{"note":"77"}"#, r#"{"note":"77"}"#, r#"{"note":"77","index":"0"}"#),
            (r#"{"note":"77"}"#, r#"{"note":"77"}"#, r#"{"note":"77"}"#),
            (r#"{"id":"77"}"#, r#"{"id":"77"}"#, r#"{"index":"0","data":{"id":"77"}}"#),
            ("[1]", "[1]", r#"{"index":"0","data":[1]}"#),
            ("{}", "{}", r#"{"index":"0"}"#),
            ("\u{8}\u{1}", r#"{"$bytes":"CAE="}"#, r#"{"index":"0","$bytes":"CAE="}"#),
            ("\u{8}\u{1}", r#"{"$bytes":"CAE="}"#, r#"{"data":{"$bytes":"CAE="}}"#),
        ] {
            assert_eq!(fast::json(bytes(text)).unwrap(), json_text);
            assert_eq!(fast::bytes(json(json_text)).unwrap(), text);
            assert_eq!(fast::bytes(attributes(back)).unwrap(), text);
            assert_eq!(fast::json(attributes(back)).unwrap(), json_text);
            assert!(fast::attributes(bytes(text)).is_ok() && fast::attributes(json(json_text)).is_ok());
        }
    }

    fn attributes(text: &str) -> Payload {
        Payload::ObjectFrame { text: text.into(), binary: false }
    }

    fn back_and_forth(bytes: &'static [u8]) -> Bytes {
        let attributes = Payload::Bytes(Bytes::from_static(bytes)).into_attributes();
        let text = Value::Object(attributes).to_string();
        Payload::ObjectFrame { text: text.into(), binary: false }.into_bytes()
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
                Payload::ObjectFrame { text: Value::Object(attributes).to_string().into(), binary: false };
            assert_eq!(back.into_json(), text);
        }
    }

    #[test]
    fn a_small_part_of_a_large_frame_does_not_hold_it() {
        let frame = Bytes::from(vec![7; 4096]);
        let held = |part: Bytes| match Payload::from_frame(part, 4096) {
            Payload::Bytes(bytes) => frame.as_ptr_range().contains(&bytes.as_ptr()),
            Payload::Json(_) | Payload::ObjectFrame { .. } => false,
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
