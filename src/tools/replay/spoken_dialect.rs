//! The dialect that a recorded client speaks, and descriptions of its binary messages: `connected{true}`.
//!
//! A recording need not name a release. The frames of a connection show its family at once, and the dialect
//! as far as a reader needs it. Nothing here uses the gateway's codecs.

use std::fmt::Write as _;

use super::json_members::members;
use super::transcript::{FrameKind, RecordedFrame, to_hex};
use crate::tools::protobuf::{WireField, WireValue, fields};

/// The dialect of a recorded client, as far as its frames show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SpokenDialect {
    /// No frame shows it.
    #[default]
    Unknown,
    /// JSON, as this release and those like it.
    Json(&'static str),
    /// sigver 15 to 18.
    V1,
    /// sigver 15.0.
    Sigver15,
    /// sigver 16 and 17.
    Sigver16,
    /// sigver 18.
    Sigver18,
    /// sigver 19 to 21.
    V2,
    /// sigver 19.
    Sigver19,
    /// sigver 20 and 21.
    Sigver20,
}

impl SpokenDialect {
    /// Returns the dialect of a release; [`SpokenDialect::Unknown`] if `version` is not the version of one
    /// with binary messages.
    pub(crate) fn from_version(version: &str) -> SpokenDialect {
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(15), Some(0)) => SpokenDialect::Sigver15,
            (Some(15), _) => SpokenDialect::V1,
            (Some(16 | 17), _) => SpokenDialect::Sigver16,
            (Some(18), _) => SpokenDialect::Sigver18,
            (Some(19), _) => SpokenDialect::Sigver19,
            (Some(20 | 21), _) => SpokenDialect::Sigver20,
            _ => SpokenDialect::Unknown,
        }
    }

    /// Takes the next frame of the connection into account; `sent` is true for one of the client.
    pub(crate) fn observe(&mut self, sent: bool, frame: &RecordedFrame) {
        *self = match frame.op {
            FrameKind::Text => std::str::from_utf8(&frame.bytes)
                .ok()
                .and_then(|text| self.after_json(sent, text))
                .unwrap_or(*self),
            FrameKind::Binary => self.after_message(sent, &frame.bytes).unwrap_or(*self),
            FrameKind::Ping | FrameKind::Pong => *self,
        };
    }

    fn after_json(self, sent: bool, text: &str) -> Option<SpokenDialect> {
        let members = members(text)?;
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        let release = match (self, sent, names.as_slice()) {
            (SpokenDialect::Unknown, true, ["joinkey"]) => "6.0.0",
            (SpokenDialect::Unknown, true, ["join", "data"]) => "7.1.0",
            (SpokenDialect::Unknown, true, ["open"]) => "8.1.0",
            // Only an opener of 7.0 or 7.1 receives this first.
            (SpokenDialect::Unknown, false, ["id", "data"]) => "7.1.0",
            (SpokenDialect::Unknown, false, ["isKeyOk"]) => "7.6.4",
            (SpokenDialect::Unknown | SpokenDialect::Json("8.1.0"), false, ["opened"]) => "10.1.0",
            (SpokenDialect::Unknown | SpokenDialect::Json("8.1.0"), false, ["first"]) => "11.0.0",
            _ => return None,
        };
        Some(SpokenDialect::Json(release))
    }

    fn after_message(self, sent: bool, bytes: &[u8]) -> Option<SpokenDialect> {
        let field = *fields(bytes)?.first()?;
        let family = match (sent, field.number, field.value) {
            (true, 1, WireValue::Varint(_)) | (true, 2 | 3, WireValue::Bytes(_)) => SpokenDialect::V2,
            (_, 1, WireValue::Bytes(_)) | (false, 2, WireValue::Varint(_)) | (true, _, _) => {
                SpokenDialect::V1
            }
            (false, _, _) => return None,
        };
        let known = if self == SpokenDialect::Unknown { family } else { self };
        let content = |number| match field.value {
            WireValue::Bytes(inner) if field.number == number => fields(inner),
            _ => None,
        };
        let has = |inner: &[WireField<'_>], number: u64, is_bytes: bool| {
            inner.iter().any(|f| f.number == number && matches!(f.value, WireValue::Bytes(_)) == is_bytes)
        };
        Some(match known {
            SpokenDialect::V1 => match (content(1), field.number, sent) {
                (Some(inner), ..) if has(&inner, 2, false) || has(&inner, 3, true) => SpokenDialect::Sigver15,
                (Some(inner), ..) if has(&inner, 2, true) => SpokenDialect::Sigver16,
                // Only clients of 16 to 18 send heartbeats by themselves, and the pong of 15 answers a ping.
                (None, 5, true) => SpokenDialect::Sigver15,
                _ => known,
            },
            SpokenDialect::Sigver16 if sent && field.number == 5 => SpokenDialect::Sigver18,
            SpokenDialect::V2 => match content(2) {
                Some(inner) if has(&inner, 4, true) => SpokenDialect::Sigver20,
                Some(inner) if has(&inner, 3, true) => SpokenDialect::Sigver19,
                _ => known,
            },
            other => other,
        })
    }

    /// Describes a binary message, with each id printed by `name`; `None` if it is not a message of
    /// the dialect.
    pub(crate) fn describe(self, bytes: &[u8], name: impl Fn(u64) -> String) -> Option<String> {
        let is_v2 = match self {
            SpokenDialect::Unknown | SpokenDialect::Json(_) => return None,
            SpokenDialect::V1
            | SpokenDialect::Sigver15
            | SpokenDialect::Sigver16
            | SpokenDialect::Sigver18 => false,
            SpokenDialect::V2 | SpokenDialect::Sigver19 | SpokenDialect::Sigver20 => true,
        };
        let mut text = Vec::new();
        for field in fields(bytes)? {
            text.push(match (is_v2, field.number, field.value) {
                (false, 1, WireValue::Bytes(inner)) | (true, 2, WireValue::Bytes(inner)) => {
                    self.describe_content(inner, &name)?
                }
                (true, 3, WireValue::Bytes(inner)) => describe_connect(inner, &name)?,
                (_, number, WireValue::Varint(value)) => {
                    let value = if value > 1 { value.to_string() } else { (value == 1).to_string() };
                    format!("{}{{{value}}}", self.field_name(number)?)
                }
                _ => return None,
            });
        }
        (!text.is_empty()).then(|| text.join(" and "))
    }

    /// Returns true if a message is a ping or a heartbeat.
    pub(crate) fn is_heartbeat(self, bytes: &[u8]) -> bool {
        let text = self.describe(bytes, |id| id.to_string());
        text.is_some_and(|text| {
            matches!(text.as_str(), "heartbeat{true}" | "ping{true}" | "ping or heartbeat{true}")
        })
    }

    fn field_name(self, number: u64) -> Option<&'static str> {
        use SpokenDialect::{Sigver15, Sigver18, Sigver19, Sigver20, V1, V2};
        Some(match (self, number) {
            (V2 | Sigver19 | Sigver20, 1) => "heartbeat",
            (V2 | Sigver19 | Sigver20, 4) => "connected",
            (V2 | Sigver19 | Sigver20, _) => return None,
            (_, 2) => "isFirst",
            (Sigver18, 3) => "stable",
            (_, 3) => "joined",
            (Sigver15, 4) => "ping",
            (V1, 4) => "ping or heartbeat",
            (_, 4) => "heartbeat",
            (Sigver18, 5) => "tryAnother",
            (_, 5) => "pong",
            _ => return None,
        })
    }

    fn describe_content(self, inner: &[u8], name: &impl Fn(u64) -> String) -> Option<String> {
        use SpokenDialect::{Sigver15, Sigver19, Sigver20, V2};
        let names: &[&str] = match self {
            Sigver19 => &["id", "lastData", "data"],
            V2 | Sigver20 => &["senderId", "recipientId", "lastData", "data"],
            Sigver15 => &["id", "isEnd", "data", "isError"],
            _ => &["id", "data", "isError", "isEnd"],
        };
        let mut text = String::new();
        for field in fields(inner)? {
            let label = usize::try_from(field.number).ok()?.checked_sub(1).and_then(|i| names.get(i));
            let label = label.copied().unwrap_or("unknown");
            let value = match field.value {
                WireValue::Bytes(data) => describe_data(data),
                WireValue::Varint(id) if matches!(label, "id" | "senderId" | "recipientId") => name(id),
                WireValue::Varint(flag) => (flag != 0).to_string(),
                WireValue::Fixed => to_hex(field.raw),
            };
            let comma = if text.is_empty() { "" } else { ", " };
            // Writing to a string does not fail.
            let _ = write!(text, "{comma}{label} {value}");
        }
        Some(format!("content{{{text}}}"))
    }
}

fn describe_connect(inner: &[u8], name: &impl Fn(u64) -> String) -> Option<String> {
    let mut text = String::new();
    for field in fields(inner)? {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = match (field.number, field.value) {
            (1, WireValue::Varint(id)) => write!(text, "{comma}id {}", name(id)),
            (2, WireValue::Bytes(packed)) => {
                let mut rest = packed;
                let mut members = Vec::new();
                while !rest.is_empty() {
                    members.push(name(prost::encoding::decode_varint(&mut rest).ok()?));
                }
                write!(text, "{comma}members [{}]", members.join(", "))
            }
            _ => write!(text, "{comma}{}", to_hex(field.raw)),
        };
    }
    Some(format!("connect{{{text}}}"))
}

/// Number of bytes of data that are shown.
const SHOWN_DATA: usize = 16;

fn describe_data(data: &[u8]) -> String {
    let contains = |text: &[u8]| data.windows(text.len()).any(|window| window == text);
    let kind = match () {
        () if contains(b"v=0\r\n") => " with an SDP",
        () if contains(b"candidate:") => " with a candidate",
        () => "",
    };
    match data.get(..SHOWN_DATA) {
        Some(head) if data.len() > SHOWN_DATA => format!("{}…({} bytes{kind})", to_hex(head), data.len()),
        _ => to_hex(data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn spoken(frames: &[(bool, FrameKind, &str)]) -> SpokenDialect {
        let mut dialect = SpokenDialect::default();
        for (sent, op, content) in frames {
            let bytes = match op {
                FrameKind::Binary => HEXLOWER.decode(content.as_bytes()).unwrap(),
                _ => content.as_bytes().to_vec(),
            };
            dialect.observe(*sent, &RecordedFrame::new(*op, bytes));
        }
        dialect
    }

    fn describe(dialect: SpokenDialect, hex: &str) -> String {
        let bytes = HEXLOWER.decode(hex.as_bytes()).unwrap();
        dialect.describe(&bytes, |id| id.to_string()).unwrap_or_else(|| "none".to_owned())
    }

    #[test]
    fn frames_show_dialect() {
        let binary = |sent, hex| (sent, FrameKind::Binary, hex);
        let text = |sent, text| (sent, FrameKind::Text, text);
        let cases: [(&[_], _); 11] = [
            (&[binary(false, "1001"), binary(false, "2001")], SpokenDialect::V1),
            (&[binary(false, "1001"), binary(false, "2001"), binary(true, "2801")], SpokenDialect::Sigver15),
            (&[binary(false, "1000"), binary(true, "0a0810001a0422020a00")], SpokenDialect::Sigver15),
            (&[binary(false, "1001"), binary(true, "2001")], SpokenDialect::V1),
            (&[binary(true, "0a03120100"), binary(true, "2801")], SpokenDialect::Sigver18),
            (&[binary(true, "1a020805"), binary(false, "2001")], SpokenDialect::V2),
            (
                &[binary(true, "1a020805"), binary(true, "1207080110001800"), binary(true, "1202220a")],
                SpokenDialect::V2,
            ),
            (
                &[text(true, r#"{"join":"k"}"#), text(false, r#"{"opened":true}"#)],
                SpokenDialect::Json("10.1.0"),
            ),
            (
                &[text(true, r#"{"key":"k"}"#), text(false, r#"{"isKeyOk":true}"#)],
                SpokenDialect::Json("7.6.4"),
            ),
            (
                &[text(true, r#"{"key":"k"}"#), text(false, r#"{"id":0,"data":{}}"#)],
                SpokenDialect::Json("7.1.0"),
            ),
            (
                &[text(true, r#"{"join":"k"}"#), text(false, r#"{"opened":false,"isKeyOk":true}"#)],
                SpokenDialect::Unknown,
            ),
        ];
        for (frames, dialect) in cases {
            assert_eq!(spoken(frames), dialect, "{frames:?}");
        }
    }

    #[test]
    fn messages_are_described() {
        let cases = [
            (SpokenDialect::Sigver20, "2001", "connected{true}"),
            (SpokenDialect::Sigver20, "0801", "heartbeat{true}"),
            (SpokenDialect::Sigver20, "1a0408051201ff", "none"),
            (SpokenDialect::V2, "1a06080512020709", "connect{id 5, members [7, 9]}"),
            (
                SpokenDialect::Sigver20,
                "12080801100018002200",
                "content{senderId 1, recipientId 0, lastData false, data }",
            ),
            (SpokenDialect::Sigver15, "1001", "isFirst{true}"),
            (SpokenDialect::Sigver15, "10012001", "isFirst{true} and ping{true}"),
            (SpokenDialect::Sigver16, "10012001", "isFirst{true} and heartbeat{true}"),
            (SpokenDialect::Sigver18, "2801", "tryAnother{true}"),
            (SpokenDialect::V1, "2001", "ping or heartbeat{true}"),
            (SpokenDialect::Sigver18, "0a0508092001", "none"),
            (SpokenDialect::Sigver18, "0a0408092001", "content{id 9, isEnd true}"),
            (SpokenDialect::Unknown, "2001", "none"),
        ];
        for (dialect, hex, expected) in cases {
            assert_eq!(describe(dialect, hex), expected, "{hex} of {dialect:?}");
        }
        assert_eq!(
            describe_data(b"\x0a\x20v=0\r\no=- 1 2 IN IP4 127.0.0.1"),
            "0a20763d300d0a6f3d2d203120322049…(31 bytes with an SDP)"
        );
    }
}
