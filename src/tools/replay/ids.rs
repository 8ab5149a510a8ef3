//! Server-generated ids: their positions in a frame, a frame without them, and the replacement of one by
//! another.
//!
//! The ids differ in each run, so a comparison must hold for every renaming of them. A server practically
//! never draws a small one, so a number below `SMALL` (the 0 and 1 that stand for "the other side", an
//! index in a list) is literal, and a larger one is server-generated.

use std::collections::HashMap;
use std::ops::Range;

use super::json_members::members;
use super::transcript::{FrameKind, RecordedFrame, to_hex};
use crate::tools::protobuf::{WireField, WireValue, fields, put_bytes, put_number, put_varint};

/// Numbers below this one are literal, not server-generated.
pub(crate) const SMALL: u64 = 1000;

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
    pub(crate) fn keys(self) -> Option<&'static [&'static str]> {
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
    /// A number that is an id even if it is small, because the server counts from 0.
    Index(u64),
    /// A JSON string.
    Text(String),
}

impl Id {
    /// Returns true if a server generated the id, so that it means the same as any other value in its place.
    pub fn is_server_generated(&self) -> bool {
        match self {
            Id::Number(n) => *n >= SMALL,
            Id::Index(_) => true,
            Id::Text(t) => {
                let letters = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                (7..=14).contains(&t.len()) && t.chars().all(letters)
            }
        }
    }

    /// Returns a number as an index; any other id stays as it is.
    pub(super) fn into_index(self) -> Id {
        if let Id::Number(n) = self { Id::Index(n) } else { self }
    }

    /// Returns an index as a number, as it is in a frame; any other id stays as it is.
    pub(super) fn into_number(self) -> Id {
        if let Id::Index(n) = self { Id::Number(n) } else { self }
    }

    /// Returns true if another server may send this id where the recorded one sent a server-generated id. The
    /// number 0 is one in JSON only, where joiners can be counted from it.
    pub(crate) fn is_substitute_for(&self, original: &Id, json: bool) -> bool {
        match (self, original) {
            (Id::Number(n), Id::Number(_)) => json || *n != 0,
            (Id::Index(_), Id::Index(_)) => true,
            (Id::Text(t), Id::Text(_)) => !t.is_empty(),
            _ => false,
        }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Id::Number(n) | Id::Index(n) => write!(f, "{n}"),
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
    pub(crate) fn literal(text: impl Into<String>) -> Self {
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
        (None, Id::Number(_) | Id::Index(_)) => None,
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
mod tests;
