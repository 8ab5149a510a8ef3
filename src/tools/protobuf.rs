//! Protobuf without generated code. [`fields`] splits a message without any schema; [`decode`] reads one as
//! the real clients do, with protobufjs: a known field has the type that the schema gives it, whatever its
//! wire type is, and a nested message may read on behind its own end.

use prost::encoding::{decode_varint, encode_varint};

/// The value of a field, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireValue<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5, which no sigver message uses.
    Fixed,
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireField<'a> {
    /// The field number.
    pub number: u64,
    /// Value, by its wire type.
    pub value: WireValue<'a>,
    /// The bytes of the field, tag included.
    pub raw: &'a [u8],
}

/// Splits a message into its fields; `None` if the bytes are not a protobuf message.
pub fn fields(bytes: &[u8]) -> Option<Vec<WireField<'_>>> {
    let mut fields = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let start = rest;
        let tag = decode_varint(&mut rest).ok()?;
        let value = match tag & 7 {
            0 => WireValue::Varint(decode_varint(&mut rest).ok()?),
            1 => {
                rest = rest.get(8..)?;
                WireValue::Fixed
            }
            2 => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let (value, behind) = rest.split_at_checked(length)?;
                rest = behind;
                WireValue::Bytes(value)
            }
            5 => {
                rest = rest.get(4..)?;
                WireValue::Fixed
            }
            _ => return None,
        };
        fields.push(WireField { number: tag >> 3, value, raw: &start[..start.len() - rest.len()] });
    }
    Some(fields)
}

/// Appends a varint in its shortest form.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    encode_varint(value, out);
}

/// Appends a varint field.
pub(crate) fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    encode_varint(field << 3, out);
    encode_varint(value, out);
}

/// Appends a length-delimited field: bytes, or a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    encode_varint(field << 3 | 2, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Returns a varint field.
pub fn number(field: u32, value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, field.into(), value.into());
    out
}

/// Returns a length-delimited field: bytes, or a message.
pub fn delimited(field: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, field.into(), value);
    out
}

/// The type of a known field.
#[derive(Clone, Copy, Debug)]
pub enum FieldType {
    /// A number of 32 bits.
    Number,
    /// Bytes, or text.
    Bytes,
    /// A message.
    Message(Schema),
}

/// The known fields of a message.
pub type Schema = &'static [(u32, FieldType)];

/// The value of a known field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FieldValue {
    /// A number.
    Number(u32),
    /// Bytes, or text.
    Bytes(Vec<u8>),
    /// A message.
    Message(KnownFields),
}

/// The known fields of a message, in the order in which each was first set: the last is the one that a
/// `oneof` holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownFields(pub(crate) Vec<(u32, FieldValue)>);

impl KnownFields {
    /// Returns the number in this field, or 0.
    pub fn number(&self, field: u32) -> u32 {
        match self.get(field) {
            Some(FieldValue::Number(number)) => *number,
            _ => 0,
        }
    }

    /// Returns the bytes in this field, or none.
    pub fn bytes(&self, field: u32) -> &[u8] {
        match self.get(field) {
            Some(FieldValue::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    fn get(&self, field: u32) -> Option<&FieldValue> {
        self.0.iter().find(|(number, _)| *number == field).map(|(_, value)| value)
    }

    fn set(&mut self, field: u32, value: FieldValue) {
        match self.0.iter_mut().find(|(number, _)| *number == field) {
            Some(known) => known.1 = value,
            None => self.0.push((field, value)),
        }
    }
}

/// Decodes a message; `None` where protobufjs throws.
pub fn decode(bytes: &[u8], schema: Schema) -> Option<KnownFields> {
    SchemaReader { bytes, at: 0 }.message(bytes.len(), schema)
}

struct SchemaReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl SchemaReader<'_> {
    fn message(&mut self, end: usize, schema: Schema) -> Option<KnownFields> {
        let mut fields = KnownFields::default();
        while self.at < end {
            let tag = self.number()?;
            let field = tag >> 3;
            match schema.iter().find(|(number, _)| *number == field) {
                None => self.skip(tag & 7)?,
                Some((_, FieldType::Number)) => fields.set(field, FieldValue::Number(self.number()?)),
                Some((_, FieldType::Bytes)) => {
                    let length = self.number()? as usize;
                    let bytes = self.bytes.get(self.at..self.at.checked_add(length)?)?;
                    self.at += length;
                    fields.set(field, FieldValue::Bytes(bytes.to_vec()));
                }
                Some((_, FieldType::Message(inner))) => {
                    let end = (self.number()? as usize).checked_add(self.at)?;
                    fields.set(field, FieldValue::Message(self.message(end, inner)?));
                }
            }
        }
        Some(fields)
    }

    /// Reads a varint, of which protobufjs keeps the lower 32 bits.
    fn number(&mut self) -> Option<u32> {
        let mut rest = self.bytes.get(self.at..)?;
        let number = decode_varint(&mut rest).ok()?;
        self.at = self.bytes.len() - rest.len();
        Some(number as u32)
    }

    fn skip(&mut self, wire_type: u32) -> Option<()> {
        match wire_type {
            0 => {
                self.number()?;
            }
            1 => self.at += 8,
            2 => {
                let length = self.number()? as usize;
                self.at = self.at.checked_add(length)?;
            }
            3 => loop {
                match self.number()? & 7 {
                    4 => break,
                    inner => self.skip(inner)?,
                }
            },
            5 => self.at += 4,
            _ => return None,
        }
        (self.at <= self.bytes.len()).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_fields_are_read_back() {
        let inner = [number(1, 3_971_563_510), delimited(2, b"data")].concat();
        let out = delimited(1, &inner);
        let outer = fields(&out).unwrap();
        assert_eq!((outer.len(), outer[0].number, outer[0].raw), (1, 1, &out[..]));
        assert_eq!(outer[0].value, WireValue::Bytes(&inner));
        let inner = fields(&inner).unwrap();
        assert_eq!((inner[0].number, inner[0].value), (1, WireValue::Varint(3_971_563_510)));
        assert_eq!((inner[1].number, inner[1].value), (2, WireValue::Bytes(b"data")));
    }

    #[test]
    fn garbage_has_no_fields() {
        for bad in [&b"\xff\xff\xff"[..], b"\x0a\xff", b"\x0a\x05\x08\x01", b"\x7f\x00", b"\x0d\x00", b"\x08"]
        {
            assert_eq!(fields(bad), None, "{bad:?}");
        }
        assert_eq!(fields(b""), Some(vec![]));
    }

    #[test]
    fn unknown_field_is_skipped_with_its_length() {
        let frame = [number(1, 7), delimited(9, b"unknown"), number(2, 300)].concat();
        let fields = decode(&frame, &[(1, FieldType::Number), (2, FieldType::Number)]).unwrap();
        assert_eq!((fields.number(1), fields.number(2)), (7, 300));
    }

    #[test]
    fn schema_decides_type_of_field() {
        let fields = decode(&delimited(2, &[]), &[(2, FieldType::Number)]).unwrap();
        assert_eq!(fields.get(2), Some(&FieldValue::Number(0)));
        assert_eq!(decode(&[0x08, 0xff], &[(1, FieldType::Number)]), None);
        assert_eq!(decode(&[0x12, 9, 0], &[(2, FieldType::Bytes)]), None);
    }
}
