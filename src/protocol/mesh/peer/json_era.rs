//! Frames of netflux 0.10 to 1.0: code, sender and recipient in a binary header (big-endian), then JSON or a
//! user message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde_json::Value;

use crate::protocol::mesh::user_message::ChunkedMessage;

/// Length of code, sender and recipient.
const HEADER_LENGTH: usize = 9;
/// Code of a user message.
pub(super) const USER: u8 = 1;
/// Code of a service message.
pub(super) const SERVICE: u8 = 2;

/// A frame without its JSON read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JsonEraFrame {
    pub(super) code: u8,
    pub(super) sender: u32,
    pub(super) recipient: u32,
    pub(super) rest: Bytes,
}

impl JsonEraFrame {
    pub(super) fn read(frame: &Bytes) -> Option<Self> {
        let mut rest = frame.clone();
        if rest.len() < HEADER_LENGTH {
            return None;
        }
        let (code, sender, recipient) = (rest.get_u8(), rest.get_u32(), rest.get_u32());
        Some(JsonEraFrame { code, sender, recipient, rest })
    }

    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.rest).ok()
    }
}

fn with_header(code: u8, sender: u32, recipient: u32, rest: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(rest.len().saturating_add(HEADER_LENGTH));
    frame.put_u8(code);
    frame.put_u32(sender);
    frame.put_u32(recipient);
    frame.put_slice(rest);
    frame.freeze()
}

/// Returns a frame with JSON.
pub(super) fn json_frame(code: u8, sender: u32, recipient: u32, json: &Value) -> Bytes {
    with_header(code, sender, recipient, json.to_string().as_bytes())
}

/// Returns a frame with a user message or part of one.
pub(super) fn user_frame(sender: u32, recipient: u32, message: &ChunkedMessage) -> Bytes {
    with_header(USER, sender, recipient, message)
}

/// Reads the number at a JSON pointer.
pub(super) fn number(json: &Value, pointer: &str) -> Option<u64> {
    json.pointer(pointer)?.as_u64()
}

/// Reads the text at a JSON pointer.
pub(super) fn text<'a>(json: &'a Value, pointer: &str) -> Option<&'a str> {
    json.pointer(pointer)?.as_str()
}

/// Reads the id at a JSON pointer.
pub(super) fn id(json: &Value, pointer: &str) -> Option<u32> {
    u32::try_from(number(json, pointer)?).ok()
}

/// Reads the list of ids at a JSON pointer; `field` is the id's field if the list has objects.
pub(super) fn ids(json: &Value, pointer: &str, field: &str) -> Vec<u32> {
    let list = json.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    list.take(super::MAX_LISTED).filter_map(|entry| id(entry, field)).collect()
}
