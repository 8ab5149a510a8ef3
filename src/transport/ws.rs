//! WebSockets: a stream on which the upgrade is done, as frames. No dialect, no room.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::{Incoming, Transport};
use crate::frame::{Close, Frame};

/// Each connection keeps a buffer of this size for reading, in bytes, and it is filled with zeros before every
/// read: the library's default of 128 KiB would cost that much for every idle peer.
const READ_BUFFER: usize = 1024;

/// What is discarded at most of what a peer sends after we closed, in bytes.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;

/// A WebSocket on the server's side.
#[derive(Debug)]
pub struct Socket<S> {
    inner: WebSocketStream<S>,
    /// What was queued since the last flush that came to its end, in bytes.
    unsent: usize,
}

/// How much may be queued while the peer does not take it, before it is no longer listened to, in bytes: its own words
/// could make us queue more.
const MAX_UNSENT: usize = 64 * 1024;

/// The most that a control frame takes, in bytes.
const CONTROL_FRAME: usize = 127;

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes over a stream after its upgrade; `early` is what was read beyond the request. Messages of more than
    /// `max_message` bytes are [`Incoming::TooBig`].
    pub async fn new(stream: S, early: Bytes, max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let inner = if early.is_empty() {
            WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
        } else {
            WebSocketStream::from_partially_read(stream, early.to_vec(), Role::Server, Some(config)).await
        };
        Socket { inner, unsent: 0 }
    }

    fn start(&mut self, message: Message) -> io::Result<()> {
        self.unsent += message.len() + CONTROL_FRAME;
        // The library asks to wait until it is ready, so that its buffer stays small; ours is bounded by the caller.
        Pin::new(&mut self.inner).start_send(message).map_err(io::Error::other)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for Socket<S> {
    const BEAT: Option<Duration> = None;

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        Poll::Ready(match ready!(Pin::new(&mut self.inner).poll_next(context)) {
            Some(Ok(message)) => match message {
                Message::Text(text) => match ByteString::try_from(Bytes::from(text)) {
                    Ok(text) => Incoming::Frame(Frame::Text(text)),
                    Err(_) => Incoming::Violation(Close::new(1007, "the text is not UTF-8")),
                },
                Message::Binary(bytes) => Incoming::Frame(Frame::Binary(bytes)),
                Message::Ping(_) => {
                    // The library has queued the pong.
                    self.unsent += CONTROL_FRAME;
                    Incoming::Ping
                }
                Message::Pong(_) => Incoming::Pong,
                Message::Close(close) => Incoming::Closed(close.map(|close| close.code.into())),
                Message::Frame(_) => Incoming::Gone,
            },
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => Incoming::TooBig,
            Some(Err(Error::Utf8(_))) => Incoming::Violation(Close::new(1007, "the text is not UTF-8")),
            Some(Err(Error::Protocol(error))) => Incoming::Violation(Close::new(1002, error.to_string())),
            Some(Err(_)) | None => Incoming::Gone,
        })
    }

    fn queue(&mut self, frame: Frame) -> io::Result<bool> {
        let last = matches!(frame, Frame::Close(_));
        self.start(match frame {
            // The text was UTF-8 as it became a ByteString.
            Frame::Text(text) => Message::Text(Utf8Bytes::try_from(text.into_bytes()).unwrap_or_default()),
            Frame::Binary(bytes) => Message::Binary(bytes),
            Frame::Close(Close { code, reason }) => Message::Close(code.map(|code| CloseFrame {
                code: CloseCode::from(code),
                reason: match reason {
                    std::borrow::Cow::Borrowed(text) => Utf8Bytes::from_static(text),
                    std::borrow::Cow::Owned(text) => text.into(),
                },
            })),
        })?;
        Ok(last)
    }

    fn queue_ping(&mut self) -> io::Result<()> {
        self.start(Message::Ping(Bytes::new()))
    }

    fn is_congested(&self) -> bool {
        self.unsent > MAX_UNSENT
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.inner).poll_flush(context)).map_err(io::Error::other);
        self.unsent = 0;
        Poll::Ready(flushed)
    }

    async fn farewell(&mut self, closed: bool, patience: Duration) {
        let farewell = async {
            let _ = poll_fn(|context| self.poll_flush(context)).await;
            while closed
                && matches!(
                    poll_fn(|context| self.poll_next(context)).await,
                    Incoming::Frame(_) | Incoming::Ping | Incoming::Pong
                )
            {}
            // Under TLS, what was written may still have to be sent, and the end has a word of its own.
            if !closed {
                let _ = self.inner.get_mut().shutdown().await;
            }
        };
        let _ = tokio::time::timeout(patience, farewell).await;
    }

    /// Lets a close frame that was sent arrive: the peer has `patience` to finish what it is sending, which is
    /// discarded, and to hang up. Otherwise the kernel would answer its data with a reset, which can overtake the
    /// close frame.
    async fn linger(mut self, patience: Duration) {
        let discard = async {
            let stream = self.inner.get_mut();
            let _ = stream.shutdown().await;
            // On the heap, as every idle connection would carry it in its task otherwise.
            let (mut buffer, mut discarded) = (vec![0; 1024], 0);
            while discarded < MAX_DISCARDED {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => discarded += count,
                }
            }
        };
        let _ = tokio::time::timeout(patience, discard).await;
    }
}
