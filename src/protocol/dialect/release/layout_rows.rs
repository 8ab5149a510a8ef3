//! The content layouts of the protobuf dialects, one row each: field numbers, and the schemas that protobufjs
//! reads with.

use strum::VariantArray;

use FieldKind::{Delimited, Message, Number, Numbers};

/// Layout of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum ContentLayout {
    /// sigver 15.0.
    V15_0,
    /// sigver 15.1 to 18.
    V15_1,
    /// sigver 19.
    V19,
    /// sigver 20.
    V20,
}

/// Facts about a content layout.
pub(in crate::protocol::dialect) struct LayoutFacts {
    /// Field of a message that is its content.
    pub(in crate::protocol::dialect) message_field: u8,
    pub(in crate::protocol::dialect) addressing: Addressing,
    /// Field of a received content that names the recipient.
    pub(in crate::protocol::dialect) recipient: u8,
    /// Field before the data that marks the last content of a link; 0 if there is none.
    pub(in crate::protocol::dialect) last: u8,
    /// Field of the data, behind the other fields that are sent with data.
    pub(in crate::protocol::dialect) data: u8,
    /// Fields of a message, as protobufjs reads them.
    pub(in crate::protocol::dialect) message: Schema,
    /// Fields of a content, as protobufjs reads them.
    pub(in crate::protocol::dialect) content: Schema,
    /// Names and numbers of the fields of a content.
    pub(in crate::protocol::dialect) docs: &'static str,
}

/// Numbers that name the ends of a link, in the first fields of a sent content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol::dialect) enum Addressing {
    /// The link for a member; for a joiner, always the same number (measured).
    Id { to_joiner: u32 },
    /// The sender and the recipient: the link for the joiner, 0 for the member.
    SenderAndRecipient,
}

/// Known fields of a message.
pub(in crate::protocol::dialect) struct Schema(pub(in crate::protocol::dialect) &'static [(u32, FieldKind)]);

/// Way in which protobufjs reads a known field, whatever its wire type.
pub(in crate::protocol::dialect) enum FieldKind {
    Number,
    /// Packed or not.
    Numbers,
    Delimited,
    Message(&'static Schema),
}

impl ContentLayout {
    /// Returns the row of the layout.
    pub(in crate::protocol::dialect) const fn facts(self) -> &'static LayoutFacts {
        match self {
            ContentLayout::V15_0 => &V15_0,
            ContentLayout::V15_1 => &V15_1,
            ContentLayout::V19 => &V19,
            ContentLayout::V20 => &V20,
        }
    }

    /// Returns the number of the field that holds the data.
    pub(crate) const fn data_field(self) -> u8 {
        self.facts().data
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::{detect_v1_layout, detect_v2_layout};

    #[test]
    fn content_schemas_have_the_fields_of_their_rows() {
        for layout in ContentLayout::VARIANTS {
            let facts = layout.facts();
            let has = |number: u8, is_delimited| {
                let is_field = |(of_field, kind): &(u32, FieldKind)| {
                    *of_field == u32::from(number) && matches!(kind, Delimited) == is_delimited
                };
                facts.content.0.iter().any(is_field)
            };
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
