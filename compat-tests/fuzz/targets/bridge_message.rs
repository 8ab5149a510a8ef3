//! Bytes that the processes of a bridge read before they know who sent them: frames of their socket, whole
//! and in pieces, and STUN requests, against a naive reader.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use sigver::fuzzing::stun_username_fragment;
use sigver::protocol::mesh::{BridgeMessage, BridgeMessageError};

/// Reads frames that arrive in pieces of `length` bytes.
fn read(bytes: &[u8], length: usize) -> (Vec<BridgeMessage>, Option<BridgeMessageError>) {
    let (mut received, mut messages) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(length) {
        received.extend_from_slice(piece);
        loop {
            match BridgeMessage::take(&mut received) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// Returns the receiver's username fragment of a STUN binding request, by copies of its parts.
fn fragment(packet: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    if packet.len() < 20 || word(0)? != 1 || packet[4..8] != [0x21, 0x12, 0xa4, 0x42] {
        return None;
    }
    if usize::from(word(2)?) != packet.len() - 20 {
        return None;
    }
    let mut at = 20;
    loop {
        let (kind, length) = (word(at)?, usize::from(word(at + 2)?));
        let value = packet.get(at + 4..at + 4 + length)?;
        if kind == 6 {
            let mut parts = value.split(|byte| *byte == b':');
            let own = parts.next()?.to_vec();
            return parts.next().and_then(|_| String::from_utf8(own).ok());
        }
        at += 4 + length.next_multiple_of(4);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    assert_eq!(stun_username_fragment(rest), fragment(rest).as_deref());
    let at_once = read(rest, usize::MAX);
    assert_eq!(read(rest, 1 + usize::from(*first)), at_once);
    // What was read is written, and read again.
    let mut written = BytesMut::new();
    for message in &at_once.0 {
        message.write(&mut written);
    }
    assert_eq!(read(&Bytes::from(written), usize::MAX), (at_once.0, None));
});
