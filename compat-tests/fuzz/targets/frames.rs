//! Frames of a WebSocket client, whole and in pieces, with the WebSocket of tungstenite as the oracle.

#![no_main]

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream as _;
use libfuzzer_sys::fuzz_target;
use sigver::protocol::frame::{Close, Message};
use sigver::server::transport::ws::Socket;
use sigver::server::transport::{Incoming, Transport as _};
use sigver_fuzz::input::Input;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self};

/// Longest message, in bytes.
const MAX: usize = 300;

/// A stream that yields pieces, and then pends.
struct Wire {
    pieces: VecDeque<Vec<u8>>,
    written: Vec<u8>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.pieces.pop_front() else { return Poll::Pending };
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
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Events that were received, and the bytes that were sent for them.
type Reaction = (Vec<Incoming>, Vec<u8>);

fn is_failure(incoming: &Incoming) -> bool {
    matches!(incoming, Incoming::MessageTooBig | Incoming::ProtocolError(_))
}

fn reaction(pieces: VecDeque<Vec<u8>>) -> Reaction {
    let mut context = Context::from_waker(Waker::noop());
    let mut written = Vec::new();
    let mut events = Vec::new();
    {
        let mut wire = Wire { pieces, written: Vec::new() };
        let mut socket = Socket::new(&mut wire, Bytes::new(), MAX);
        while let Poll::Ready(incoming) = socket.poll_next(&mut context) {
            let load = socket.take_load();
            assert!(load.incomplete <= MAX + 64 * 1024, "{load:?}");
            let is_last = incoming == Incoming::Disconnected;
            if incoming != Incoming::Partial {
                events.push(incoming);
            }
            if is_last {
                break;
            }
        }
        let _ = socket.poll_flush(&mut context);
        drop(socket);
        written.append(&mut wire.written);
    }
    (events, written)
}

/// Returns the reaction of the library, which rejects a frame when all of it is received, and not by its
/// header: zeros follow if ours has `failed`.
fn expected(pieces: VecDeque<Vec<u8>>, failed: bool) -> Reaction {
    let mut context = Context::from_waker(Waker::noop());
    let config = WebSocketConfig::default().max_message_size(Some(MAX)).max_frame_size(Some(MAX));
    let wire = Wire { pieces, written: Vec::new() };
    let opening = std::pin::pin!(WebSocketStream::from_raw_socket(wire, Role::Server, Some(config)));
    let Poll::Ready(mut socket) = opening.poll(&mut context) else { panic!("nothing is awaited") };
    let mut events = Vec::new();
    loop {
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
    let _ = futures_util::Sink::poll_flush(Pin::new(&mut socket), &mut context);
    (events, std::mem::take(&mut socket.get_mut().written))
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let cuts = input.byte();
    let rest = input.rest();
    let whole: VecDeque<_> = [rest.to_vec()].into_iter().filter(|bytes| !bytes.is_empty()).collect();
    let pieces: VecDeque<_> = rest.chunks(1 + usize::from(cuts)).map(<[u8]>::to_vec).collect();
    let in_pieces = reaction(pieces.clone());
    let at_once = reaction(whole);
    assert_eq!(in_pieces, at_once);
    let failed = in_pieces.0.iter().any(is_failure);
    assert_eq!(in_pieces, expected(pieces, failed));
});
