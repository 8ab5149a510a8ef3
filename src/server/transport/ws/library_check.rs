//! The WebSocket of `tungstenite` as the oracle of this one: the same bytes in the same pieces, valid or not,
//! must give the same messages, errors and responses. For tests and fuzz targets.

#![allow(clippy::panic, clippy::unreachable, reason = "a check fails by a panic")]

use std::collections::VecDeque;
use std::task::Waker;

use futures_util::{FutureExt as _, Sink as _, Stream as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Utf8Bytes};

use super::*;

/// Longest message, in bytes.
pub(crate) const MAX: usize = 300;

/// A stream that yields `pieces` and then pends or ends, and accepts `capacity` bytes.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) pieces: VecDeque<Vec<u8>>,
    pub(crate) ends: bool,
    pub(crate) written: Vec<u8>,
    pub(crate) capacity: Option<usize>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.pieces.pop_front() else {
            return if self.ends { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        let later = piece.split_off(piece.len().min(buffer.remaining()));
        buffer.put_slice(&piece);
        if !later.is_empty() {
            self.pieces.push_front(later);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = self.capacity.take().map_or(bytes.len(), |capacity| capacity.min(bytes.len()));
        self.written.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if count < bytes.len() {
            self.capacity = Some(0);
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Events that were received, and the bytes that were sent for them.
#[derive(Debug, PartialEq)]
pub(crate) struct Reaction {
    events: Vec<Incoming>,
    written: Vec<u8>,
}

impl Reaction {
    /// Returns true if a frame was refused.
    pub(crate) fn has_failed(&self) -> bool {
        let is_failure =
            |event: &Incoming| matches!(event, Incoming::MessageTooBig | Incoming::ProtocolError(_));
        self.events.iter().any(is_failure)
    }
}

/// Receives the next event that is not a part of a message.
pub(crate) fn next_whole(socket: &mut Socket<Wire>, context: &mut Context<'_>) -> Poll<Incoming> {
    loop {
        let next = socket.poll_next(context);
        if next != Poll::Ready(Incoming::Partial) {
            return next;
        }
    }
}

/// Returns the reaction of a socket, which sends a close frame after `close_after` events, and the socket.
pub(crate) fn reaction(wire: Wire, close_after: usize) -> (Reaction, Socket<Wire>) {
    let mut context = Context::from_waker(Waker::noop());
    let mut socket = Socket::new(wire, Bytes::new(), MAX);
    let mut events = Vec::new();
    loop {
        if events.len() == close_after {
            let _ = socket.queue(Close::new(4000, "enough").into());
        }
        let Poll::Ready(incoming) = next_whole(&mut socket, &mut context) else { break };
        let load = socket.take_load();
        assert!(load.incomplete <= MAX + 64 * 1024, "{load:?}");
        let is_last = incoming == Incoming::Disconnected;
        events.push(incoming);
        if is_last {
            break;
        }
    }
    let _ = socket.poll_flush(&mut context);
    (Reaction { events, written: std::mem::take(&mut socket.stream.written) }, socket)
}

/// Returns the reaction of the library. It rejects a frame when all of it is received, and not by its header:
/// zeros follow if ours has `failed`.
pub(crate) fn library_reaction(mut wire: Wire, close_after: usize, failed: bool) -> Reaction {
    wire.ends &= !failed;
    let mut context = Context::from_waker(Waker::noop());
    let config = WebSocketConfig::default().max_message_size(Some(MAX)).max_frame_size(Some(MAX));
    let socket = WebSocketStream::from_raw_socket(wire, Role::Server, Some(config));
    let Some(mut socket) = socket.now_or_never() else { panic!("nothing is awaited") };
    let mut events = Vec::new();
    loop {
        if events.len() == close_after {
            // Otherwise the pending pong would follow the close frame.
            let _ = Pin::new(&mut socket).poll_flush(&mut context);
            let close = CloseFrame { code: CloseCode::from(4000), reason: Utf8Bytes::from_static("enough") };
            let _ = Pin::new(&mut socket).start_send(tungstenite::Message::Close(Some(close)));
        }
        let next = match Pin::new(&mut socket).poll_next(&mut context) {
            Poll::Ready(next) => next,
            Poll::Pending if failed => {
                socket.get_mut().pieces.push_back(vec![0; MAX]);
                continue;
            }
            Poll::Pending => break,
        };
        let incoming = match next {
            Some(Ok(tungstenite::Message::Text(text))) => Incoming::Message(Message::text(text.as_str())),
            Some(Ok(tungstenite::Message::Binary(bytes))) => Incoming::Message(Message::Binary(bytes)),
            Some(Ok(tungstenite::Message::Ping(_))) => Incoming::Ping,
            Some(Ok(tungstenite::Message::Pong(_))) => Incoming::Pong,
            Some(Ok(tungstenite::Message::Close(close))) => {
                Incoming::Closed(close.map(|close| close.code.into()))
            }
            Some(Ok(tungstenite::Message::Frame(_))) => unreachable!(),
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => Incoming::MessageTooBig,
            Some(Err(Error::Utf8(_))) => Incoming::ProtocolError(Close::new(1007, "the text is not UTF-8")),
            // The end of the stream without a close frame is no protocol error here.
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Incoming::Disconnected,
            Some(Err(Error::Protocol(error))) => Incoming::ProtocolError(Close::new(1002, error.to_string())),
            Some(Err(_)) | None => Incoming::Disconnected,
        };
        let is_last = incoming == Incoming::Disconnected;
        events.push(incoming);
        if is_last {
            break;
        }
    }
    let _ = Pin::new(&mut socket).poll_flush(&mut context);
    Reaction { events, written: std::mem::take(&mut socket.get_mut().written) }
}

/// Checks that bytes have one reaction: at once, in pieces of this length, and in the library.
#[cfg(fuzzing)]
pub(crate) fn check_frames(bytes: &[u8], piece: usize) {
    let wire = |length: usize| {
        let pieces = bytes.chunks(length.max(1)).map(<[u8]>::to_vec).collect();
        Wire { pieces, ..Wire::default() }
    };
    let (in_pieces, _) = reaction(wire(piece), usize::MAX);
    let (at_once, _) = reaction(wire(bytes.len()), usize::MAX);
    assert_eq!(in_pieces, at_once);
    let expected = library_reaction(wire(piece), usize::MAX, in_pieces.has_failed());
    assert_eq!(in_pieces, expected);
}
