//! Reassembles WebSocket messages from bytes that are forwarded unchanged, however they were split. Pure.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::transcript::{FrameKind, RecordedFrame};

/// Longest message that is kept, in bytes: the bound of the memory that one direction of a connection takes.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;

/// A message or frame found in the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SniffedFrame {
    /// A complete message, reassembled from its frames, or a ping or pong.
    Frame(RecordedFrame),
    /// A close frame.
    Close {
        /// The close code; `None` if the frame has none.
        code: Option<u16>,
        /// The reason text.
        reason: String,
    },
    /// A message that is too long to be kept.
    TooLong,
    /// Bytes that are not WebSocket frames, with the reason. The sniffer reports nothing after this.
    Unparseable(&'static str),
}

/// The frame whose payload is being received.
#[derive(Clone, Copy, Debug)]
struct FrameInProgress {
    is_final: bool,
    opcode: OpCode,
    mask: Option<[u8; 4]>,
    /// Position in the mask of the next byte.
    mask_offset: usize,
    /// Number of payload bytes that have not arrived.
    missing: u64,
}

/// A sniffer for one direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct FrameSniffer {
    /// Bytes of an incomplete frame head.
    partial_head: Vec<u8>,
    frame: Option<FrameInProgress>,
    /// Kind and payload so far of the message whose frames are being received.
    kind: Option<FrameKind>,
    message: Vec<u8>,
    too_long: bool,
    control: Vec<u8>,
    has_given_up: bool,
}

impl FrameSniffer {
    /// Processes the next bytes. Returns the messages and frames that they complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Vec<SniffedFrame> {
        let mut found = Vec::new();
        while !self.has_given_up {
            if self.frame.is_none() {
                let Some((byte, rest)) = bytes.split_first() else { break };
                bytes = rest;
                self.partial_head.push(*byte);
                match parse_head(&self.partial_head) {
                    Ok(Some(frame)) => {
                        self.partial_head.clear();
                        self.frame = Some(frame);
                    }
                    Ok(None) => continue,
                    Err(reason) => found.push(self.give_up(reason)),
                }
            }
            if let Some(mut frame) = self.frame.take() {
                bytes = self.take_payload(&mut frame, bytes);
                if frame.missing > 0 {
                    self.frame = Some(frame);
                    break;
                }
                found.extend(self.finish(&frame));
            }
        }
        found
    }

    fn give_up(&mut self, reason: &'static str) -> SniffedFrame {
        *self = FrameSniffer { has_given_up: true, ..FrameSniffer::default() };
        SniffedFrame::Unparseable(reason)
    }

    /// Takes the payload of the frame from the front of `bytes`, and returns the rest.
    fn take_payload<'a>(&mut self, frame: &mut FrameInProgress, bytes: &'a [u8]) -> &'a [u8] {
        let length = usize::try_from(frame.missing).unwrap_or(usize::MAX).min(bytes.len());
        let (own, rest) = bytes.split_at(length);
        let into =
            if matches!(frame.opcode, OpCode::Control(_)) { &mut self.control } else { &mut self.message };
        if self.too_long || into.len() + length > MAX_MESSAGE {
            self.too_long = true;
            self.message = Vec::new();
        } else {
            let mask = frame.mask.unwrap_or_default();
            into.extend(own.iter().enumerate().map(|(i, byte)| byte ^ mask[(frame.mask_offset + i) % 4]));
        }
        frame.mask_offset = (frame.mask_offset + length) % 4;
        frame.missing -= length as u64;
        rest
    }

    fn finish(&mut self, frame: &FrameInProgress) -> Option<SniffedFrame> {
        match frame.opcode {
            OpCode::Data(data) => {
                match (data, self.kind) {
                    (Data::Continue, None) => return Some(self.give_up("a continuation of no message")),
                    (Data::Text | Data::Binary, Some(_)) => {
                        return Some(self.give_up("a message within a message"));
                    }
                    (Data::Text, None) => self.kind = Some(FrameKind::Text),
                    (Data::Binary, None) => self.kind = Some(FrameKind::Binary),
                    (Data::Continue, Some(_)) | (Data::Reserved(_), _) => {}
                }
                if !frame.is_final {
                    return None;
                }
                let bytes = std::mem::take(&mut self.message);
                let kind = self.kind.take()?;
                Some(match std::mem::take(&mut self.too_long) {
                    true => SniffedFrame::TooLong,
                    false => SniffedFrame::Frame(RecordedFrame::new(kind, bytes)),
                })
            }
            OpCode::Control(Control::Close) => {
                let control = std::mem::take(&mut self.control);
                let (code, reason) = match control.split_first_chunk() {
                    Some((code, reason)) => (Some(u16::from_be_bytes(*code)), reason),
                    None => (None, &[][..]),
                };
                Some(SniffedFrame::Close { code, reason: String::from_utf8_lossy(reason).into_owned() })
            }
            OpCode::Control(control) => {
                let kind = if control == Control::Ping { FrameKind::Ping } else { FrameKind::Pong };
                Some(SniffedFrame::Frame(RecordedFrame::new(kind, std::mem::take(&mut self.control))))
            }
        }
    }
}

/// Parses the head of a frame; `None` if it is not complete.
fn parse_head(bytes: &[u8]) -> Result<Option<FrameInProgress>, &'static str> {
    let head = FrameHeader::parse(&mut Cursor::new(bytes)).map_err(|_| "a frame of an unknown kind")?;
    let Some((head, length)) = head else { return Ok(None) };
    if head.rsv1 || head.rsv2 || head.rsv3 {
        return Err("a frame of an extension");
    }
    if matches!(head.opcode, OpCode::Control(_)) && (length > 125 || !head.is_final) {
        return Err("a control frame that is too long or fragmented");
    }
    let FrameHeader { is_final, opcode, mask, .. } = head;
    Ok(Some(FrameInProgress { is_final, opcode, mask, mask_offset: 0, missing: length }))
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
        SniffedFrame::Frame(RecordedFrame::new(FrameKind::Text, text))
    }

    #[test]
    fn messages_are_reassembled_however_split() {
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
            SniffedFrame::Frame(RecordedFrame::new(FrameKind::Ping, "?")),
            text("one, two, three"),
            SniffedFrame::Frame(RecordedFrame::new(FrameKind::Binary, vec![9; 300])),
            SniffedFrame::Frame(RecordedFrame::new(FrameKind::Binary, long)),
            SniffedFrame::Frame(RecordedFrame::new(FrameKind::Pong, "")),
            SniffedFrame::Close { code: Some(4321), reason: "w".into() },
            SniffedFrame::Close { code: None, reason: String::new() },
        ];
        for size in [1, 2, 3, 7, 1000, stream.len()] {
            let mut reader = FrameSniffer::default();
            let found: Vec<SniffedFrame> = stream.chunks(size).flat_map(|chunk| reader.feed(chunk)).collect();
            assert!(found == expected, "in pieces of {size}");
        }
    }

    #[test]
    fn too_long_message_is_dropped_and_next_is_kept() {
        let mut reader = FrameSniffer::default();
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
    fn garbage_is_reported_once() {
        for garbage in [&b"\xc1\x00"[..], b"\x83\x00", b"\x80\x00", b"\x09\x00", b"\x89\x7e\x00\x7e"] {
            let mut reader = FrameSniffer::default();
            assert!(matches!(reader.feed(garbage)[..], [SniffedFrame::Unparseable(_)]), "{garbage:?}");
            assert_eq!(reader.feed(&frame(0x81, b"x", None)), []);
        }
    }

    proptest::proptest! {
        /// Any bytes give the same result however they are split, and nothing after they are unparseable.
        #[test]
        fn result_does_not_depend_on_split(bytes: Vec<u8>, cut in 0usize..64) {
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let mut whole = FrameSniffer::default();
            let expected = whole.feed(&bytes);
            let mut split = FrameSniffer::default();
            let found = [split.feed(a), split.feed(b)].concat();
            proptest::prop_assert_eq!(&found, &expected);
            let end = found.iter().position(|frame| matches!(frame, SniffedFrame::Unparseable(_)));
            proptest::prop_assert!(end.is_none_or(|end| end + 1 == found.len() && split.feed(b"\x81\x00").is_empty()));
        }

        #[test]
        fn written_messages_are_found(
            messages in proptest::collection::vec((proptest::bool::ANY, proptest::collection::vec(0u8.., 0..300)), 0..6),
            mask in proptest::option::of(proptest::array::uniform4(0u8..)),
            size in 1usize..64,
        ) {
            let first = |is_text| if is_text { 0x81 } else { 0x82 };
            let bytes: Vec<u8> =
                messages.iter().flat_map(|(is_text, payload)| frame(first(*is_text), payload, mask)).collect();
            let kind = |is_text| if is_text { FrameKind::Text } else { FrameKind::Binary };
            let expected: Vec<SniffedFrame> = messages
                .iter()
                .map(|(is_text, payload)| SniffedFrame::Frame(RecordedFrame::new(kind(*is_text), payload.clone())))
                .collect();
            let mut sniffer = FrameSniffer::default();
            let found: Vec<SniffedFrame> = bytes.chunks(size).flat_map(|chunk| sniffer.feed(chunk)).collect();
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
