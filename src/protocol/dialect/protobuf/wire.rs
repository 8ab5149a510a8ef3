//! The messages of each protobuf generation as bytes. What they mean is decided elsewhere.
//!
//! The types are compiled from `proto/`, one frozen file a generation; this module gives generations that differ
//! in numbers only one face, so that their logic exists once.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message as _;

use super::{content_fast, protobufjs_errors};
use crate::protocol::frame::{Message, Outgoing};

macro_rules! generated {
    ($($module:ident => $file:literal),*) => {$(
        #[allow(missing_docs, unreachable_pub)]
        pub(super) mod $module {
            include!(concat!(env!("OUT_DIR"), "/", $file, ".rs"));
        }
    )*};
}
generated!(v15 => "sigver15", v15_1 => "sigver15_1", v16 => "sigver16", v18 => "sigver18", v19 => "sigver19", v20 => "sigver20");

/// How a content is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentLayout {
    /// id, data = 2, isError = 3, isEnd = 4: sigver 15.1 to 18.
    V15_1,
    /// id, isEnd = 2, data = 3, isError = 4: sigver 15.0.
    V15_0,
    /// id, lastData = 2, data = 3: sigver 19.
    V19,
    /// senderId, recipientId, lastData = 3, data = 4: sigver 20.
    V20,
}

/// A message of sigver 15 to 18, whichever. Fields 3 to 5 were renamed from one to the next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum V1Message {
    Content {
        id: u32,
        body: V1Body,
    },
    /// A server's word; from a client it means nothing.
    IsFirst,
    /// `joined`, later `stable`.
    JoinedOrStable,
    /// `ping`, later `heartbeat`.
    PingOrHeartbeat,
    /// `pong`, later `tryAnother`.
    PongOrTryAnother,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum V1Body {
    Data { data: Bytes, end: bool },
    Error,
    End,
    Nothing,
}

/// A message of sigver 19 or 20.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum V2Message {
    Heartbeat,
    Content { recipient: u32, last: bool, data: Bytes },
    Connect { id: u32, members: Vec<u32> },
    Connected,
}

/// `isFirst: true`.
pub(super) const IS_FIRST: Bytes = Bytes::from_static(&[0x10, 0x01]);
/// `isFirst: false`.
pub(super) const IS_NOT_FIRST: Bytes = Bytes::from_static(&[0x10, 0x00]);
/// `ping: true` to sigver 15, `heartbeat: true` to sigver 16 to 18.
pub(super) const V1_BEAT: Bytes = Bytes::from_static(&[0x20, 0x01]);
/// `pong: true` of sigver 15.
pub(super) const PONG: Bytes = Bytes::from_static(&[0x28, 0x01]);
/// `heartbeat: true` of sigver 19 and 20.
pub(super) const V2_HEARTBEAT: Bytes = Bytes::from_static(&[0x08, 0x01]);
/// `connected: true`.
pub(super) const CONNECTED: Bytes = Bytes::from_static(&[0x20, 0x01]);
/// `connected: false`.
pub(super) const NOT_CONNECTED: Bytes = Bytes::from_static(&[0x20, 0x00]);

/// Which of the four messages of sigver 15 to 18 a frame is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum V1Schema {
    V15,
    V15_1,
    V16,
    V18,
}

type Decoded<M> = Result<Option<M>, Cow<'static, str>>;

/// Decodes a client's frame of sigver 15 to 18; `Ok(None)` is a message that says nothing known.
pub(super) fn decode_v1(frame: Bytes, generation: V1Schema) -> Decoded<V1Message> {
    let layout = if generation == V1Schema::V15 { ContentLayout::V15_0 } else { ContentLayout::V15_1 };
    let frame = match content_fast::take_out(frame, layout) {
        Ok(([_, id, end, _], data)) => {
            return Ok(Some(V1Message::Content { id, body: V1Body::Data { data, end: end != 0 } }));
        }
        Err(frame) => frame,
    };
    /// The generations of layout A: their fields 3 to 5 have other names, or are not there.
    macro_rules! layout_a {
        ($module:ident, $($field:ident => $neutral:ident),*) => {{
            use $module::{content, message::Type};
            let message = $module::Message::decode(frame.clone()).map_err(|_| protobufjs_errors::complaint(&frame, &V1_A))?;
            message.r#type.map(|kind| match kind {
                Type::Content($module::Content { id, r#type }) => {
                    let body = match r#type {
                        Some(content::Type::Data(data)) => V1Body::Data { data, end: false },
                        Some(content::Type::IsError(_)) => V1Body::Error,
                        Some(content::Type::IsEnd(_)) => V1Body::End,
                        None => V1Body::Nothing,
                    };
                    V1Message::Content { id: id.unwrap_or_default(), body }
                }
                Type::IsFirst(_) => V1Message::IsFirst,
                $(Type::$field(_) => V1Message::$neutral,)*
            })
        }};
    }
    Ok(match generation {
        V1Schema::V15 => {
            use v15::message::Type;
            let message = v15::Message::decode(frame.clone())
                .map_err(|_| protobufjs_errors::complaint(&frame, &V1_B))?;
            message.r#type.map(|kind| match kind {
                // What the client sends as an error is relayed as data (measured).
                Type::Content(v15::Content { id, is_end, data, is_error: _ }) => V1Message::Content {
                    id: id.unwrap_or_default(),
                    body: V1Body::Data { data: data.unwrap_or_default(), end: is_end.unwrap_or_default() },
                },
                Type::IsFirst(_) => V1Message::IsFirst,
                Type::Joined(_) => V1Message::JoinedOrStable,
                Type::Ping(_) => V1Message::PingOrHeartbeat,
                Type::Pong(_) => V1Message::PongOrTryAnother,
            })
        }
        V1Schema::V15_1 => {
            layout_a!(v15_1, Joined => JoinedOrStable, Ping => PingOrHeartbeat, Pong => PongOrTryAnother)
        }
        V1Schema::V16 => layout_a!(v16, Joined => JoinedOrStable, Heartbeat => PingOrHeartbeat),
        V1Schema::V18 => {
            layout_a!(v18, Stable => JoinedOrStable, Heartbeat => PingOrHeartbeat, TryAnother => PongOrTryAnother)
        }
    })
}

/// Encodes a content for a client of sigver 15 to 18. `end` with data stops the direction in layout B only.
pub(super) fn encode_v1_content(id: u32, body: V1Body, layout: ContentLayout) -> Outgoing {
    use v18::content::Type;
    let r#type = match body {
        V1Body::Data { data, .. } => return content_fast::put_in(layout, &[id], data),
        V1Body::End | V1Body::Nothing if layout == ContentLayout::V15_0 => {
            return content_fast::put_in(layout, &[id], Bytes::new());
        }
        V1Body::Error if layout == ContentLayout::V15_0 => {
            let content = v15::Content { id: Some(id), is_error: Some(true), ..Default::default() };
            return encode(&v15::Message { r#type: Some(v15::message::Type::Content(content)) });
        }
        V1Body::Error => Some(Type::IsError(true)),
        V1Body::End => Some(Type::IsEnd(true)),
        V1Body::Nothing => None,
    };
    let content = v18::Content { id: Some(id), r#type };
    encode(&v18::Message { r#type: Some(v18::message::Type::Content(content)) })
}

/// Decodes a client's frame of sigver 19 or 20; `Ok(None)` is a message that says nothing known.
pub(super) fn decode_current(frame: Bytes, layout: ContentLayout) -> Decoded<V2Message> {
    let frame = match content_fast::take_out(frame, layout) {
        Ok(([_, first, second, third], data)) => {
            let (recipient, last) =
                if layout == ContentLayout::V19 { (first, second) } else { (second, third) };
            return Ok(Some(V2Message::Content { recipient, last: last != 0, data }));
        }
        Err(frame) => frame,
    };
    if layout == ContentLayout::V19 {
        use v19::message::Type;
        let message = v19::Message::decode(frame.clone())
            .map_err(|_| protobufjs_errors::complaint(&frame, &CURRENT_C))?;
        return Ok(message.r#type.map(|kind| match kind {
            Type::Heartbeat(_) => V2Message::Heartbeat,
            Type::Content(content) => V2Message::Content {
                recipient: content.id.unwrap_or_default(),
                last: content.last_data.unwrap_or_default(),
                data: content.data.unwrap_or_default(),
            },
            Type::Connect(group) => V2Message::Connect { id: group.id, members: group.members },
            Type::Connected(_) => V2Message::Connected,
        }));
    }
    use v20::message::Type;
    let message =
        v20::Message::decode(frame.clone()).map_err(|_| protobufjs_errors::complaint(&frame, &CURRENT_D))?;
    Ok(message.r#type.map(|kind| match kind {
        Type::Heartbeat(_) => V2Message::Heartbeat,
        Type::Content(content) => V2Message::Content {
            recipient: content.recipient_id.unwrap_or_default(),
            last: content.last_data.unwrap_or_default(),
            data: content.data.unwrap_or_default(),
        },
        Type::Connect(group) => V2Message::Connect { id: group.id, members: group.members },
        Type::Connected(_) => V2Message::Connected,
    }))
}

/// Encodes a content for a client of sigver 19 or 20, at the given end of `link`; no data means the link is over.
pub(super) fn encode_current_content(
    link: u32,
    to_member: bool,
    data: Option<Bytes>,
    layout: ContentLayout,
) -> Outgoing {
    if layout == ContentLayout::V19 {
        // A joiner hears everything from the id 1 (measured).
        let id = if to_member { link } else { 1 };
        let Some(data) = data else {
            let content = v19::Content { id: Some(id), ..Default::default() };
            return encode(&v19::Message { r#type: Some(v19::message::Type::Content(content)) });
        };
        return content_fast::put_in(layout, &[id], data);
    }
    let (sender, recipient) = if to_member { (link, 0) } else { (0, link) };
    let Some(data) = data else {
        let content =
            v20::Content { sender_id: Some(sender), recipient_id: Some(recipient), ..Default::default() };
        return encode(&v20::Message { r#type: Some(v20::message::Type::Content(content)) });
    };
    content_fast::put_in(layout, &[sender, recipient], data)
}

/// Encodes a content for a member of sigver 19 or 20 of which it is not known which, so that it reads the same in both:
/// first the data as 19 has it, then as 20 has it, then the numbers. What the one knows in a field the other skips; but
/// one of 20 takes field 3 for a number, and goes on with what is inside as if it were fields of the content. All of these
/// are said again after it, if the data is a message of netflux 4, which has the same fields. That leaves `lastData` set,
/// which clients write and do not read (netflux 4.3.1, source). `None` if the data is anything else.
pub(super) fn encode_for_either(link: u32, data: &Bytes) -> Option<Bytes> {
    if !is_like_a_content(data) {
        return None;
    }
    let mut content = Vec::with_capacity(2 * data.len() + 24);
    prost::encoding::bytes::encode(3, data, &mut content);
    prost::encoding::bytes::encode(4, data, &mut content);
    prost::encoding::uint32::encode(1, &link, &mut content);
    prost::encoding::uint32::encode(2, &0, &mut content);
    let mut frame = Vec::with_capacity(content.len() + 6);
    prost::encoding::bytes::encode(2, &content, &mut frame);
    Some(frame.into())
}

/// Whether these are the fields 1 to 3 as numbers and 4 as bytes, and nothing else.
fn is_like_a_content(mut bytes: &[u8]) -> bool {
    let mut next = || {
        let (tag, rest) = varint(bytes)?;
        let (value, rest) = varint(rest)?;
        bytes = match tag {
            0x08 | 0x10 | 0x18 => rest,
            0x22 => rest.get(usize::try_from(value).ok()?..)?,
            _ => return None,
        };
        Some(bytes.is_empty())
    };
    loop {
        match next() {
            Some(true) => return true,
            Some(false) => {}
            None => return false,
        }
    }
}

fn encode(message: &impl prost::Message) -> Outgoing {
    Message::binary(message.encode_to_vec()).into()
}

/// The layout of a content of sigver 15 to 18, if its fields tell: what is length-delimited in one is a number in
/// the other, and a 4 alone is an end in A and an error in B.
pub fn detect_v1_layout(frame: &[u8]) -> Option<ContentLayout> {
    first_field(frame, 1, &mut |field, delimited| match (field, delimited) {
        (2, true) | (3, false) => Some(ContentLayout::V15_1),
        (2, false) | (3, true) => Some(ContentLayout::V15_0),
        _ => None,
    })
}

/// The layout of a content of sigver 19 or 20, if its fields tell.
pub fn detect_v2_layout(frame: &[u8]) -> Option<ContentLayout> {
    first_field(frame, 2, &mut |field, delimited| match (field, delimited) {
        (3, true) => Some(ContentLayout::V19),
        (4, true) | (3, false) => Some(ContentLayout::V20),
        _ => None,
    })
}

/// What `judge` makes of the first telling field inside the length-delimited field `outer`.
fn first_field(
    frame: &[u8],
    outer: u32,
    judge: &mut dyn FnMut(u32, bool) -> Option<ContentLayout>,
) -> Option<ContentLayout> {
    let (tag, rest) = varint(frame)?;
    if tag != u64::from(outer) << 3 | 2 {
        return None;
    }
    let (length, rest) = varint(rest)?;
    let mut content = rest.get(..usize::try_from(length).ok()?)?;
    while !content.is_empty() {
        let (tag, rest) = varint(content)?;
        let (value, rest) = varint(rest)?;
        let (field, kind) = (u32::try_from(tag >> 3).ok()?, tag & 7);
        if !matches!(kind, 0 | 2) {
            return None;
        }
        if let Some(layout) = judge(field, kind == 2) {
            return Some(layout);
        }
        content = if kind == 2 { rest.get(usize::try_from(value).ok()?..)? } else { rest };
    }
    None
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

use protobufjs_errors::{Kind::*, Schema};

static CONTENT_A: Schema = Schema(&[(1, Number), (2, Delimited), (3, Number), (4, Number)]);
static CONTENT_B: Schema = Schema(&[(1, Number), (2, Number), (3, Delimited), (4, Number)]);
static CONTENT_C: Schema = Schema(&[(1, Number), (2, Number), (3, Delimited)]);
static CONTENT_D: Schema = Schema(&[(1, Number), (2, Number), (3, Number), (4, Delimited)]);
static GROUP: Schema = Schema(&[(1, Number), (2, Numbers)]);
static V1_A: Schema = Schema(&[(1, Message(&CONTENT_A)), (2, Number), (3, Number), (4, Number), (5, Number)]);
static V1_B: Schema = Schema(&[(1, Message(&CONTENT_B)), (2, Number), (3, Number), (4, Number), (5, Number)]);
static CURRENT_C: Schema =
    Schema(&[(1, Number), (2, Message(&CONTENT_C)), (3, Message(&GROUP)), (4, Number)]);
static CURRENT_D: Schema =
    Schema(&[(1, Number), (2, Message(&CONTENT_D)), (3, Message(&GROUP)), (4, Number)]);

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Bytes {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn whole(outgoing: Outgoing) -> Bytes {
        match outgoing.into_message() {
            Ok(Message::Binary(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn data(text: &'static str, end: bool) -> V1Body {
        V1Body::Data { data: Bytes::from_static(text.as_bytes()), end }
    }

    /// Frames recorded from the originals: sigver 15.0.4 and 18.0.0.
    #[test]
    fn v1_contents_as_recorded() {
        let b = bytes("0a0b08001a076f666665722d4a");
        assert_eq!(
            decode_v1(b.clone(), V1Schema::V15),
            Ok(Some(V1Message::Content { id: 0, body: data("offer-J", false) }))
        );
        assert_eq!(whole(encode_v1_content(0, data("offer-J", false), ContentLayout::V15_0)), b.clone());
        let a = bytes("0a0b080012076f666665722d4a");
        assert_eq!(
            decode_v1(a.clone(), V1Schema::V18),
            Ok(Some(V1Message::Content { id: 0, body: data("offer-J", false) }))
        );
        assert_eq!(whole(encode_v1_content(0, data("offer-J", false), ContentLayout::V15_1)), a.clone());
        assert_eq!(whole(encode_v1_content(0, V1Body::Error, ContentLayout::V15_1)), bytes("0a0408001801"));
        assert_eq!(whole(encode_v1_content(0, V1Body::Error, ContentLayout::V15_0)), bytes("0a0408002001"));
        assert_eq!(whole(encode_v1_content(0, V1Body::End, ContentLayout::V15_1)), bytes("0a0408002001"));
        assert_eq!(whole(encode_v1_content(0, V1Body::End, ContentLayout::V15_0)), bytes("0a0408001a00"));
        assert_eq!(
            (detect_v1_layout(&a), detect_v1_layout(&b)),
            (Some(ContentLayout::V15_1), Some(ContentLayout::V15_0))
        );
        assert_eq!(detect_v1_layout(&bytes("0a0408002001")), None, "an end in A, an error in B");
        assert_eq!(detect_v1_layout(&bytes("0a021801")), Some(ContentLayout::V15_1));
        assert_eq!(detect_v1_layout(&bytes("0a0410001a00")), Some(ContentLayout::V15_0));
        for broken in ["0aff", "0a", "0a0508", "0a03ffffff", "0a02ff01", ""] {
            assert_eq!(detect_v1_layout(&bytes(broken)), None, "{broken}");
        }
    }

    /// Frames recorded from the originals: sigver 19.1.2 and 20.1.0.
    #[test]
    fn current_contents_as_recorded() {
        let offer = || Some(Bytes::from_static(b"offer-J"));
        assert_eq!(
            whole(encode_current_content(1, true, offer(), ContentLayout::V19)),
            bytes("120b08011a076f666665722d4a")
        );
        assert_eq!(whole(encode_current_content(77, false, None, ContentLayout::V19)), bytes("12020801"));
        assert_eq!(
            whole(encode_current_content(873_042_195, true, offer(), ContentLayout::V20)),
            bytes("12110893a2a6a003100022076f666665722d4a")
        );
        assert_eq!(
            whole(encode_current_content(1_452_330_232, false, None, ContentLayout::V20)),
            bytes("1208080010f899c3b405")
        );
        let answer = bytes("121208001093a2a6a0032208616e737765722d4f");
        assert_eq!(
            decode_current(answer.clone(), ContentLayout::V20),
            Ok(Some(V2Message::Content {
                recipient: 873_042_195,
                last: false,
                data: Bytes::from_static(b"answer-O")
            }))
        );
        assert_eq!(detect_v2_layout(&answer), Some(ContentLayout::V20));
        assert_eq!(detect_v2_layout(&bytes("120b08001a076f666665722d4a")), Some(ContentLayout::V19));
        assert_eq!(detect_v2_layout(&bytes("1204080a1801")), Some(ContentLayout::V20));
        assert_eq!(detect_v2_layout(&bytes("1204080a1001")), None);
    }

    /// As the clients read it: protobufjs goes by a field's number, and by its wire type only for what it does not know.
    #[test]
    fn one_content_reads_the_same_in_both_layouts() {
        // A message of netflux 4.3.1, as recorded: the end of the candidates.
        let message = bytes("080010e9e8cc820118873a2200");
        let frame = encode_for_either(77, &message).unwrap();
        let content = frame.slice(2..);
        for (data_field, number_fields) in [(3, [1, 2].as_slice()), (4, &[1, 2, 3])] {
            let (mut rest, mut data, mut link) = (&content[..], &[][..], 0);
            while !rest.is_empty() {
                let (tag, after) = varint(rest).unwrap();
                let (value, after) = varint(after).unwrap();
                let (field, delimited) = (tag >> 3, tag & 7 == 2);
                rest = if field == data_field {
                    data = &after[..value as usize];
                    &after[value as usize..]
                } else if number_fields.contains(&field) {
                    link = if field == 1 { value } else { link };
                    after
                } else if delimited {
                    &after[value as usize..]
                } else {
                    after
                };
            }
            assert_eq!((link, data), (77, &message[..]), "data in field {data_field}");
        }
        for other in ["6f666665722d4a", "", "0800ff", "2205"] {
            assert_eq!(encode_for_either(77, &bytes(other)), None, "{other}");
        }
    }

    #[test]
    fn connect_is_read_packed_or_not() {
        let connect = Ok(Some(V2Message::Connect { id: 11, members: vec![1, 2] }));
        assert_eq!(decode_current(bytes("1a06080b12020102"), ContentLayout::V20), connect);
        assert_eq!(decode_current(bytes("1a06080b10011002"), ContentLayout::V19), connect);
    }
}
