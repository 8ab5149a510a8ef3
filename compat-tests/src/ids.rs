//! Ids that the servers make up: where they stand in a frame, how a frame looks without them, and how one is
//! replaced by another.
//!
//! They differ at each run, so a comparison must hold for every renaming of them. No server ever draws a small one
//! by chance worth mentioning, so a number below [`SMALL`] (the 0 and 1 that stand for "the other side", an index in
//! a list) is taken literally, and a larger one is an id that was made up.

use std::collections::HashMap;
use std::ops::Range;

use crate::json::members;
use crate::transcript::{Op, Payload, to_hex};
use crate::wire::{self, Field, Value};

/// Numbers below this one are literal, not made up.
pub const SMALL: u64 = 1000;

/// Where a version puts ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In attributes of a JSON object.
    Json {
        /// The attributes that hold a room key.
        keys: &'static [&'static str],
        /// The attributes that hold an id.
        ids: &'static [&'static str],
    },
    /// In these fields of the message that is the `content` field of a protobuf message.
    Protobuf {
        /// The number of the `content` field.
        content: u64,
        /// The numbers of the id fields in it.
        ids: &'static [u64],
    },
}

impl Layout {
    /// The layout of an original release, by its version.
    pub fn of(version: &str) -> Layout {
        let major = version.split('.').next().and_then(|m| m.parse::<u32>().ok()).unwrap_or(u32::MAX);
        match major {
            0..=3 => Layout::Json { keys: &["id"], ids: &[] },
            4..=14 => Layout::Json {
                keys: &["key", "joinkey", "open", "join"],
                ids: &["id", "index", "unavailable"],
            },
            15..=18 => Layout::Protobuf { content: 1, ids: &[1] },
            19 => Layout::Protobuf { content: 2, ids: &[1] },
            _ => Layout::Protobuf { content: 2, ids: &[1, 2] },
        }
    }
}

/// An id on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Id {
    /// A number.
    Number(u64),
    /// A JSON string.
    Text(String),
}

impl Id {
    /// Whether a server made it up, so that it means the same as any other value in its place.
    pub fn made_up(&self) -> bool {
        match self {
            Id::Number(n) => *n >= SMALL,
            Id::Text(t) => {
                let letters = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                (7..=14).contains(&t.len()) && t.chars().all(letters)
            }
        }
    }

    /// Whether another server may answer with this where an original answered with a made-up id.
    pub fn is_substitute_for(&self, original: &Id) -> bool {
        match (self, original) {
            (Id::Number(n), Id::Number(_)) => *n != 0,
            (Id::Text(t), Id::Text(_)) => !t.is_empty(),
            _ => false,
        }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Id::Number(n) => write!(f, "{n}"),
            Id::Text(t) => write!(f, "{t:?}"),
        }
    }
}

/// A frame or text cut at its ids: `parts` has one element more than `ids`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masked {
    /// What stands around the ids. Two frames that differ in nothing but ids have equal parts.
    pub parts: Vec<String>,
    /// The ids in order.
    pub ids: Vec<Id>,
}

impl Masked {
    /// Text without any id in it.
    pub fn literal(text: impl Into<String>) -> Self {
        Self { parts: vec![text.into()], ids: Vec::new() }
    }

    fn push(&mut self, id: Id) {
        self.ids.push(id);
        self.parts.push(String::new());
    }

    fn text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(last) => last.push_str(text),
            None => self.parts.push(text.to_owned()),
        }
    }

    /// The text with each id printed by `name`.
    pub fn render(&self, mut name: impl FnMut(&Id) -> String) -> String {
        let mut out = String::new();
        for (i, part) in self.parts.iter().enumerate() {
            out.push_str(part);
            if let Some(id) = self.ids.get(i) {
                out.push_str(&name(id));
            }
        }
        out
    }
}

fn json_ids(text: &str, attributes: &[&str]) -> Option<Vec<(Range<usize>, Id)>> {
    let id = |value: &str| match serde_json::from_str(value).ok()? {
        serde_json::Value::Number(n) => n.as_u64().map(Id::Number),
        serde_json::Value::String(s) => Some(Id::Text(s)),
        _ => None,
    };
    let wanted = members(text)?.into_iter().filter(|(name, _)| attributes.contains(&name.as_str()));
    Some(wanted.filter_map(|(_, place)| Some((place.clone(), id(&text[place])?))).collect())
}

/// Appends JSON, cut at its ids. What is no JSON object has none.
fn cut(masked: &mut Masked, text: &str, attributes: &[&str]) {
    let mut done = 0;
    for (place, id) in json_ids(text, attributes).unwrap_or_default() {
        masked.text(&text[done..place.start]);
        masked.push(id);
        done = place.end;
    }
    masked.text(&text[done..]);
}

/// Cuts a frame at its ids.
pub fn mask(layout: Layout, payload: &Payload) -> Masked {
    let mut masked = Masked::literal(format!("{} ", payload.op.name()));
    let text = std::str::from_utf8(&payload.bytes).ok();
    match (layout, payload.op, text) {
        (Layout::Json { ids, .. }, Op::Text | Op::Binary, Some(text)) => {
            cut(&mut masked, text, ids);
        }
        (Layout::Protobuf { content, ids }, Op::Binary, _) => {
            match mask_content(content, ids, &payload.bytes) {
                Some(inner) => inner.into_iter().for_each(|piece| match piece {
                    Piece::Raw(raw) => masked.text(&to_hex(&raw)),
                    Piece::Mark(mark) => masked.text(mark),
                    Piece::Id(id) => masked.push(Id::Number(id)),
                }),
                None => masked.text(&to_hex(&payload.bytes)),
            }
        }
        (_, Op::Text, Some(text)) => masked.text(text),
        _ => masked.text(&to_hex(&payload.bytes)),
    }
    masked
}

enum Piece {
    Raw(Vec<u8>),
    Mark(&'static str),
    Id(u64),
}

fn id_of(field: &Field<'_>, ids: &[u64]) -> Option<u64> {
    match field.value {
        Value::Varint(id) if ids.contains(&field.number) => Some(id),
        _ => None,
    }
}

fn tag(number: u64, wire_type: u64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_varint(&mut out, number << 3 | wire_type);
    out
}

/// `None`: show the frame as it is, because it is no message, has no content, or is not encoded the usual way (so
/// that cutting it would hide a difference).
fn mask_content(content: u64, ids: &[u64], bytes: &[u8]) -> Option<Vec<Piece>> {
    if replace_content(content, ids, bytes, Some)? != bytes {
        return None;
    }
    let mut pieces = Vec::new();
    for field in wire::fields(bytes)? {
        match field.value {
            Value::Bytes(inner) if field.number == content => {
                let inner = wire::fields(inner)?;
                if !inner.iter().any(|f| id_of(f, ids).is_some()) {
                    pieces.push(Piece::Raw(field.raw.to_vec()));
                    continue;
                }
                pieces.push(Piece::Raw(tag(field.number, 2)));
                pieces.push(Piece::Mark("{"));
                for field in inner {
                    match id_of(&field, ids) {
                        Some(id) => {
                            pieces.push(Piece::Raw(tag(field.number, 0)));
                            pieces.extend([Piece::Mark(":"), Piece::Id(id), Piece::Mark(";")]);
                        }
                        None => pieces.push(Piece::Raw(field.raw.to_vec())),
                    }
                }
                pieces.push(Piece::Mark("}"));
            }
            _ => pieces.push(Piece::Raw(field.raw.to_vec())),
        }
    }
    Some(pieces)
}

/// The message with every id for which `new` has an answer written anew; all other bytes stay.
fn replace_content(
    content: u64,
    ids: &[u64],
    bytes: &[u8],
    new: impl Fn(u64) -> Option<u64>,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    for field in wire::fields(bytes)? {
        let inner = match field.value {
            Value::Bytes(inner) if field.number == content => wire::fields(inner),
            _ => None,
        };
        let Some(inner) = inner else {
            out.extend_from_slice(field.raw);
            continue;
        };
        let mut rewritten = Vec::new();
        let mut changed = false;
        for field in inner {
            match id_of(&field, ids).and_then(&new) {
                Some(id) => {
                    wire::put_number(&mut rewritten, field.number, id);
                    changed = true;
                }
                None => rewritten.extend_from_slice(field.raw),
            }
        }
        if changed {
            wire::put_bytes(&mut out, content, &rewritten);
        } else {
            out.extend_from_slice(field.raw);
        }
    }
    Some(out)
}

/// The bytes of a recorded frame with the ids of the recorded run replaced by those of this run. Everything else
/// stays byte for byte, and a frame that cannot be understood stays as it is.
pub fn substitute(layout: Layout, payload: &Payload, live: &HashMap<Id, Id>) -> Vec<u8> {
    let original = || payload.bytes.clone();
    match (layout, payload.op) {
        (Layout::Protobuf { content, ids }, Op::Binary) => {
            let new = |id| match live.get(&Id::Number(id)) {
                Some(Id::Number(n)) if *n != id => Some(*n),
                _ => None,
            };
            replace_content(content, ids, &payload.bytes, new).unwrap_or_else(original)
        }
        (Layout::Json { ids, .. }, Op::Text | Op::Binary) => {
            let Ok(text) = std::str::from_utf8(&payload.bytes) else {
                return original();
            };
            let mut out = String::new();
            let mut done = 0;
            for (place, id) in json_ids(text, ids).unwrap_or_default() {
                if let Some(new) = live_text(&id, live) {
                    out.push_str(&text[done..place.start]);
                    out.push_str(&new);
                    done = place.end;
                }
            }
            out.push_str(&text[done..]);
            out.into_bytes()
        }
        _ => original(),
    }
}

/// The JSON for the id of this run. Scripts also send a number as a string, to see whether that is understood.
fn live_text(id: &Id, live: &HashMap<Id, Id>) -> Option<String> {
    let as_number = |text: &str| live.get(&Id::Number(text.parse().ok()?)).map(|new| format!("\"{new}\""));
    match (live.get(id), id) {
        (Some(new), _) => Some(new.to_string()),
        (None, Id::Text(text)) => as_number(text),
        (None, Id::Number(_)) => None,
    }
}

/// Cuts a close reason at the ids in it: `... from the 12345 joining peer`, or a message quoted at its end.
pub fn mask_reason(layout: Layout, code: u16, reason: &str) -> Masked {
    let mut masked = Masked::literal(format!("close {code} "));
    if let (Layout::Json { ids, .. }, Some(start)) = (layout, reason.find('{')) {
        masked.text(&reason[..start]);
        cut(&mut masked, &reason[start..], ids);
        return masked;
    }
    let (before, after) = ("from the ", " joining peer");
    let digits = reason.find(before).and_then(|at| {
        let start = at + before.len();
        let len = reason[start..].find(after)?;
        Some((start..start + len, reason[start..start + len].parse::<u64>().ok()?))
    });
    match digits {
        Some((place, id)) => {
            masked.text(&reason[..place.start]);
            masked.push(Id::Number(id));
            masked.text(&reason[place.end..]);
        }
        None => masked.text(reason),
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    const V18: Layout = Layout::Protobuf { content: 1, ids: &[1] };

    fn binary(hex: &str) -> Payload {
        let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
        Payload::new(Op::Binary, bytes.collect::<Vec<_>>())
    }

    fn numbers(pairs: &[(u64, u64)]) -> HashMap<Id, Id> {
        pairs.iter().map(|(a, b)| (Id::Number(*a), Id::Number(*b))).collect()
    }

    #[test]
    fn layouts_follow_the_generations() {
        assert_eq!(Layout::of("18.0.0"), V18);
        assert_eq!(Layout::of("19.1.2"), Layout::Protobuf { content: 2, ids: &[1] });
        assert_eq!(Layout::of("20.1.0"), Layout::Protobuf { content: 2, ids: &[1, 2] });
        assert!(matches!(Layout::of("5.0.0"), Layout::Json { .. }));
    }

    #[test]
    fn frames_that_differ_in_ids_have_equal_parts() {
        let a = mask(V18, &binary("0a0f08f3b89ba60312076f666665722d4a"));
        let b = mask(V18, &binary("0a0b080012076f666665722d4a"));
        assert_eq!(a.parts, b.parts);
        assert_eq!((a.ids[0].clone(), b.ids[0].clone()), (Id::Number(885_447_795), Id::Number(0)));
        assert_eq!(a.render(|_| "#1".into()), "binary 0a{08:#1;12076f666665722d4a}");
        let other = mask(V18, &binary("0a0b080012076f666665722d4b"));
        assert_ne!(other.parts, b.parts);
    }

    #[test]
    fn unusual_encodings_are_shown_as_they_are() {
        for hex in ["0a03088000", "0a810008000801", "ffffff", "7f00"] {
            assert_eq!(mask(V18, &binary(hex)), Masked::literal(format!("binary {hex}")));
        }
    }

    #[test]
    fn ids_are_replaced_and_the_length_with_them() {
        let live = numbers(&[(885_447_795, 5)]);
        let sent = substitute(V18, &binary("0a1008f3b89ba6031208616e737765722d4f"), &live);
        assert_eq!(to_hex(&sent), "0a0c08051208616e737765722d4f");
        for unchanged in ["0a0e084d120a77697468206964203737", "0a03088000", "ffffff", "1a02080b"] {
            assert_eq!(to_hex(&substitute(V18, &binary(unchanged), &live)), unchanged);
        }
    }

    #[test]
    fn version_20_has_two_ids() {
        let layout = Layout::of("20.1.0");
        let masked = mask(layout, &binary("120a080010c0c40722026869"));
        assert_eq!(masked.ids, [Id::Number(0), Id::Number(123_456)]);
        let sent = substitute(layout, &binary("120a080010c0c40722026869"), &numbers(&[(123_456, 7)]));
        assert_eq!(to_hex(&sent), "12080800100722026869");
    }

    #[test]
    fn json_ids_are_replaced_in_place() {
        let layout = Layout::of("8.0.2");
        let payload = Payload::new(Op::Text, r#"{ "id" : 123456, "data":{"id":123456,"x":1.50}}"#);
        let sent = substitute(layout, &payload, &numbers(&[(123_456, 99)]));
        assert_eq!(String::from_utf8(sent).unwrap(), r#"{ "id" : 99, "data":{"id":123456,"x":1.50}}"#);
        let masked = mask(layout, &payload);
        assert_eq!(masked.render(|_| "#1".into()), r##"text { "id" : #1, "data":{"id":123456,"x":1.50}}"##);
        let string = Payload::new(Op::Text, r#"{"id":"123456","data":1}"#);
        assert_eq!(substitute(layout, &string, &numbers(&[(123_456, 99)])), br#"{"id":"99","data":1}"#);
        let text = Payload::new(Op::Text, r#"{"id":"SkX_9-abc","data":1}"#);
        let map = HashMap::from([(Id::Text("SkX_9-abc".into()), Id::Text("other".into()))]);
        assert_eq!(substitute(Layout::of("13.1.3"), &text, &map), br#"{"id":"other","data":1}"#);
    }

    #[test]
    fn small_numbers_are_literal() {
        assert!(!Id::Number(0).made_up() && !Id::Number(77).made_up() && Id::Number(70_000).made_up());
        assert!(Id::Text("SkX_9-abc".into()).made_up() && !Id::Text("0".into()).made_up());
    }

    #[test]
    fn ids_in_reasons_are_found() {
        let reason = r#"ERR_MESSAGE: Unknown message type "undefined" from the 12345 joining peer"#;
        assert_eq!(mask_reason(V18, 4003, reason).ids, [Id::Number(12345)]);
        assert_eq!(mask_reason(V18, 4001, "4001: The key  is an empty string").ids, []);
        let reason = r#"Unknown JSON attribute: {"id":120321834}"#;
        let masked = mask_reason(Layout::of("7.6.4"), 4001, reason);
        assert_eq!(masked.render(|_| "#1".into()), r##"close 4001 Unknown JSON attribute: {"id":#1}"##);
        let literal = Masked::literal("close 4000 Unknown message: {\"foo\":1}");
        assert_eq!(mask_reason(Layout::of("11.0.0"), 4000, r#"Unknown message: {"foo":1}"#), literal);
    }
}
