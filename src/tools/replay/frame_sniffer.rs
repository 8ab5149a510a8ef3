//! WebSocket frames, read from bytes that pass by: what a listener understands of them, which changes nothing about
//! them. Pure.

use super::transcript::{Op, Payload};

/// The longest message that is kept, in bytes: so much memory a direction of a connection takes at most, about.
pub const MAX_MESSAGE: usize = 16 << 20;

/// What passed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SniffedFrame {
    /// A whole message, whatever frames it was in, or a ping or pong.
    Frame(Payload),
    /// A close frame.
    Close {
        /// `None`: without a code.
        code: Option<u16>,
        /// The reason text.
        reason: String,
    },
    /// A message that is too long to be kept.
    TooLong,
    /// From here on this is no WebSocket that can be understood, for this reason. Nothing follows.
    Garbled(&'static str),
}

/// Of the frame at which we are.
#[derive(Clone, Copy, Debug)]
struct Head {
    fin: bool,
    opcode: u8,
    mask: Option<[u8; 4]>,
    /// How much of its payload was there, and how much is to come.
    taken: usize,
    missing: u64,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Reader {
    /// The bytes of a frame's head that are not yet all there.
    begun: Vec<u8>,
    head: Option<Head>,
    /// Of the message whose frames are coming: what it is, and what is in it so far.
    op: Option<Op>,
    message: Vec<u8>,
    too_long: bool,
    control: Vec<u8>,
    garbled: bool,
}

impl Reader {
    /// Takes the next bytes, however they were cut, and tells what came to its end in them.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Vec<SniffedFrame> {
        let mut passed = Vec::new();
        while !self.garbled {
            if self.head.is_none() {
                let Some((byte, rest)) = bytes.split_first() else { break };
                bytes = rest;
                self.begun.push(*byte);
                match parse(&self.begun) {
                    Ok(Some(head)) => {
                        self.begun.clear();
                        self.head = Some(head);
                    }
                    Ok(None) => continue,
                    Err(why) => passed.push(self.give_up(why)),
                }
            }
            if let Some(mut head) = self.head.take() {
                bytes = self.payload(&mut head, bytes);
                if head.missing > 0 {
                    self.head = Some(head);
                    break;
                }
                passed.extend(self.ended(head));
            }
        }
        passed
    }

    fn give_up(&mut self, why: &'static str) -> SniffedFrame {
        *self = Reader { garbled: true, ..Reader::default() };
        SniffedFrame::Garbled(why)
    }

    /// Takes what belongs to the frame, and returns the rest.
    fn payload<'a>(&mut self, head: &mut Head, bytes: &'a [u8]) -> &'a [u8] {
        let length = usize::try_from(head.missing).unwrap_or(usize::MAX).min(bytes.len());
        let (own, rest) = bytes.split_at(length);
        let into = if head.opcode >= 8 { &mut self.control } else { &mut self.message };
        if self.too_long || into.len() + length > MAX_MESSAGE {
            self.too_long = true;
            self.message = Vec::new();
        } else {
            let mask = head.mask.unwrap_or_default();
            into.extend(own.iter().enumerate().map(|(i, byte)| byte ^ mask[(head.taken + i) % 4]));
        }
        head.taken = (head.taken + length) % 4;
        head.missing -= length as u64;
        rest
    }

    fn ended(&mut self, head: Head) -> Option<SniffedFrame> {
        match head.opcode {
            0x0..=0x2 => {
                match (head.opcode, self.op) {
                    (0, None) => return Some(self.give_up("the rest of no message")),
                    (1 | 2, Some(_)) => return Some(self.give_up("a message within a message")),
                    (1, None) => self.op = Some(Op::Text),
                    (2, None) => self.op = Some(Op::Binary),
                    _ => {}
                }
                if !head.fin {
                    return None;
                }
                let bytes = std::mem::take(&mut self.message);
                let op = self.op.take()?;
                Some(match std::mem::take(&mut self.too_long) {
                    true => SniffedFrame::TooLong,
                    false => SniffedFrame::Frame(Payload::new(op, bytes)),
                })
            }
            0x8 => {
                let control = std::mem::take(&mut self.control);
                let (code, reason) = match control.split_first_chunk() {
                    Some((code, reason)) => (Some(u16::from_be_bytes(*code)), reason),
                    None => (None, &[][..]),
                };
                Some(SniffedFrame::Close { code, reason: String::from_utf8_lossy(reason).into_owned() })
            }
            opcode => {
                let op = if opcode == 0x9 { Op::Ping } else { Op::Pong };
                Some(SniffedFrame::Frame(Payload::new(op, std::mem::take(&mut self.control))))
            }
        }
    }
}

/// The head of a frame, if it is all there.
fn parse(bytes: &[u8]) -> Result<Option<Head>, &'static str> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (opcode, masked) = (first & 0x0f, second & 0x80 != 0);
    if first & 0x70 != 0 {
        return Err("a frame of an extension");
    }
    if !matches!(opcode, 0x0..=0x2 | 0x8..=0xa) {
        return Err("a frame of an unknown kind");
    }
    let (length, rest) = match second & 0x7f {
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        short => (u64::from(short), rest),
    };
    if opcode >= 8 && (length > 125 || first & 0x80 == 0) {
        return Err("a control frame that is too long, or in pieces");
    }
    let mask = match (masked, rest.first_chunk()) {
        (true, None) => return Ok(None),
        (true, mask) => mask.copied(),
        (false, _) => None,
    };
    Ok(Some(Head { fin: first & 0x80 != 0, opcode, mask, taken: 0, missing: length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut out = vec![first];
        match payload.len() {
            0..=125 => out.push(bit | payload.len() as u8),
            126..=0xffff => {
                out.push(bit | 126);
                out.extend((payload.len() as u16).to_be_bytes());
            }
            _ => {
                out.push(bit | 127);
                out.extend((payload.len() as u64).to_be_bytes());
            }
        }
        out.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
        out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask.unwrap_or_default()[i % 4]));
        out
    }

    fn text(text: &str) -> SniffedFrame {
        SniffedFrame::Frame(Payload::new(Op::Text, text))
    }

    #[test]
    fn frames_are_understood_however_they_are_cut() {
        let mask = Some([1, 2, 3, 250]);
        let long = vec![7u8; 70_000];
        let stream = [
            frame(0x81, b"hello", mask),
            frame(0x01, b"one, ", None),
            frame(0x89, b"?", mask),
            frame(0x00, b"two, ", mask),
            frame(0x80, b"three", mask),
            frame(0x82, &[9; 300], None),
            frame(0x82, &long, mask),
            frame(0x8a, b"", None),
            frame(0x88, &[0x10, 0xe1, b'w'], mask),
            frame(0x88, b"", None),
        ]
        .concat();
        let expected = vec![
            text("hello"),
            SniffedFrame::Frame(Payload::new(Op::Ping, "?")),
            text("one, two, three"),
            SniffedFrame::Frame(Payload::new(Op::Binary, vec![9; 300])),
            SniffedFrame::Frame(Payload::new(Op::Binary, long)),
            SniffedFrame::Frame(Payload::new(Op::Pong, "")),
            SniffedFrame::Close { code: Some(4321), reason: "w".into() },
            SniffedFrame::Close { code: None, reason: String::new() },
        ];
        for size in [1, 2, 3, 7, 1000, stream.len()] {
            let mut reader = Reader::default();
            let passed: Vec<SniffedFrame> =
                stream.chunks(size).flat_map(|chunk| reader.feed(chunk)).collect();
            assert!(passed == expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_too_long_is_not_kept_and_what_follows_is() {
        let mut reader = Reader::default();
        let mut head = vec![0x82, 127];
        head.extend((MAX_MESSAGE as u64 + 1).to_be_bytes());
        assert_eq!(reader.feed(&head), []);
        for _ in 0..MAX_MESSAGE / 65_536 {
            assert_eq!(reader.feed(&[0; 65_536]), []);
            assert!(reader.message.len() <= MAX_MESSAGE);
        }
        assert_eq!(reader.feed(&[0]), [SniffedFrame::TooLong]);
        assert_eq!(reader.feed(&frame(0x81, b"x", None)), [text("x")]);
    }

    #[test]
    fn garbage_is_said_once() {
        for garbage in [&b"\xc1\x00"[..], b"\x83\x00", b"\x80\x00", b"\x09\x00", b"\x89\x7e\x00\x7e"] {
            let mut reader = Reader::default();
            assert!(matches!(reader.feed(garbage)[..], [SniffedFrame::Garbled(_)]), "{garbage:?}");
            assert_eq!(reader.feed(&frame(0x81, b"x", None)), []);
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, cut in 0usize..64) {
            let mut reader = Reader::default();
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            reader.feed(a);
            reader.feed(b);
        }
    }
}
