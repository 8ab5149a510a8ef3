//! WebSocket frames as a client that has no time writes and reads them: masked once and sent again and again, and only
//! looked at where their heads are. No I/O here, and nothing that any dialect says.

use crate::tools::client::dialects;

/// The first byte of a text that comes whole.
pub const TEXT: u8 = 0x81;
/// The first byte of bytes that come whole.
pub const BINARY: u8 = 0x82;
/// The first byte of a close.
pub const CLOSE: u8 = 0x88;
/// The first byte of a ping.
pub const PING: u8 = 0x89;
/// The first byte of a pong.
pub const PONG: u8 = 0x8a;

/// Servers must unmask, and some have a shortcut for a mask of zeros.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A frame that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its first byte: what kind of frame it is, and whether it is whole.
    pub first: u8,
    /// What is in it.
    pub payload: &'a [u8],
}

/// Where the payload of the first frame of a server begins and ends, if it is all there.
pub fn bounds(bytes: &[u8]) -> Option<(usize, usize)> {
    let (head, length): (usize, usize) = match *bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    let end = head.checked_add(length)?;
    (bytes.len() >= end).then_some((head, end))
}

/// Gives each whole frame to `each`, and tells how many bytes they have.
pub fn each_whole(bytes: &[u8], mut each: impl FnMut(Frame<'_>)) -> usize {
    let mut at = 0;
    while let Some((head, end)) = bounds(&bytes[at..]) {
        each(Frame { first: bytes[at], payload: &bytes[at + head..at + end] });
        at += end;
    }
    at
}

/// Adds a masked frame.
pub fn put(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match payload.len() {
        length @ ..126 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Adds what a client says.
pub fn put_said(out: &mut Vec<u8>, said: &dialects::ClientFrame) {
    match said {
        dialects::ClientFrame::Text(text) => put(out, TEXT, text.as_bytes()),
        dialects::ClientFrame::Binary(bytes) => put(out, BINARY, bytes),
    }
}

/// Adds a close, with this code if any.
pub fn put_close(out: &mut Vec<u8>, code: Option<u16>) {
    let code = code.map(u16::to_be_bytes);
    put(out, CLOSE, code.as_ref().map_or(&[], <[u8; 2]>::as_slice));
}

/// The code and the reason of a close that came.
pub fn closing(payload: &[u8]) -> (Option<u16>, String) {
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

    /// As a server would write it.
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
    fn frames_of_every_length_are_found_again() {
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
    fn a_part_of_a_frame_is_none() {
        let whole = unmasked(BINARY, &[7; 300]);
        for length in 0..whole.len() {
            assert_eq!(bounds(&whole[..length]), None);
        }
        assert_eq!(bounds(&whole), Some((4, 304)));
        assert_eq!(bounds(&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn what_is_masked_is_what_was_meant() {
        let mut frame = Vec::new();
        put(&mut frame, BINARY, b"hello");
        assert_eq!(frame[..2], [BINARY, 0x85]);
        let plain: Vec<u8> = frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(plain, b"hello");
    }

    #[test]
    fn closes_are_read() {
        assert_eq!(closing(&[]), (None, String::new()));
        assert_eq!(closing(&[0x03, 0xe8]), (Some(1000), String::new()));
        assert_eq!(closing(b"\x0f\xa1no"), (Some(4001), "no".to_owned()));
    }
}
