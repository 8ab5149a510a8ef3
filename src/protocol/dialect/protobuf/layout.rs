//! Content layouts of the protobuf dialects: field numbers, detection, and the schemas that protobufjs reads
//! with.

use prost::encoding::decode_varint;
use strum::VariantArray as _;

use super::protobufjs_errors::Kind::{Delimited, Message, Number, Numbers};
use super::protobufjs_errors::Schema;
use crate::protocol::dialect::ContentLayout;

/// Facts about a content layout.
pub(super) struct LayoutFacts {
    /// Field of a message that is its content.
    pub(super) message_field: u8,
    pub(super) addressing: Addressing,
    /// Field of a received content that names the recipient.
    pub(super) recipient: u8,
    /// Field before the data that marks the last content of a link; 0 if there is none.
    pub(super) last: u8,
    /// Field of the data, behind the other fields that are sent with data.
    pub(super) data: u8,
    /// Fields of a message, as protobufjs reads them.
    pub(super) message: Schema,
    /// Fields of a content, as protobufjs reads them.
    content: Schema,
    /// Names and numbers of the fields of a content.
    pub(super) docs: &'static str,
}

/// Numbers that name the ends of a link, in the first fields of a sent content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addressing {
    /// The link for a member; for a joiner, always the same number (measured).
    Id { to_joiner: u32 },
    /// The sender and the recipient: the link for the joiner, 0 for the member.
    SenderAndRecipient,
}

impl ContentLayout {
    /// Returns the row of the layout.
    pub(super) const fn facts(self) -> &'static LayoutFacts {
        match self {
            ContentLayout::V15_0 => &V15_0,
            ContentLayout::V15_1 => &V15_1,
            ContentLayout::V19 => &V19,
            ContentLayout::V20 => &V20,
        }
    }

    /// Returns the names and numbers of the fields of a content.
    pub(in crate::protocol::dialect) const fn docs(self) -> &'static str {
        self.facts().docs
    }
}

const V15_0: LayoutFacts = LayoutFacts {
    message_field: 1,
    addressing: Addressing::Id { to_joiner: 0 },
    recipient: 1,
    last: 2,
    data: 3,
    message: Schema(&[(1, Message(&CONTENT_15_0)), (2, Number), (3, Number), (4, Number), (5, Number)]),
    content: CONTENT_15_0,
    docs: "id 1, isEnd 2, data 3, isError 4",
};

const V15_1: LayoutFacts = LayoutFacts {
    last: 0,
    data: 2,
    message: Schema(&[(1, Message(&CONTENT_15_1)), (2, Number), (3, Number), (4, Number), (5, Number)]),
    content: CONTENT_15_1,
    docs: "id 1, data 2, isError 3, isEnd 4",
    ..V15_0
};

const V19: LayoutFacts = LayoutFacts {
    message_field: 2,
    addressing: Addressing::Id { to_joiner: 1 },
    recipient: 1,
    last: 2,
    data: 3,
    message: Schema(&[(1, Number), (2, Message(&CONTENT_19)), (3, Message(&GROUP)), (4, Number)]),
    content: CONTENT_19,
    docs: "id 1, lastData 2, data 3",
};

const V20: LayoutFacts = LayoutFacts {
    addressing: Addressing::SenderAndRecipient,
    recipient: 2,
    last: 3,
    data: 4,
    message: Schema(&[(1, Number), (2, Message(&CONTENT_20)), (3, Message(&GROUP)), (4, Number)]),
    content: CONTENT_20,
    docs: "senderId 1, recipientId 2, lastData 3, data 4",
    ..V19
};

const CONTENT_15_0: Schema = Schema(&[(1, Number), (2, Number), (3, Delimited), (4, Number)]);
const CONTENT_15_1: Schema = Schema(&[(1, Number), (2, Delimited), (3, Number), (4, Number)]);
const CONTENT_19: Schema = Schema(&[(1, Number), (2, Number), (3, Delimited)]);
const CONTENT_20: Schema = Schema(&[(1, Number), (2, Number), (3, Number), (4, Delimited)]);
/// Id and ids of members that a client of sigver 19 or newer sends to connect.
const GROUP: Schema = Schema(&[(1, Number), (2, Numbers)]);

/// Returns the layout of a content of sigver 15 to 18; `None` if no field of it is only in one layout.
pub(crate) fn detect_v1_layout(frame: &[u8]) -> Option<ContentLayout> {
    detect(frame, 1)
}

/// Returns the layout of a content of sigver 19 or newer; `None` if no field of it is only in one layout.
pub(crate) fn detect_v2_layout(frame: &[u8]) -> Option<ContentLayout> {
    detect(frame, 2)
}

/// Returns the layout of the content in `message_field`: the first field that only one layout has determines
/// it.
fn detect(mut frame: &[u8], message_field: u8) -> Option<ContentLayout> {
    if Field::read(&mut frame)? != (Field { number: message_field.into(), is_delimited: true }) {
        return None;
    }
    let mut content = take_delimited(&mut frame)?;
    while !content.is_empty() {
        let field = Field::read(&mut content)?;
        let mut layouts = ContentLayout::VARIANTS.iter().copied().filter(|layout| {
            let facts = layout.facts();
            facts.message_field == message_field && facts.content.has(field)
        });
        if let (Some(layout), None) = (layouts.next(), layouts.next()) {
            return Some(layout);
        }
        if field.is_delimited {
            take_delimited(&mut content)?;
        } else {
            decode_varint(&mut content).ok()?;
        }
    }
    None
}

/// Tag of a field that is a number or has a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) is_delimited: bool,
}

impl Field {
    /// Reads a tag; `None` if it is of another wire type.
    pub(super) fn read(bytes: &mut &[u8]) -> Option<Field> {
        let tag = u32::try_from(decode_varint(bytes).ok()?).ok()?;
        let is_delimited = match tag & 7 {
            0 => false,
            2 => true,
            _ => return None,
        };
        Some(Field { number: tag >> 3, is_delimited })
    }
}

/// Reads a length, and as many bytes.
pub(super) fn take_delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

impl Schema {
    /// Returns true if the field is one of the schema, and of its kind.
    fn has(&self, field: Field) -> bool {
        self.0.iter().any(|(number, kind)| {
            *number == field.number && matches!(kind, Delimited | Message(_)) == field.is_delimited
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_schemas_have_the_fields_of_their_rows() {
        for layout in ContentLayout::VARIANTS {
            let facts = layout.facts();
            let has =
                |number: u8, is_delimited| facts.content.has(Field { number: number.into(), is_delimited });
            assert!(has(facts.data, true) && has(facts.recipient, false), "{layout:?}");
            assert!(facts.last == 0 || has(facts.last, false), "{layout:?}");
            for (number, _) in facts.content.0 {
                assert!(facts.docs.contains(&format!(" {number}")), "{layout:?}");
            }
        }
    }

    #[test]
    fn field_of_one_layout_determines_it() {
        for (frame, expected) in [
            (&[0x0a, 0x04, 0x08, 0x00, 0x12, 0x00][..], Some(ContentLayout::V15_1)),
            (&[0x0a, 0x02, 0x18, 0x01], Some(ContentLayout::V15_1)),
            (&[0x0a, 0x04, 0x10, 0x00, 0x1a, 0x00], Some(ContentLayout::V15_0)),
            // An end in one layout, an error in the other.
            (&[0x0a, 0x04, 0x08, 0x00, 0x20, 0x01], None),
            (&[0x0a, 0xff], None),
            (&[0x0a], None),
            (&[0x0a, 0x05, 0x08], None),
            (&[0x0a, 0x03, 0xff, 0xff, 0xff], None),
            (&[0x0a, 0x02, 0xff, 0x01], None),
            (&[], None),
        ] {
            assert_eq!(detect_v1_layout(frame), expected, "{frame:?}");
        }
        for (frame, expected) in [
            (&[0x12, 0x04, 0x08, 0x01, 0x1a, 0x00][..], Some(ContentLayout::V19)),
            (&[0x12, 0x04, 0x08, 0x0a, 0x18, 0x01], Some(ContentLayout::V20)),
            (&[0x12, 0x06, 0x08, 0x00, 0x10, 0x01, 0x22, 0x00], Some(ContentLayout::V20)),
            (&[0x12, 0x04, 0x08, 0x0a, 0x10, 0x01], None),
        ] {
            assert_eq!(detect_v2_layout(frame), expected, "{frame:?}");
        }
    }
}
