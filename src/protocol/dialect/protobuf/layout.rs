//! Detection of content layouts.

use prost::encoding::decode_varint;
use strum::VariantArray as _;

use crate::protocol::dialect::ContentLayout;
use crate::protocol::dialect::release::FieldKind::{Delimited, Message};
use crate::protocol::dialect::release::Schema;

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
