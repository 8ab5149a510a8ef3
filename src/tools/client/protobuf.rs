//! Protobuf as the real clients read it, with protobufjs: the type of a known field is what the schema says,
//! whatever the wire says, and nothing keeps a nested message from reading on behind its end.

/// What a known field holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A number of 32 bits.
    Number,
    /// Bytes, or text.
    Bytes,
    /// A message.
    Message(Schema),
}

/// The known fields of a message.
pub type Schema = &'static [(u32, Kind)];

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(u32),
    /// Bytes, or text.
    Bytes(Vec<u8>),
    /// A message.
    Message(Fields),
}

/// The fields of a message, in the order in which they were first set: the last is what a oneof holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(pub Vec<(u32, Value)>);

impl Fields {
    /// A number, or 0.
    pub fn number(&self, field: u32) -> u32 {
        match self.get(field) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        }
    }

    /// Bytes, or none.
    pub fn bytes(&self, field: u32) -> &[u8] {
        match self.get(field) {
            Some(Value::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    /// A field, if it was set.
    pub fn get(&self, field: u32) -> Option<&Value> {
        self.0.iter().find(|(number, _)| *number == field).map(|(_, value)| value)
    }

    fn set(&mut self, field: u32, value: Value) {
        match self.0.iter_mut().find(|(number, _)| *number == field) {
            Some(known) => known.1 = value,
            None => self.0.push((field, value)),
        }
    }
}

/// Reads a message; `None` where protobufjs throws.
pub fn decode(bytes: &[u8], schema: Schema) -> Option<Fields> {
    Reader { bytes, at: 0 }.message(bytes.len(), schema)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn message(&mut self, end: usize, schema: Schema) -> Option<Fields> {
        let mut fields = Fields::default();
        while self.at < end {
            let tag = self.number()?;
            let field = tag >> 3;
            match schema.iter().find(|(number, _)| *number == field) {
                None => self.skip(tag & 7)?,
                Some((_, Kind::Number)) => fields.set(field, Value::Number(self.number()?)),
                Some((_, Kind::Bytes)) => {
                    let length = self.number()? as usize;
                    let bytes = self.bytes.get(self.at..self.at.checked_add(length)?)?;
                    self.at += length;
                    fields.set(field, Value::Bytes(bytes.to_vec()));
                }
                Some((_, Kind::Message(inner))) => {
                    let end = (self.number()? as usize).checked_add(self.at)?;
                    fields.set(field, Value::Message(self.message(end, inner)?));
                }
            }
        }
        Some(fields)
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            if shift < 64 {
                number |= u64::from(byte & 0x7f) << shift;
            }
            if byte < 0x80 {
                return Some(number as u32);
            }
        }
        None
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

/// A field with a number.
pub fn number(field: u32, value: u32) -> Vec<u8> {
    let mut bytes = varint(field << 3);
    bytes.extend(varint(value));
    bytes
}

/// A field with a length: bytes, or a message.
pub fn delimited(field: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = varint(field << 3 | 2);
    bytes.extend(varint(value.len() as u32));
    bytes.extend(value);
    bytes
}

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_skipped_with_its_length() {
        let frame = [number(1, 7), delimited(9, b"unknown"), number(2, 300)].concat();
        let fields = decode(&frame, &[(1, Kind::Number), (2, Kind::Number)]).unwrap();
        assert_eq!((fields.number(1), fields.number(2)), (7, 300));
    }

    #[test]
    fn a_field_is_what_the_schema_says_whatever_the_wire_says() {
        let fields = decode(&delimited(2, &[]), &[(2, Kind::Number)]).unwrap();
        assert_eq!(fields.get(2), Some(&Value::Number(0)));
        assert_eq!(decode(&[0x08, 0xff], &[(1, Kind::Number)]), None);
        assert_eq!(decode(&[0x12, 9, 0], &[(2, Kind::Bytes)]), None);
    }
}
