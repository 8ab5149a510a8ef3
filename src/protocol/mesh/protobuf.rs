//! Fields of the protobuf messages between netflux peers. They are few, and every field is written, also
//! with its default value, as protobufjs does for fields that were set.

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<u8>);

impl Fields {
    pub(super) fn new() -> Self {
        Fields(Vec::new())
    }

    /// Appends a number.
    pub(super) fn number(mut self, field: u32, value: u32) -> Self {
        encode_varint(u64::from(field) << 3, &mut self.0);
        encode_varint(value.into(), &mut self.0);
        self
    }

    /// Appends bytes or text.
    pub(super) fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        encode_varint(u64::from(field) << 3 | 2, &mut self.0);
        encode_varint(value.len() as u64, &mut self.0);
        self.0.extend_from_slice(value);
        self
    }

    /// Appends a message.
    pub(super) fn message(self, field: u32, value: Fields) -> Self {
        self.bytes(field, &value.0)
    }

    /// Appends packed numbers; no field if there are none, as protobufjs.
    pub(super) fn packed(self, field: u32, values: &[u32]) -> Self {
        if values.is_empty() {
            return self;
        }
        let mut packed = Vec::new();
        for value in values {
            encode_varint((*value).into(), &mut packed);
        }
        self.bytes(field, &packed)
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.0.into()
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(u32),
    Bytes(Bytes),
}

/// Most fields in a message that is read; a longer one is refused. Only lists of ids that are not packed,
/// which no client writes, could be longer.
const MAX_FIELDS: usize = 4_096;

/// A message that was read. Nested messages are read when they are asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ReadFields(Vec<(u32, Value)>);

impl ReadFields {
    /// Splits a message into its fields. Numbers keep their lower 32 bits, as in protobufjs. `None` if the
    /// bytes are no message.
    pub(super) fn read(bytes: &Bytes) -> Option<Self> {
        let mut rest = bytes.clone();
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let tag = decode_varint(&mut rest).ok()?;
            let field = u32::try_from(tag >> 3).ok()?;
            let value = match tag & 7 {
                0 => Value::Number(decode_varint(&mut rest).ok()? as u32),
                2 => {
                    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                    if length > rest.len() || fields.len() >= MAX_FIELDS {
                        return None;
                    }
                    Value::Bytes(rest.split_to(length))
                }
                _ => return None,
            };
            if fields.len() >= MAX_FIELDS {
                return None;
            }
            fields.push((field, value));
        }
        Some(ReadFields(fields))
    }

    fn last(&self, field: u32) -> Option<&Value> {
        self.0.iter().rev().find(|(number, _)| *number == field).map(|(_, value)| value)
    }

    /// Returns true if the field was written.
    pub(super) fn has(&self, field: u32) -> bool {
        self.last(field).is_some()
    }

    /// Returns a number, or 0.
    pub(super) fn number(&self, field: u32) -> u32 {
        match self.last(field) {
            Some(Value::Number(number)) => *number,
            Some(Value::Bytes(_)) | None => 0,
        }
    }

    /// Returns bytes, if the field has some.
    pub(super) fn bytes(&self, field: u32) -> Option<Bytes> {
        match self.last(field)? {
            Value::Bytes(bytes) => Some(bytes.clone()),
            Value::Number(_) => None,
        }
    }

    /// Returns a text, if the field has one.
    pub(super) fn text(&self, field: u32) -> Option<String> {
        String::from_utf8(self.bytes(field)?.into()).ok()
    }

    /// Returns a nested message, if the field has one.
    pub(super) fn message(&self, field: u32) -> Option<ReadFields> {
        ReadFields::read(&self.bytes(field)?)
    }

    /// Returns numbers, packed or not, at most `max` of them.
    pub(super) fn numbers(&self, field: u32, max: usize) -> Vec<u32> {
        let mut found = Vec::new();
        for (number, value) in &self.0 {
            match value {
                Value::Number(value) if *number == field => found.push(*value),
                Value::Bytes(bytes) if *number == field => {
                    let mut rest = bytes.clone();
                    while !rest.is_empty() && found.len() < max {
                        match decode_varint(&mut rest) {
                            Ok(value) => found.push(value as u32),
                            Err(_) => break,
                        }
                    }
                }
                Value::Number(_) | Value::Bytes(_) => {}
            }
        }
        found.truncate(max);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_fields_are_read_back() {
        let bytes = Fields::new()
            .number(1, u32::MAX)
            .message(2, Fields::new().bytes(3, b"text").number(4, 0))
            .packed(5, &[1, 300, u32::MAX])
            .packed(6, &[])
            .into_bytes();
        let fields = ReadFields::read(&bytes).unwrap();
        assert_eq!(fields.number(1), u32::MAX);
        let inner = fields.message(2).unwrap();
        assert_eq!((inner.text(3).as_deref(), inner.has(4), inner.number(4)), (Some("text"), true, 0));
        assert_eq!(fields.numbers(5, 9), [1, 300, u32::MAX]);
        assert_eq!(fields.numbers(5, 2), [1, 300]);
        assert!(!fields.has(6));
    }

    #[test]
    fn unpacked_numbers_are_read_as_packed_ones() {
        let bytes = Fields::new().number(1, 7).number(1, 8).into_bytes();
        assert_eq!(ReadFields::read(&bytes).unwrap().numbers(1, 9), [7, 8]);
    }

    #[test]
    fn garbage_is_no_message() {
        for bad in [&b"\xff\xff\xff"[..], b"\x0a\xff", b"\x0a\x05\x08\x01", b"\x7f\x00", b"\x0d\x00", b"\x08"]
        {
            assert_eq!(ReadFields::read(&Bytes::copy_from_slice(bad)), None, "{bad:?}");
        }
        assert_eq!(ReadFields::read(&Bytes::new()), Some(ReadFields::default()));
    }
}
