//! Conversions of any payload, by a tree of JSON: the general case, and what [`scan`](super::scan) must agree with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use bytestring::ByteString;
use serde_json::{Map, Value};

use super::{BYTES, Payload, is_reserved};

/// What [`Payload::into_bytes`] returns.
pub(super) fn bytes(payload: Payload) -> Bytes {
    match payload {
        Payload::Bytes(bytes) => bytes,
        Payload::Json(text) if text.contains(BYTES) => {
            bytes_of_value(&serde_json::from_str(&text).unwrap_or_default())
        }
        Payload::Json(text) => text.into_bytes(),
        Payload::ObjectFrame { text, .. } => bytes_of_value(&value_of_attributes(object(&text))),
    }
}

/// What [`Payload::into_json`] returns.
pub(super) fn json(payload: Payload) -> ByteString {
    match payload {
        Payload::Bytes(bytes) => value_of_bytes(&bytes).to_string().into(),
        Payload::Json(text) => text,
        Payload::ObjectFrame { text, .. } => value_of_attributes(object(&text)).to_string().into(),
    }
}

/// What [`Payload::into_attributes`] returns.
pub(super) fn attributes(payload: Payload) -> Map<String, Value> {
    match payload {
        Payload::Bytes(bytes) => attributes_of_value(value_of_bytes(&bytes)),
        Payload::Json(text) => attributes_of_value(serde_json::from_str(&text).unwrap_or_default()),
        Payload::ObjectFrame { text, .. } => object(&text),
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
        Value::Object(object) if !is_wrapped(&object) && !object.keys().any(|name| is_reserved(name)) => {
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
    attributes.retain(|name, _| !is_reserved(name));
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
