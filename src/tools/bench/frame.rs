//! WebSocket frames for a load generator: masked once and sent repeatedly; of received frames only the head
//! is parsed.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;

use crate::tools::client::dialects;

/// First byte of an unfragmented text message.
pub const TEXT: u8 = 0x81;
/// First byte of an unfragmented binary message.
pub const BINARY: u8 = 0x82;
/// First byte of a close frame.
pub const CLOSE: u8 = 0x88;
/// First byte of a ping.
pub const PING: u8 = 0x89;
/// First byte of a pong.
pub const PONG: u8 = 0x8a;

/// Masking key. Not zero, because some servers skip unmasking then.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// First byte: FIN and opcode.
    pub first: u8,
    /// The payload.
    pub payload: &'a [u8],
}

/// Returns start and end of the first frame's payload, if `bytes` holds the whole frame. The payload of a
/// frame of an unknown kind is everything that follows.
pub fn bounds(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut cursor = Cursor::new(bytes);
    let Ok(head) = FrameHeader::parse(&mut cursor) else { return Some((2, bytes.len())) };
    let (head, length) = (usize::try_from(cursor.position()).ok()?, usize::try_from(head?.1).ok()?);
    let end = head.checked_add(length)?;
    (bytes.len() >= end).then_some((head, end))
}

/// Passes each whole frame to `each`, and returns their total length in bytes.
pub(crate) fn each_whole(bytes: &[u8], mut each: impl FnMut(Frame<'_>)) -> usize {
    let mut at = 0;
    while let Some((head, end)) = bounds(&bytes[at..]) {
        each(Frame { first: bytes[at], payload: &bytes[at + head..at + end] });
        at += end;
    }
    at
}

/// Appends a masked frame with any first byte.
pub fn put(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    let head = FrameHeader {
        is_final: first & 0x80 != 0,
        rsv1: first & 0x40 != 0,
        rsv2: first & 0x20 != 0,
        rsv3: first & 0x10 != 0,
        opcode: OpCode::from(first & 0x0f),
        mask: Some(MASK),
    };
    // A vector takes everything.
    let _ = head.format(payload.len() as u64, out);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Appends a client's message.
pub fn put_message(out: &mut Vec<u8>, message: &dialects::ClientFrame) {
    match message {
        dialects::ClientFrame::Text(text) => put(out, TEXT, text.as_bytes()),
        dialects::ClientFrame::Binary(bytes) => put(out, BINARY, bytes),
    }
}

/// Appends a close frame, with `code` if there is one.
pub(crate) fn put_close(out: &mut Vec<u8>, code: Option<u16>) {
    let code = code.map(u16::to_be_bytes);
    put(out, CLOSE, code.as_ref().map_or(&[], <[u8; 2]>::as_slice));
}

/// Returns code and reason of a close frame's payload.
pub(crate) fn close_code_and_reason(payload: &[u8]) -> (Option<u16>, String) {
    match payload {
        [high, low, reason @ ..] => {
            (Some(u16::from_be_bytes([*high, *low])), String::from_utf8_lossy(reason).into_owned())
        }
        _ => (None, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the frame as a server sends it.
    fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        put(&mut frame, first, payload);
        let head = frame.len() - payload.len() - 4;
        let mut frame = frame[..head].to_vec();
        frame[1] &= 0x7f;
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_of_every_length_are_parsed() {
        for length in [0, 1, 125, 126, 127, 0xffff, 0x10000] {
            let payload = vec![7; length];
            let bytes = [unmasked(TEXT, &payload), unmasked(BINARY, b"x"), vec![BINARY]].concat();
            let mut found = Vec::new();
            let used = each_whole(&bytes, |frame| found.push((frame.first, frame.payload.len())));
            assert_eq!(found, [(TEXT, length), (BINARY, 1)]);
            assert_eq!(used, bytes.len() - 1);
        }
    }

    #[test]
    fn partial_frame_has_no_bounds() {
        let whole = unmasked(BINARY, &[7; 300]);
        for length in 0..whole.len() {
            assert_eq!(bounds(&whole[..length]), None);
        }
        assert_eq!(bounds(&whole), Some((4, 304)));
        assert_eq!(bounds(b"\x83\x01?"), Some((2, 3)), "a reserved opcode");
        assert_eq!(bounds(&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn masked_payload_unmasks() {
        let mut frame = Vec::new();
        put(&mut frame, BINARY, b"hello");
        assert_eq!(frame[..2], [BINARY, 0x85]);
        let plain: Vec<u8> = frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(plain, b"hello");
    }

    #[test]
    fn close_frames_are_parsed() {
        assert_eq!(close_code_and_reason(&[]), (None, String::new()));
        assert_eq!(close_code_and_reason(&[0x03, 0xe8]), (Some(1000), String::new()));
        assert_eq!(close_code_and_reason(b"\x0f\xa1no"), (Some(4001), "no".to_owned()));
    }
}
