//! The protobuf wire format, read and written without any schema: just enough to find an id and replace it.

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5, which no sigver message uses.
    Fixed,
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field number.
    pub number: u64,
    /// Its value.
    pub value: Value<'a>,
    /// The whole field as it stood, tag included.
    pub raw: &'a [u8],
}

fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, b) in bytes.iter().take(10).enumerate() {
        value |= u64::from(b & 0x7f).checked_shl(7 * u32::try_from(i).ok()?)?;
        if b & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Appends a varint in its shortest form.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint field.
pub fn put_number(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

/// Appends a length-delimited field.
pub fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The fields of a message; `None` if the bytes are not a protobuf message.
pub fn fields(bytes: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (tag, mut len) = varint(rest)?;
        let value = match tag & 7 {
            0 => {
                let (value, n) = varint(rest.get(len..)?)?;
                len += n;
                Value::Varint(value)
            }
            1 => {
                len += 8;
                Value::Fixed
            }
            2 => {
                let (size, n) = varint(rest.get(len..)?)?;
                let start = len + n;
                len = start.checked_add(usize::try_from(size).ok()?)?;
                Value::Bytes(rest.get(start..len)?)
            }
            5 => {
                len += 4;
                Value::Fixed
            }
            _ => return None,
        };
        fields.push(Field { number: tag >> 3, value, raw: rest.get(..len)? });
        rest = &rest[len..];
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut inner = Vec::new();
        put_number(&mut inner, 1, 3_971_563_510);
        put_bytes(&mut inner, 2, b"data");
        let mut out = Vec::new();
        put_bytes(&mut out, 1, &inner);
        let outer = fields(&out).unwrap();
        assert_eq!(outer.len(), 1);
        assert_eq!((outer[0].number, outer[0].value), (1, Value::Bytes(&inner)));
        let inner = fields(&inner).unwrap();
        assert_eq!((inner[0].number, inner[0].value), (1, Value::Varint(3_971_563_510)));
        assert_eq!((inner[1].number, inner[1].value), (2, Value::Bytes(b"data")));
    }

    #[test]
    fn garbage_is_not_a_message() {
        for bad in [&b"\xff\xff\xff"[..], b"\x0a\xff", b"\x0a\x05\x08\x01", b"\x7f\x00", b"\x0d\x00", b"\x08"]
        {
            assert_eq!(fields(bad), None, "{bad:?}");
        }
        assert_eq!(fields(b""), Some(vec![]));
    }
}
