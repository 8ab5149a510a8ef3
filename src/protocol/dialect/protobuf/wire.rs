//! Decoding and encoding of protobuf messages. Their types are compiled from `proto/`, one frozen file per
//! schema; this module converts schemas that differ in names and field numbers to one type.

use std::borrow::Cow;

use bytes::Bytes;
use prost::encoding::decode_varint;

use super::content_fast::{self, DataContent};
use super::layout::{Field, take_delimited};
use super::protobufjs_errors::decode_error_text;
use crate::protocol::dialect::ContentLayout;
use crate::protocol::dialect::release::{Addressing, V1Schema};
use crate::protocol::frame::{Message, Outgoing};
use crate::protocol::model::Side;

macro_rules! generated {
    ($($module:ident => $file:literal),*) => {$(
        #[allow(missing_docs, unreachable_pub)]
        pub(super) mod $module {
            include!(concat!(env!("OUT_DIR"), "/", $file, ".rs"));
        }
    )*};
}
generated!(v15_0_0 => "sigver15_0_0", v15 => "sigver15", v15_1 => "sigver15_1", v16 => "sigver16", v18 => "sigver18", v19 => "sigver19", v20 => "sigver20");

/// Message of sigver 15 to 18.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum V1Message {
    Content {
        id: u32,
        body: V1Body,
    },
    /// Sent by servers; ignored from a client.
    IsFirst,
    /// `joined`, later `stable`.
    JoinedOrStable,
    /// `ping`, later `heartbeat`.
    PingOrHeartbeat,
    /// `pong`, later `tryAnother`.
    PongOrTryAnother,
}

/// Body of a content of sigver 15 to 18.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum V1Body {
    Data { data: Bytes, end: bool },
    Error,
    End,
    Nothing,
}

/// Message of sigver 19 or newer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum V2Message {
    Heartbeat,
    Content(DataContent),
    Connect { id: u32, members: Vec<u32> },
    Connected,
}

/// `isFirst: true`.
pub(super) const IS_FIRST: Bytes = Bytes::from_static(&[0x10, 0x01]);
/// `isFirst: false`.
pub(super) const IS_NOT_FIRST: Bytes = Bytes::from_static(&[0x10, 0x00]);
/// `ping: true` to sigver 15, `heartbeat: true` to sigver 16 to 18.
pub(super) const V1_HEARTBEAT: Bytes = Bytes::from_static(&[0x20, 0x01]);
/// `pong: true` of sigver 15.
const PONG: Bytes = Bytes::from_static(&[0x28, 0x01]);
/// `ping: true` of sigver 15.0.0.
const PING_15_0_0: Bytes = Bytes::from_static(&[0x18, 0x01]);
/// `pong: true` of sigver 15.0.0.
const PONG_15_0_0: Bytes = Bytes::from_static(&[0x20, 0x01]);
/// `heartbeat: true` of sigver 19 and 20.
pub(super) const V2_HEARTBEAT: Bytes = Bytes::from_static(&[0x08, 0x01]);
/// `connected: true`.
pub(super) const CONNECTED: Bytes = Bytes::from_static(&[0x20, 0x01]);
/// `connected: false`.
pub(super) const NOT_CONNECTED: Bytes = Bytes::from_static(&[0x20, 0x00]);

impl V1Schema {
    /// Returns the layout of the contents.
    const fn layout(self) -> ContentLayout {
        match self {
            V1Schema::V15_0_0 | V1Schema::V15 => ContentLayout::V15_0,
            V1Schema::V15_1 | V1Schema::V16 | V1Schema::V18 => ContentLayout::V15_1,
        }
    }

    /// Returns the ping or heartbeat.
    pub(super) const fn ping(self) -> Bytes {
        match self {
            V1Schema::V15_0_0 => PING_15_0_0,
            V1Schema::V15 | V1Schema::V15_1 | V1Schema::V16 | V1Schema::V18 => V1_HEARTBEAT,
        }
    }

    /// Returns the answer to a ping.
    pub(super) const fn pong(self) -> Bytes {
        match self {
            V1Schema::V15_0_0 => PONG_15_0_0,
            V1Schema::V15 | V1Schema::V15_1 | V1Schema::V16 | V1Schema::V18 => PONG,
        }
    }
}

type Decoded<M> = Result<Option<M>, Cow<'static, str>>;

/// Converts the messages of one schema of sigver 15 to 18, which name fields 3 to 5 differently.
macro_rules! v1_schema {
    ($module:ident, $($field:ident => $message:ident),*) => {
        impl From<$module::message::Type> for V1Message {
            fn from(message: $module::message::Type) -> Self {
                use $module::message::Type;
                match message {
                    Type::Content(content) => content.into(),
                    Type::IsFirst(_) => V1Message::IsFirst,
                    $(Type::$field(_) => V1Message::$message,)*
                }
            }
        }
    };
}
v1_schema!(v15_0_0, Ping => PingOrHeartbeat, Pong => PongOrTryAnother, Joined => JoinedOrStable);
v1_schema!(v15, Joined => JoinedOrStable, Ping => PingOrHeartbeat, Pong => PongOrTryAnother);
v1_schema!(v15_1, Joined => JoinedOrStable, Ping => PingOrHeartbeat, Pong => PongOrTryAnother);
v1_schema!(v16, Joined => JoinedOrStable, Heartbeat => PingOrHeartbeat);
v1_schema!(v18, Stable => JoinedOrStable, Heartbeat => PingOrHeartbeat, TryAnother => PongOrTryAnother);

/// Converts the contents of one schema of sigver 15.1 to 18.
macro_rules! v1_content {
    ($($module:ident),*) => {$(
        impl From<$module::Content> for V1Message {
            fn from(content: $module::Content) -> Self {
                use $module::content::Type;
                let body = match content.r#type {
                    Some(Type::Data(data)) => V1Body::Data { data, end: false },
                    Some(Type::IsError(_)) => V1Body::Error,
                    Some(Type::IsEnd(_)) => V1Body::End,
                    None => V1Body::Nothing,
                };
                V1Message::Content { id: content.id.unwrap_or_default(), body }
            }
        }
    )*};
}
v1_content!(v15_1, v16, v18);

/// Converts the contents of one schema of sigver 15.0. An error is relayed as data (measured).
macro_rules! v15_0_content {
    ($($module:ident),*) => {$(
        impl From<$module::Content> for V1Message {
            fn from(content: $module::Content) -> Self {
                let (data, end) = (content.data.unwrap_or_default(), content.is_end.unwrap_or_default());
                V1Message::Content { id: content.id.unwrap_or_default(), body: V1Body::Data { data, end } }
            }
        }
    )*};
}
v15_0_content!(v15_0_0, v15);

/// Converts the messages of one schema of sigver 19 or newer, whose contents have other fields.
macro_rules! v2_schema {
    ($module:ident, $recipient:ident) => {
        impl From<$module::message::Type> for V2Message {
            fn from(message: $module::message::Type) -> Self {
                use $module::message::Type;
                match message {
                    Type::Heartbeat(_) => V2Message::Heartbeat,
                    Type::Content(content) => V2Message::Content(DataContent {
                        recipient: content.$recipient.unwrap_or_default(),
                        last: content.last_data.unwrap_or_default(),
                        data: content.data.unwrap_or_default(),
                    }),
                    Type::Connect(group) => V2Message::Connect { id: group.id, members: group.members },
                    Type::Connected(_) => V2Message::Connected,
                }
            }
        }
    };
}
v2_schema!(v19, id);
v2_schema!(v20, recipient_id);

/// Decodes a message of this schema; the error is the text of protobufjs.
fn decode<M: prost::Message + Default>(frame: Bytes, layout: ContentLayout) -> Result<M, Cow<'static, str>> {
    M::decode(frame.clone()).map_err(|_| decode_error_text(&frame, &layout.facts().message))
}

/// Decodes a client's frame of sigver 15 to 18; `None` is a message without a known field.
pub(super) fn decode_v1(frame: Bytes, schema: V1Schema) -> Decoded<V1Message> {
    let layout = schema.layout();
    let frame = match content_fast::decode_content(frame, layout) {
        Ok(DataContent { recipient: id, last: end, data }) => {
            return Ok(Some(V1Message::Content { id, body: V1Body::Data { data, end } }));
        }
        Err(frame) => frame,
    };
    Ok(match schema {
        V1Schema::V15_0_0 => decode::<v15_0_0::Message>(frame, layout)?.r#type.map(Into::into),
        V1Schema::V15 => decode::<v15::Message>(frame, layout)?.r#type.map(Into::into),
        V1Schema::V15_1 => decode::<v15_1::Message>(frame, layout)?.r#type.map(Into::into),
        V1Schema::V16 => decode::<v16::Message>(frame, layout)?.r#type.map(Into::into),
        V1Schema::V18 => decode::<v18::Message>(frame, layout)?.r#type.map(Into::into),
    })
}

/// Encodes a content for a client of sigver 15 to 18. `end` with data is only sent in the layout of sigver
/// 15.0.
pub(super) fn encode_v1_content(link: u32, to: Side, body: V1Body, layout: ContentLayout) -> Outgoing {
    use v18::content::Type;
    let id = Some(if to == Side::Member { link } else { 0 });
    let r#type = match body {
        V1Body::Data { data, .. } => return encode_content(link, to, Some(data), layout),
        V1Body::End | V1Body::Nothing if layout == ContentLayout::V15_0 => {
            return encode_content(link, to, Some(Bytes::new()), layout);
        }
        V1Body::Error if layout == ContentLayout::V15_0 => {
            let content = v15::Content { id, is_error: Some(true), ..Default::default() };
            return encode(&v15::Message { r#type: Some(v15::message::Type::Content(content)) });
        }
        V1Body::Error => Some(Type::IsError(true)),
        V1Body::End => Some(Type::IsEnd(true)),
        V1Body::Nothing => None,
    };
    let content = v18::Content { id, r#type };
    encode(&v18::Message { r#type: Some(v18::message::Type::Content(content)) })
}

/// Decodes a client's frame of sigver 19 or newer; `None` is a message without a known field.
pub(super) fn decode_v2(frame: Bytes, layout: ContentLayout) -> Decoded<V2Message> {
    let frame = match content_fast::decode_content(frame, layout) {
        Ok(content) => return Ok(Some(V2Message::Content(content))),
        Err(frame) => frame,
    };
    Ok(match layout {
        ContentLayout::V19 => decode::<v19::Message>(frame, layout)?.r#type.map(Into::into),
        ContentLayout::V15_0 | ContentLayout::V15_1 | ContentLayout::V20 => {
            decode::<v20::Message>(frame, layout)?.r#type.map(Into::into)
        }
    })
}

/// Encodes a content for the given end of `link`. Without data it reports that the link ended.
pub(super) fn encode_content(link: u32, to: Side, data: Option<Bytes>, layout: ContentLayout) -> Outgoing {
    let numbers: &[u32] = match (layout.facts().addressing, to) {
        (Addressing::Id { .. }, Side::Member) => &[link],
        (Addressing::Id { to_joiner }, Side::Joiner) => &[to_joiner],
        (Addressing::SenderAndRecipient, Side::Member) => &[link, 0],
        (Addressing::SenderAndRecipient, Side::Joiner) => &[0, link],
    };
    content_fast::encode_content(layout, numbers, data)
}

/// Fields in which clients of sigver 19 or newer expect the data of a content, in ascending order.
const DATA_FIELDS: [u32; 2] = [3, 4];

/// Encodes a content that all clients of sigver 19 or newer read alike, for a member that may be any of them.
/// Returns `None` if `data` is not a message of netflux 4.
///
/// The data is in field 3, where sigver 19 expects it, and then in field 4, where sigver 20 does; the numbers
/// follow. A client of sigver 19 skips field 4. A client of sigver 20 reads field 3 as a number, and the data
/// after it as fields of the content. A message of netflux 4 has the same fields as a content, so that what
/// is written behind it overwrites all of them but `lastData`, which clients write and do not read (netflux
/// 4.3.1, source).
pub(super) fn encode_for_any(link: u32, data: &Bytes) -> Option<Bytes> {
    if !is_v2_shaped(data) {
        return None;
    }
    let mut content = Vec::with_capacity(data.len().saturating_mul(DATA_FIELDS.len()).saturating_add(24));
    for field in DATA_FIELDS {
        prost::encoding::bytes::encode(field, data, &mut content);
    }
    prost::encoding::uint32::encode(1, &link, &mut content);
    prost::encoding::uint32::encode(2, &0, &mut content);
    let mut frame = Vec::with_capacity(content.len().saturating_add(6));
    prost::encoding::bytes::encode(2, &content, &mut frame);
    Some(frame.into())
}

/// Returns true if the bytes are a list of fields 1 to 3 with numbers and fields 4 with bytes.
fn is_v2_shaped(mut bytes: &[u8]) -> bool {
    let mut skip_field = || match Field::read(&mut bytes)? {
        Field { number: 1..=3, is_delimited: false } => {
            decode_varint(&mut bytes).ok().map(|_| bytes.is_empty())
        }
        Field { number: 4, is_delimited: true } => take_delimited(&mut bytes).map(|_| bytes.is_empty()),
        Field { .. } => None,
    };
    loop {
        match skip_field() {
            Some(true) => return true,
            Some(false) => {}
            None => return false,
        }
    }
}

fn encode(message: &impl prost::Message) -> Outgoing {
    Message::binary(message.encode_to_vec()).into()
}

/// Contents with data, read and written by the compiled messages: the reference of the fast path in tests.
#[cfg(test)]
pub(super) mod compiled {
    use prost::Message;

    use super::*;

    pub(in crate::protocol::dialect::protobuf) struct Decoded {
        pub(in crate::protocol::dialect::protobuf) content: DataContent,
        /// The message, encoded again.
        pub(in crate::protocol::dialect::protobuf) encoded: Vec<u8>,
    }

    /// Decodes a frame with a compiled message. `$fields` are the recipient, the mark of the last content and
    /// the data of its content, each of them optional.
    macro_rules! decode {
        ($module:ident, $frame:ident, $content:ident => $fields:expr) => {{
            let message = $module::Message::decode($frame).ok()?;
            let encoded = message.encode_to_vec();
            let $module::message::Type::Content($content) = message.r#type? else { return None };
            let (recipient, last, data): (Option<u32>, Option<bool>, Option<Bytes>) = $fields;
            let content =
                DataContent { recipient: recipient.unwrap_or(0), last: last.unwrap_or(false), data: data? };
            Some(Decoded { content, encoded })
        }};
    }

    pub(in crate::protocol::dialect::protobuf) fn decode(
        frame: Bytes,
        layout: ContentLayout,
    ) -> Option<Decoded> {
        match layout {
            ContentLayout::V15_0 => decode!(v15, frame, it => (it.id, it.is_end, it.data)),
            ContentLayout::V15_1 => decode!(v18, frame, it => match it.r#type? {
                v18::content::Type::Data(data) => (it.id, None, Some(data)),
                _ => return None,
            }),
            ContentLayout::V19 => decode!(v19, frame, it => (it.id, it.last_data, it.data)),
            ContentLayout::V20 => decode!(v20, frame, it => (it.recipient_id, it.last_data, it.data)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantArray as _;

    fn bytes(hex: &str) -> Bytes {
        data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().into()
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

    /// Frames recorded from the Node.js servers: sigver 15.0.4 and 18.0.0.
    #[test]
    fn v1_contents_match_recordings() {
        let b = bytes("0a0b08001a076f666665722d4a");
        assert_eq!(
            decode_v1(b.clone(), V1Schema::V15),
            Ok(Some(V1Message::Content { id: 0, body: data("offer-J", false) }))
        );
        assert_eq!(
            whole(encode_v1_content(0, Side::Member, data("offer-J", false), ContentLayout::V15_0)),
            b.clone()
        );
        let a = bytes("0a0b080012076f666665722d4a");
        assert_eq!(
            decode_v1(a.clone(), V1Schema::V18),
            Ok(Some(V1Message::Content { id: 0, body: data("offer-J", false) }))
        );
        assert_eq!(
            whole(encode_v1_content(0, Side::Member, data("offer-J", false), ContentLayout::V15_1)),
            a.clone()
        );
        assert_eq!(
            whole(encode_v1_content(0, Side::Member, V1Body::Error, ContentLayout::V15_1)),
            bytes("0a0408001801")
        );
        assert_eq!(
            whole(encode_v1_content(0, Side::Member, V1Body::Error, ContentLayout::V15_0)),
            bytes("0a0408002001")
        );
        assert_eq!(
            whole(encode_v1_content(0, Side::Member, V1Body::End, ContentLayout::V15_1)),
            bytes("0a0408002001")
        );
        assert_eq!(
            whole(encode_v1_content(0, Side::Member, V1Body::End, ContentLayout::V15_0)),
            bytes("0a0408001a00")
        );
        for other in ["6f666665722d4a", "", "0800ff", "2205"] {
            assert_eq!(encode_for_any(77, &bytes(other)), None, "{other}");
        }
    }

    /// sigver 15.0.0 numbers ping and pong one lower than 15.0.1.
    #[test]
    fn pings_of_15_0_0_have_fields_of_their_own() {
        let (old, new) = (V1Schema::V15_0_0, V1Schema::V15);
        for (schema, ping, pong, joined) in [(old, "1801", "2001", "2801"), (new, "2001", "2801", "1801")] {
            assert_eq!((schema.ping(), schema.pong()), (bytes(ping), bytes(pong)));
            for (frame, message) in [
                (ping, V1Message::PingOrHeartbeat),
                (pong, V1Message::PongOrTryAnother),
                (joined, V1Message::JoinedOrStable),
            ] {
                assert_eq!(decode_v1(bytes(frame), schema), Ok(Some(message)), "{schema:?} {frame}");
            }
        }
    }

    #[test]
    fn content_for_any_layout_has_data_in_the_field_of_each() {
        let layouts = ContentLayout::VARIANTS.iter().map(|layout| layout.facts());
        let mut fields: Vec<u32> =
            layouts.filter(|facts| facts.message_field == 2).map(|facts| facts.data.into()).collect();
        fields.sort_unstable();
        assert_eq!(fields, DATA_FIELDS);
    }

    #[test]
    fn connect_is_decoded_packed_and_unpacked() {
        let connect = Ok(Some(V2Message::Connect { id: 11, members: vec![1, 2] }));
        assert_eq!(decode_v2(bytes("1a06080b12020102"), ContentLayout::V20), connect);
        assert_eq!(decode_v2(bytes("1a06080b10011002"), ContentLayout::V19), connect);
    }
}
