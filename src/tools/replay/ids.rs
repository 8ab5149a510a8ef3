//! Server-generated ids: their positions in a frame, a frame without them, and the replacement of one by
//! another.
//!
//! The ids differ in each run, so a comparison must hold for every renaming of them. A server practically
//! never draws a small one, so a number below [`SMALL`] (the 0 and 1 that stand for "the other side", an
//! index in a list) is literal, and a larger one is server-generated.

use std::collections::HashMap;
use std::ops::Range;

use super::json_members::members;
use super::transcript::{FrameKind, RecordedFrame, to_hex};
use crate::tools::protobuf::{WireField, WireValue, fields, put_bytes, put_number, put_varint};

/// Numbers below this one are literal, not server-generated.
pub const SMALL: u64 = 1000;

/// The positions of ids in the frames of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdLayout {
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
    /// Any of these, each frame by what it is: for conversations in which clients may speak different
    /// dialects.
    Any,
}

/// The attributes of [`IdLayout::Json`] for a room key and for an id, in all but the oldest releases.
const JSON_KEYS: &[&str] = &["key", "joinkey", "open", "join"];
const JSON_IDS: &[&str] = &["id", "index", "unavailable"];

impl IdLayout {
    /// Returns the layout of a release's frames, by its version; [`IdLayout::Any`] if `version` is not a
    /// version.
    pub fn from_version(version: &str) -> IdLayout {
        let Some(major) = version.split('.').next().and_then(|m| m.parse::<u32>().ok()) else {
            return IdLayout::Any;
        };
        match major {
            0..=3 => IdLayout::Json { keys: &["id"], ids: &[] },
            4..=14 => IdLayout::Json { keys: JSON_KEYS, ids: JSON_IDS },
            15..=18 => IdLayout::Protobuf { content: 1, ids: &[1] },
            19 => IdLayout::Protobuf { content: 2, ids: &[1] },
            _ => IdLayout::Protobuf { content: 2, ids: &[1, 2] },
        }
    }

    /// Returns the attributes of a JSON object that hold a room key.
    pub fn keys(self) -> Option<&'static [&'static str]> {
        match self {
            IdLayout::Json { keys, .. } => Some(keys),
            IdLayout::Protobuf { .. } => None,
            IdLayout::Any => Some(JSON_KEYS),
        }
    }

    /// Returns the attributes of a JSON object that hold an id.
    fn attributes(self) -> Option<&'static [&'static str]> {
        match self {
            IdLayout::Json { ids, .. } => Some(ids),
            IdLayout::Protobuf { .. } => None,
            IdLayout::Any => Some(JSON_IDS),
        }
    }

    /// Returns the id fields of the field with this number, if it may be the content of a message. No
    /// release has another message in a field that is the content of another release's.
    fn content(self, number: u64) -> Option<&'static [u64]> {
        match (self, number) {
            (IdLayout::Protobuf { content, ids }, _) if number == content => Some(ids),
            (IdLayout::Any, 1) => Some(&[1]),
            (IdLayout::Any, 2) => Some(&[1, 2]),
            _ => None,
        }
    }

    fn has_protobuf(self) -> bool {
        !matches!(self, IdLayout::Json { .. })
    }
}

/// Returns the text of a frame in which a layout may have JSON attributes: for [`IdLayout::Any`], an
/// object.
fn json_text(layout: IdLayout, payload: &RecordedFrame) -> Option<&str> {
    let text = std::str::from_utf8(&payload.bytes).ok()?;
    let data = matches!(payload.op, FrameKind::Text | FrameKind::Binary);
    (data && (layout != IdLayout::Any || members(text).is_some())).then_some(text)
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
    /// Returns true if a server generated the id, so that it means the same as any other value in its place.
    pub fn is_server_generated(&self) -> bool {
        match self {
            Id::Number(n) => *n >= SMALL,
            Id::Text(t) => {
                let letters = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                (7..=14).contains(&t.len()) && t.chars().all(letters)
            }
        }
    }

    /// Returns true if another server may send this id where the recorded one sent a server-generated id. The
    /// number 0 is one in JSON only, where joiners can be counted from it.
    pub fn is_substitute_for(&self, original: &Id, json: bool) -> bool {
        match (self, original) {
            (Id::Number(n), Id::Number(_)) => json || *n != 0,
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
pub struct MaskedFrame {
    /// The text around the ids. Frames that differ in ids only have equal parts.
    pub parts: Vec<String>,
    /// The ids in order.
    pub ids: Vec<Id>,
}

impl MaskedFrame {
    /// Returns text without any id in it.
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

    /// Returns the text with each id printed by `name`.
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

/// Appends JSON, cut at its ids. Text that is not a JSON object has none.
fn cut(masked: &mut MaskedFrame, text: &str, attributes: &[&str]) {
    let mut done = 0;
    for (place, id) in json_ids(text, attributes).unwrap_or_default() {
        masked.text(&text[done..place.start]);
        masked.push(id);
        done = place.end;
    }
    masked.text(&text[done..]);
}

/// Cuts a frame at its ids.
pub fn mask(layout: IdLayout, payload: &RecordedFrame) -> MaskedFrame {
    let mut masked = MaskedFrame::literal(format!("{} ", payload.op.name()));
    if let (Some(ids), Some(text)) = (layout.attributes(), json_text(layout, payload)) {
        cut(&mut masked, text, ids);
        return masked;
    }
    match (payload.op, std::str::from_utf8(&payload.bytes)) {
        (FrameKind::Binary, _) if layout.has_protobuf() => match mask_content(layout, &payload.bytes) {
            Some(inner) => inner.into_iter().for_each(|piece| match piece {
                MaskPiece::Raw(raw) => masked.text(&to_hex(&raw)),
                MaskPiece::Mark(mark) => masked.text(mark),
                MaskPiece::Id(id) => masked.push(Id::Number(id)),
            }),
            None => masked.text(&to_hex(&payload.bytes)),
        },
        (FrameKind::Text, Ok(text)) => masked.text(text),
        _ => masked.text(&to_hex(&payload.bytes)),
    }
    masked
}

enum MaskPiece {
    Raw(Vec<u8>),
    Mark(&'static str),
    Id(u64),
}

fn id_of(field: &WireField<'_>, ids: &[u64]) -> Option<u64> {
    match field.value {
        WireValue::Varint(id) if ids.contains(&field.number) => Some(id),
        _ => None,
    }
}

fn tag(number: u64, wire_type: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, number << 3 | wire_type);
    out
}

/// Returns the pieces of a protobuf message; `None` if the frame is to be shown as it is, because it is not
/// a message, has no content, or is not encoded the usual way (so that a cut would hide a difference).
fn mask_content(layout: IdLayout, bytes: &[u8]) -> Option<Vec<MaskPiece>> {
    if replace_content(layout, bytes, Some)? != bytes {
        return None;
    }
    let mut pieces = Vec::new();
    for field in fields(bytes)? {
        match (field.value, layout.content(field.number)) {
            (WireValue::Bytes(inner), Some(ids)) => {
                let inner = fields(inner)?;
                if !inner.iter().any(|f| id_of(f, ids).is_some()) {
                    pieces.push(MaskPiece::Raw(field.raw.to_vec()));
                    continue;
                }
                pieces.push(MaskPiece::Raw(tag(field.number, 2)));
                pieces.push(MaskPiece::Mark("{"));
                for field in inner {
                    match id_of(&field, ids) {
                        Some(id) => {
                            pieces.push(MaskPiece::Raw(tag(field.number, 0)));
                            pieces.extend([MaskPiece::Mark(":"), MaskPiece::Id(id), MaskPiece::Mark(";")]);
                        }
                        None => pieces.push(MaskPiece::Raw(field.raw.to_vec())),
                    }
                }
                pieces.push(MaskPiece::Mark("}"));
            }
            _ => pieces.push(MaskPiece::Raw(field.raw.to_vec())),
        }
    }
    Some(pieces)
}

/// Returns the message with every id replaced for which `new` returns another; all other bytes stay.
fn replace_content(layout: IdLayout, bytes: &[u8], new: impl Fn(u64) -> Option<u64>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    for field in fields(bytes)? {
        let inner = match (field.value, layout.content(field.number)) {
            (WireValue::Bytes(inner), Some(ids)) => fields(inner).zip(Some(ids)),
            _ => None,
        };
        let Some((inner, ids)) = inner else {
            out.extend_from_slice(field.raw);
            continue;
        };
        let mut rewritten = Vec::new();
        let mut changed = false;
        for field in inner {
            match id_of(&field, ids).and_then(&new) {
                Some(id) => {
                    put_number(&mut rewritten, field.number, id);
                    changed = true;
                }
                None => rewritten.extend_from_slice(field.raw),
            }
        }
        if changed {
            put_bytes(&mut out, field.number, &rewritten);
        } else {
            out.extend_from_slice(field.raw);
        }
    }
    Some(out)
}

/// Returns the bytes of a recorded frame with the ids of the recorded run replaced by those of this run.
/// Everything else stays byte for byte, and a frame that cannot be parsed stays as it is.
pub fn substitute(layout: IdLayout, payload: &RecordedFrame, live: &HashMap<Id, Id>) -> Vec<u8> {
    let original = || payload.bytes.clone();
    if let (Some(ids), Some(text)) = (layout.attributes(), json_text(layout, payload)) {
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
        return out.into_bytes();
    }
    if payload.op != FrameKind::Binary || !layout.has_protobuf() {
        return original();
    }
    // Small numbers that are mapped are indexes in a list, which only JSON dialects have.
    let new = |id| match live.get(&Id::Number(id)).filter(|_| Id::Number(id).is_server_generated()) {
        Some(Id::Number(n)) if *n != id => Some(*n),
        _ => None,
    };
    replace_content(layout, &payload.bytes, new).unwrap_or_else(original)
}

/// Returns the JSON of the id of this run. Scripts also send a number as a string, to test that the server
/// accepts it.
fn live_text(id: &Id, live: &HashMap<Id, Id>) -> Option<String> {
    let as_number = |text: &str| live.get(&Id::Number(text.parse().ok()?)).map(|new| format!("\"{new}\""));
    match (live.get(id), id) {
        (Some(new), _) => Some(new.to_string()),
        (None, Id::Text(text)) => as_number(text),
        (None, Id::Number(_)) => None,
    }
}

/// Cuts a close reason at the ids in it: `... from the 12345 joining peer`, or a message quoted at its end.
pub fn mask_reason(layout: IdLayout, code: u16, reason: &str) -> MaskedFrame {
    let mut masked = MaskedFrame::literal(format!("close {code} "));
    if let (Some(ids), Some(start)) = (layout.attributes(), reason.find('{')) {
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

    const V18: IdLayout = IdLayout::Protobuf { content: 1, ids: &[1] };

    fn binary(hex: &str) -> RecordedFrame {
        let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
        RecordedFrame::new(FrameKind::Binary, bytes.collect::<Vec<_>>())
    }

    fn numbers(pairs: &[(u64, u64)]) -> HashMap<Id, Id> {
        pairs.iter().map(|(a, b)| (Id::Number(*a), Id::Number(*b))).collect()
    }

    #[test]
    fn layout_follows_version() {
        assert_eq!(IdLayout::from_version("18.0.0"), V18);
        assert_eq!(IdLayout::from_version("19.1.2"), IdLayout::Protobuf { content: 2, ids: &[1] });
        assert_eq!(IdLayout::from_version("20.1.0"), IdLayout::Protobuf { content: 2, ids: &[1, 2] });
        assert!(matches!(IdLayout::from_version("5.0.0"), IdLayout::Json { .. }));
    }

    #[test]
    fn frames_that_differ_in_ids_only_have_equal_parts() {
        let a = mask(V18, &binary("0a0f08f3b89ba60312076f666665722d4a"));
        let b = mask(V18, &binary("0a0b080012076f666665722d4a"));
        assert_eq!(a.parts, b.parts);
        assert_eq!((a.ids[0].clone(), b.ids[0].clone()), (Id::Number(885_447_795), Id::Number(0)));
        assert_eq!(a.render(|_| "#1".into()), "binary 0a{08:#1;12076f666665722d4a}");
        let other = mask(V18, &binary("0a0b080012076f666665722d4b"));
        assert_ne!(other.parts, b.parts);
    }

    #[test]
    fn unusual_encoding_is_not_cut() {
        for hex in ["0a03088000", "0a810008000801", "ffffff", "7f00"] {
            assert_eq!(mask(V18, &binary(hex)), MaskedFrame::literal(format!("binary {hex}")));
        }
    }

    #[test]
    fn substitution_updates_length() {
        let live = numbers(&[(885_447_795, 5)]);
        let sent = substitute(V18, &binary("0a1008f3b89ba6031208616e737765722d4f"), &live);
        assert_eq!(to_hex(&sent), "0a0c08051208616e737765722d4f");
        for unchanged in ["0a0e084d120a77697468206964203737", "0a03088000", "ffffff", "1a02080b"] {
            assert_eq!(to_hex(&substitute(V18, &binary(unchanged), &live)), unchanged);
        }
    }

    #[test]
    fn sigver_20_content_has_two_ids() {
        let layout = IdLayout::from_version("20.1.0");
        let masked = mask(layout, &binary("120a080010c0c40722026869"));
        assert_eq!(masked.ids, [Id::Number(0), Id::Number(123_456)]);
        let sent = substitute(layout, &binary("120a080010c0c40722026869"), &numbers(&[(123_456, 7)]));
        assert_eq!(to_hex(&sent), "12080800100722026869");
    }

    #[test]
    fn json_ids_are_replaced_in_place() {
        let layout = IdLayout::from_version("8.0.2");
        let payload =
            RecordedFrame::new(FrameKind::Text, r#"{ "id" : 123456, "data":{"id":123456,"x":1.50}}"#);
        let sent = substitute(layout, &payload, &numbers(&[(123_456, 99)]));
        assert_eq!(String::from_utf8(sent).unwrap(), r#"{ "id" : 99, "data":{"id":123456,"x":1.50}}"#);
        let masked = mask(layout, &payload);
        assert_eq!(masked.render(|_| "#1".into()), r##"text { "id" : #1, "data":{"id":123456,"x":1.50}}"##);
        let string = RecordedFrame::new(FrameKind::Text, r#"{"id":"123456","data":1}"#);
        assert_eq!(substitute(layout, &string, &numbers(&[(123_456, 99)])), br#"{"id":"99","data":1}"#);
        let text = RecordedFrame::new(FrameKind::Text, r#"{"id":"SkX_9-abc","data":1}"#);
        let map = HashMap::from([(Id::Text("SkX_9-abc".into()), Id::Text("other".into()))]);
        assert_eq!(substitute(IdLayout::from_version("13.1.3"), &text, &map), br#"{"id":"other","data":1}"#);
    }

    #[test]
    fn any_layout_recognises_ids_of_every_release() {
        let ids = |payload: &RecordedFrame| mask(IdLayout::from_version("any"), payload).ids;
        assert_eq!(ids(&binary("0a0f08f3b89ba60312076f666665722d4a")), [Id::Number(885_447_795)]);
        assert_eq!(ids(&binary("120a080010c0c40722026869")), [Id::Number(0), Id::Number(123_456)]);
        assert_eq!(ids(&binary("1001")), [], "a number in the field of a content");
        assert_eq!(ids(&RecordedFrame::new(FrameKind::Text, r#"{"id":123456}"#)), [Id::Number(123_456)]);
        assert_eq!(ids(&RecordedFrame::new(FrameKind::Text, "hello")), []);
        let live = numbers(&[(0, 70_000), (123_456, 7)]);
        let sent = substitute(IdLayout::Any, &binary("120a080010c0c40722026869"), &live);
        assert_eq!(to_hex(&sent), "12080800100722026869", "0 is an index, which only JSON dialects have");
        let sent = substitute(IdLayout::Any, &RecordedFrame::new(FrameKind::Text, r#"{"id":0}"#), &live);
        assert_eq!(sent, br#"{"id":70000}"#);
    }

    #[test]
    fn small_numbers_are_literal() {
        assert!(
            !Id::Number(0).is_server_generated()
                && !Id::Number(77).is_server_generated()
                && Id::Number(70_000).is_server_generated()
        );
        assert!(
            Id::Text("SkX_9-abc".into()).is_server_generated() && !Id::Text("0".into()).is_server_generated()
        );
    }

    #[test]
    fn ids_in_close_reasons_are_masked() {
        let reason = r#"ERR_MESSAGE: Unknown message type "undefined" from the 12345 joining peer"#;
        assert_eq!(mask_reason(V18, 4003, reason).ids, [Id::Number(12345)]);
        assert_eq!(mask_reason(V18, 4001, "4001: The key  is an empty string").ids, []);
        let reason = r#"Unknown JSON attribute: {"id":120321834}"#;
        let masked = mask_reason(IdLayout::from_version("7.6.4"), 4001, reason);
        assert_eq!(masked.render(|_| "#1".into()), r##"close 4001 Unknown JSON attribute: {"id":#1}"##);
        let literal = MaskedFrame::literal("close 4000 Unknown message: {\"foo\":1}");
        assert_eq!(
            mask_reason(IdLayout::from_version("11.0.0"), 4000, r#"Unknown message: {"foo":1}"#),
            literal
        );
    }
}
