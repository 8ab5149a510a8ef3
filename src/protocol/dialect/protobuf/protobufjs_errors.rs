//! Why protobufjs would not have decoded a frame, in its own words: the originals close with its error text as
//! the reason. Only the words come from here; what is accepted is decided by prost.

use std::borrow::Cow;

/// The known fields of a message.
pub(super) struct Schema(pub(super) &'static [(u32, Kind)]);

/// How protobufjs reads a known field. It does not look at the wire type.
pub(super) enum Kind {
    Number,
    /// Packed or not.
    Numbers,
    Delimited,
    Message(&'static Schema),
}

/// How deep groups may nest before we stop to look for the words.
const MAX_DEPTH: u32 = 64;

/// What protobufjs says about a frame that prost could not decode.
pub(super) fn complaint(frame: &[u8], schema: &Schema) -> Cow<'static, str> {
    let mut reader = Reader { bytes: frame, at: 0 };
    match reader.message(frame.len(), schema) {
        Err(ProtobufJsError(text)) => text,
        // protobufjs takes a field for what its number says, whatever its wire type: it would have made something
        // of this frame, if hardly what was meant.
        Ok(()) => "a field has the wrong wire type".into(),
    }
}

struct ProtobufJsError(Cow<'static, str>);

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn out_of_range(&self, wanted: usize) -> ProtobufJsError {
        ProtobufJsError(format!("index out of range: {} + {wanted} > {}", self.at, self.bytes.len()).into())
    }

    fn message(&mut self, end: usize, schema: &Schema) -> Result<(), ProtobufJsError> {
        while self.at < end {
            let tag = self.number()?;
            match schema.0.iter().find(|(field, _)| *field == tag >> 3) {
                Some((_, Kind::Number)) => {
                    self.number()?;
                }
                Some((_, Kind::Numbers)) if tag & 7 == 2 => {
                    let end = self.number()? as usize + self.at;
                    while self.at < end {
                        self.number()?;
                    }
                }
                Some((_, Kind::Numbers)) => {
                    self.number()?;
                }
                Some((_, Kind::Delimited)) => {
                    let length = self.number()? as usize;
                    self.advance(length)?;
                }
                Some((_, Kind::Message(schema))) => {
                    let length = self.number()? as usize;
                    self.message(self.at + length, schema)?;
                }
                None => self.skip(tag & 7, 0)?,
            }
        }
        Ok(())
    }

    /// A 32-bit varint; up to five bytes more are passed over, as protobufjs does.
    fn number(&mut self) -> Result<u32, ProtobufJsError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.bytes.get(self.at).copied().unwrap_or(0x80);
            self.at += 1;
            value |= u32::from(byte & 0x7f).wrapping_shl(shift);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        self.at += 5;
        if self.at > self.bytes.len() {
            self.at = self.bytes.len();
            return Err(self.out_of_range(10));
        }
        Ok(value)
    }

    fn advance(&mut self, length: usize) -> Result<(), ProtobufJsError> {
        if self.at + length > self.bytes.len() {
            return Err(self.out_of_range(length.max(1)));
        }
        self.at += length;
        Ok(())
    }

    fn skip(&mut self, kind: u32, depth: u32) -> Result<(), ProtobufJsError> {
        match kind {
            0 => loop {
                let Some(byte) = self.bytes.get(self.at) else {
                    return Err(self.out_of_range(1));
                };
                self.at += 1;
                if byte & 0x80 == 0 {
                    return Ok(());
                }
            },
            1 => self.advance(8),
            2 => {
                let length = self.number()? as usize;
                self.advance(length)
            }
            3 if depth >= MAX_DEPTH => Err(ProtobufJsError("groups are nested too deeply".into())),
            3 => loop {
                let kind = self.number()? & 7;
                if kind == 4 {
                    return Ok(());
                }
                self.skip(kind, depth + 1)?;
            },
            5 => self.advance(4),
            other => Err(ProtobufJsError(format!("invalid wire type {other} at offset {}", self.at).into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONTENT: Schema = Schema(&[(1, Kind::Number), (2, Kind::Delimited)]);
    static OUTER: Schema = Schema(&[(1, Kind::Message(&CONTENT)), (2, Kind::Number)]);

    /// Texts measured on sigver 17.0.1 to 20.1.0.
    #[test]
    fn the_words_of_the_originals() {
        for (frame, words) in [
            (&[0xff, 0xff, 0xff][..], "index out of range: 3 + 10 > 3"),
            (&[0x7f, 0x00], "invalid wire type 7 at offset 1"),
            (&[0x0a, 0xff], "index out of range: 2 + 10 > 2"),
            (&[0x0a, 0x05, 0x08, 0x01], "index out of range: 4 + 10 > 4"),
        ] {
            assert_eq!(complaint(frame, &OUTER), words);
        }
    }

    #[test]
    fn hostile_frames_cost_little() {
        let nested = vec![0x1b; 1 << 20];
        assert_eq!(complaint(&nested, &OUTER), "groups are nested too deeply");
        let long = [&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0u8; 64]].concat();
        complaint(&long, &OUTER);
    }
}
