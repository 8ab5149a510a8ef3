//! Property tests with the WebSocket of `tungstenite` as the oracle: the same bytes in the same pieces, valid
//! or not, must give the same messages, errors and responses.

use std::collections::VecDeque;
use std::task::Waker;

use futures_util::{FutureExt as _, Sink as _};
use proptest::prelude::*;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::library_check::{MAX, Wire, library_reaction, next_whole, reaction};
use super::*;
use crate::protocol::frame::Message as Received;

/// Returns a frame with any first byte, masked or not.
fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        length @ ..126 => frame.push(masked | length as u8),
        length => {
            frame.push(masked | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z]{0,20}".prop_map(String::into_bytes),
        2 => "\\PC{0,40}".prop_map(String::into_bytes),
        // Parts of characters, and invalid bytes.
        2 => prop::sample::select(vec![&b"\xe2"[..], b"\x82", b"\xac", b"\xf0\x9f", b"\x98\x80", b"\xff", b""])
            .prop_map(<[u8]>::to_vec),
        2 => prop::sample::select(vec![&b"\x03\xe8"[..], b"\x03\xe8bye", b"\x03", b"\x03\xedx", b"\x0f\xa0\xff", b"\x00\x01"])
            .prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (100..320usize).prop_map(|length| vec![b'x'; length]),
    ]
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![
        4 => Just(1u8), 4 => Just(2), 6 => Just(0), 3 => Just(9), 2 => Just(10), 1 => Just(8), 1 => 3..16u8
    ];
    let first = (opcode, prop::bool::weighted(0.6), prop_oneof![30 => Just(0u8), 1 => 1..8u8])
        .prop_map(|(opcode, last, reserved)| opcode | u8::from(last || opcode & 8 != 0) << 7 | reserved << 4);
    let mask = prop_oneof![40 => any::<[u8; 4]>().prop_map(Some), 1 => Just(None)];
    let frame = (first, mask, payload()).prop_map(|(first, mask, payload)| frame(first, mask, &payload));
    prop::collection::vec(frame, 0..12).prop_map(|frames| frames.concat())
}

/// Frames, possibly corrupted, in pieces.
fn pieces() -> impl Strategy<Value = VecDeque<Vec<u8>>> {
    let changes = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ];
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..6);
    (frames(), changes, cuts, prop::bool::weighted(0.1)).prop_map(|(mut bytes, changes, cuts, singly)| {
        if bytes.is_empty() {
            return VecDeque::new();
        }
        for (at, byte) in changes {
            *at.get_mut(&mut bytes[..]) = byte;
        }
        let length = bytes.len();
        let mut cuts: Vec<usize> =
            if singly { (0..length).collect() } else { cuts.iter().map(|cut| cut.index(length)).collect() };
        cuts.extend([0, length]);
        cuts.sort_unstable();
        cuts.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec()).filter(|piece| !piece.is_empty()).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn decodes_like_the_library(
        pieces in pieces(),
        ends in any::<bool>(),
        close_after in prop_oneof![3 => Just(usize::MAX), 1 => 0..6usize],
    ) {
        let wire = || Wire { pieces: pieces.clone(), ends, ..Wire::default() };
        let (reaction, socket) = reaction(wire(), close_after);
        let expected = library_reaction(wire(), close_after, reaction.has_failed());
        prop_assert_eq!(reaction, expected);
        // No buffer is held afterwards.
        prop_assert!(socket.unread.is_none() && socket.unsent.is_none());
    }

    #[test]
    fn encodes_like_the_library(payloads in prop::collection::vec((any::<bool>(), 0..70_000usize), 1..4)) {
        let mut context = Context::from_waker(Waker::noop());
        let mut socket = Socket::new(Wire::default(), Bytes::new(), MAX);
        let library = WebSocketStream::from_raw_socket(Wire::default(), Role::Server, None);
        let mut library = library.now_or_never().unwrap();
        for (text, length) in payloads {
            let payload = vec![b'x'; length];
            let (frame, message) = if text {
                let text = String::from_utf8(payload).unwrap();
                (Received::text(text.clone()), Message::text(text))
            } else {
                (Received::binary(payload.clone()), Message::binary(payload))
            };
            prop_assert!(!socket.queue(frame.into()).unwrap());
            Pin::new(&mut library).start_send(message).unwrap();
        }
        socket.queue_ping().unwrap();
        Pin::new(&mut library).start_send(Message::Ping(Bytes::new())).unwrap();
        prop_assert!(socket.queue(Close::empty().into()).unwrap());
        Pin::new(&mut library).start_send(Message::Close(None)).unwrap();
        prop_assert!(matches!(socket.poll_flush(&mut context), Poll::Ready(Ok(()))));
        let _ = Pin::new(&mut library).poll_flush(&mut context);
        prop_assert!(socket.stream.written == library.get_ref().written);
        // Nothing follows a close frame.
        prop_assert!(socket.queue(Received::text("late").into()).is_err());
        socket.queue_ping().unwrap();
        prop_assert!(socket.unsent.is_none());
    }
}

#[test]
fn prefetched_bytes_are_decoded_first() {
    let mut context = Context::from_waker(Waker::noop());
    let prefetched = frame(0x82, Some([1, 2, 3, 4]), b"first");
    let wire = Wire { pieces: [frame(0x82, Some([4, 3, 2, 1]), b"second")].into(), ..Wire::default() };
    let mut socket = Socket::new(wire, prefetched.into(), MAX);
    for expected in ["first", "second"] {
        assert_eq!(
            socket.poll_next(&mut context),
            Poll::Ready(Incoming::Message(Received::binary(expected.as_bytes())))
        );
    }
    assert!(socket.poll_next(&mut context).is_pending());
}

#[test]
fn sent_bytes_are_released_while_peer_is_slow() {
    let mut context = Context::from_waker(Waker::noop());
    let mut socket = Socket::new(Wire::default(), Bytes::new(), MAX);
    let mut sent = 0;
    while sent < 10 * MAX_UNSENT {
        socket.queue(Received::binary(vec![7; 1000]).into()).unwrap();
        // The peer never takes the last few bytes.
        let unsent = |socket: &Socket<Wire>| socket.unsent.as_ref().map_or(0, |unsent| unsent.len());
        socket.stream.capacity = Some(unsent(&socket) - 10);
        assert!(socket.poll_flush(&mut context).is_pending());
        sent += 1000;
        let held = socket.unsent.as_ref().map_or(0, |unsent| unsent.bytes.len());
        assert!(!socket.is_congested() && held < 3000, "{held}");
    }
    socket.queue(Received::binary(vec![7; MAX_UNSENT]).into()).unwrap();
    assert!(socket.is_congested());
    socket.stream.capacity = None;
    assert!(matches!(socket.poll_flush(&mut context), Poll::Ready(Ok(()))));
    assert!(!socket.is_congested() && socket.unsent.is_none());
}

#[test]
fn announced_length_is_not_reserved() {
    let mut context = Context::from_waker(Waker::noop());
    let mut head = vec![0x82, 0xff];
    head.extend((1u64 << 30).to_be_bytes());
    head.extend([0; 4]);
    let wire = Wire { pieces: [head, vec![0; 10]].into(), ..Wire::default() };
    let mut socket = Socket::new(wire, Bytes::new(), 1 << 30);
    assert!(next_whole(&mut socket, &mut context).is_pending());
    assert!(socket.decoder.held_bytes() < 100 * 1024, "{}", socket.decoder.held_bytes());
}

#[test]
fn close_codes_are_valid_like_in_the_library() {
    for code in 0..=u16::MAX {
        assert_eq!(codec::is_valid_close_code(code), CloseCode::from(code).is_allowed(), "{code}");
    }
}

#[test]
fn empty_fragments_are_read_in_turns() {
    let mut context = Context::from_waker(Waker::noop());
    let mut pieces: VecDeque<Vec<u8>> = [frame(0x01, Some([0; 4]), b"")].into();
    pieces.extend((0..3).map(|_| frame(0x00, Some([0; 4]), b"").repeat(1000)));
    let mut socket = Socket::new(Wire { pieces, ..Wire::default() }, Bytes::new(), MAX);
    for left in [3, 2, 1, 0] {
        assert_eq!(socket.poll_next(&mut context), Poll::Ready(Incoming::Partial));
        assert_eq!(socket.stream.pieces.len(), left);
    }
    assert!(socket.poll_next(&mut context).is_pending());
}
