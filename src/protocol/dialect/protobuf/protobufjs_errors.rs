//! Error texts of protobufjs: the Node.js servers close with them where a frame cannot be decoded. Only the
//! texts come from here; prost decides which frames are accepted.

use std::borrow::Cow;

use crate::protocol::dialect::release::{FieldKind, Schema};

/// Depth of nested groups from which on the text is ours.
const MAX_DEPTH: u32 = 64;

/// Text for groups that are nested deeper than [`MAX_DEPTH`].
pub(in crate::protocol::dialect) const TOO_DEEP: &str = "groups are nested too deeply";

/// Returns the error text of protobufjs for a frame that prost could not decode.
pub(super) fn decode_error_text(frame: &[u8], schema: &Schema) -> Cow<'static, str> {
    let mut reader = Reader { bytes: frame, position: 0 };
    match reader.message(frame.len(), schema) {
        Err(ProtobufJsError(text)) => text,
        // protobufjs accepts a field of the wrong wire type, and reads something else than was meant.
        Ok(()) => "a field has the wrong wire type".into(),
    }
}

struct ProtobufJsError(Cow<'static, str>);

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Reader<'_> {
    fn out_of_range(&self, wanted: usize) -> ProtobufJsError {
        let (position, length) = (self.position, self.bytes.len());
        ProtobufJsError(format!("index out of range: {position} + {wanted} > {length}").into())
    }

    fn message(&mut self, end: usize, schema: &Schema) -> Result<(), ProtobufJsError> {
        while self.position < end {
            let tag = self.number()?;
            match schema.0.iter().find(|(field, _)| *field == tag >> 3) {
                Some((_, FieldKind::Number)) => {
                    self.number()?;
                }
                Some((_, FieldKind::Numbers)) if tag & 7 == 2 => {
                    let end = (self.number()? as usize).saturating_add(self.position);
                    while self.position < end {
                        self.number()?;
                    }
                }
                Some((_, FieldKind::Numbers)) => {
                    self.number()?;
                }
                Some((_, FieldKind::Delimited)) => {
                    let length = self.number()? as usize;
                    self.advance(length)?;
                }
                Some((_, FieldKind::Message(schema))) => {
                    let length = self.number()? as usize;
                    self.message(self.position.saturating_add(length), schema)?;
                }
                None => self.skip(tag & 7, 0)?,
            }
        }
        Ok(())
    }

    /// Reads a varint of 32 bits, and skips up to five more bytes, as protobufjs does.
    fn number(&mut self) -> Result<u32, ProtobufJsError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.bytes.get(self.position).copied().unwrap_or(0x80);
            self.position = self.position.saturating_add(1);
            value |= u32::from(byte & 0x7f).wrapping_shl(shift);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        self.position = self.position.saturating_add(5);
        if self.position > self.bytes.len() {
            self.position = self.bytes.len();
            return Err(self.out_of_range(10));
        }
        Ok(value)
    }

    fn advance(&mut self, length: usize) -> Result<(), ProtobufJsError> {
        let end = self.position.saturating_add(length);
        if end > self.bytes.len() {
            return Err(self.out_of_range(length.max(1)));
        }
        self.position = end;
        Ok(())
    }

    fn skip(&mut self, wire_type: u32, depth: u32) -> Result<(), ProtobufJsError> {
        match wire_type {
            0 => loop {
                let Some(byte) = self.bytes.get(self.position) else {
                    return Err(self.out_of_range(1));
                };
                self.position = self.position.saturating_add(1);
                if byte & 0x80 == 0 {
                    return Ok(());
                }
            },
            1 => self.advance(8),
            2 => {
                let length = self.number()? as usize;
                self.advance(length)
            }
            3 if depth >= MAX_DEPTH => Err(ProtobufJsError(TOO_DEEP.into())),
            3 => loop {
                let wire_type = self.number()? & 7;
                if wire_type == 4 {
                    return Ok(());
                }
                self.skip(wire_type, depth.saturating_add(1))?;
            },
            5 => self.advance(4),
            other => {
                let text = format!("invalid wire type {other} at offset {}", self.position);
                Err(ProtobufJsError(text.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONTENT: Schema = Schema(&[(1, FieldKind::Number), (2, FieldKind::Delimited)]);
    static OUTER: Schema = Schema(&[(1, FieldKind::Message(&CONTENT)), (2, FieldKind::Number)]);

    /// Texts measured on sigver 17.0.1 to 20.1.0.
    #[test]
    fn error_texts_match_the_node_servers() {
        for (frame, words) in [
            (&[0xff, 0xff, 0xff][..], "index out of range: 3 + 10 > 3"),
            (&[0x7f, 0x00], "invalid wire type 7 at offset 1"),
            (&[0x0a, 0xff], "index out of range: 2 + 10 > 2"),
            (&[0x0a, 0x05, 0x08, 0x01], "index out of range: 4 + 10 > 4"),
        ] {
            assert_eq!(decode_error_text(frame, &OUTER), words);
        }
    }

    #[test]
    fn hostile_frames_end() {
        let nested = vec![0x1b; 1 << 20];
        assert_eq!(decode_error_text(&nested, &OUTER), "groups are nested too deeply");
        // A length beyond the end of the frame.
        let long = [&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0u8; 64]].concat();
        assert_eq!(decode_error_text(&long, &OUTER), "index out of range: 70 + 10 > 70");
    }
}
