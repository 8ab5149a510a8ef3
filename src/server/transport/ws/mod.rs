//! WebSockets (RFC 6455) on streams whose upgrade is done. Buffers are borrowed from a pool while bytes are
//! in them: an idle connection holds none.

mod codec;
#[cfg(any(test, fuzzing))]
pub(crate) mod library_check;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{Incoming, Transport, TransportKind, TransportLoad};
use crate::protocol::frame::{Close, Message, Outgoing};
use crate::server::scratch;
use crate::server::turn::Turn;
use crate::server::ws_buffers::{BufferPool, ReadBuffer, WriteBuffer};
use codec::{DecodeError, Decoder, Opcode, WsMessage};

/// Most bytes of a peer that are discarded after a close frame was sent to it.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;

/// Most turns in which frames of a peer are received after a close frame was sent to it.
const MAX_CLOSE_TURNS: u32 = 64;

/// Most bytes that may be queued before nothing more is received, as messages of the peer may queue more.
const MAX_UNSENT: usize = 64 * 1024;

/// Calls `f` with the buffers of this thread.
fn pooled<R>(f: impl FnOnce(&BufferPool) -> R) -> R {
    scratch::with(|scratch| f(&scratch.ws_buffers))
}

/// The server's end of a WebSocket.
#[derive(Debug)]
pub struct Socket<S> {
    stream: S,
    decoder: Decoder,
    /// Longest message, in bytes.
    max_message: u32,
    /// Received bytes that are not decoded yet.
    unread: Option<Box<ReadBuffer>>,
    /// Queued bytes that are not sent yet.
    unsent: Option<Box<WriteBuffer>>,
    /// A close frame was queued, and nothing may follow it.
    close_sent: bool,
    /// Nothing more will be received.
    eof: bool,
    /// The error of the last read.
    error: Option<io::Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Returns a WebSocket on `stream`. `prefetched` are the bytes that were received after the upgrade
    /// request. A message of more than `max_message` bytes is reported as [`Incoming::MessageTooBig`].
    pub fn new(stream: S, prefetched: Bytes, max_message: usize) -> Self {
        let unread = ReadBuffer { start: 0, end: prefetched.len(), bytes: prefetched.into() };
        Socket {
            stream,
            decoder: Decoder::default(),
            max_message: u32::try_from(max_message).unwrap_or(u32::MAX),
            unread: (unread.end > 0).then(|| Box::new(unread)),
            unsent: None,
            close_sent: false,
            eof: false,
            error: None,
        }
    }

    /// Queues the response to the upgrade request, which is then sent in one write with the first frame.
    #[must_use]
    pub(crate) fn with_response(mut self, response: Vec<u8>) -> Self {
        if !response.is_empty() {
            self.unsent = Some(Box::new(WriteBuffer { bytes: response, ..WriteBuffer::default() }));
        }
        self
    }

    /// Queues a frame, unless a close frame was queued.
    fn write(&mut self, opcode: Opcode, parts: &[&[u8]]) {
        if self.close_sent {
            return;
        }
        let unsent = self.unsent.get_or_insert_with(|| pooled(BufferPool::acquire_write));
        codec::encode(opcode, parts, &mut unsent.bytes);
    }

    fn write_close(&mut self, code: Option<u16>, reason: &str) {
        let parts: &[&[u8]] = match code {
            None => &[],
            Some(code) => &[&code.to_be_bytes(), reason.as_bytes()],
        };
        self.write(Opcode::Close, parts);
        self.close_sent = true;
    }

    /// Decodes the next event from the received bytes.
    fn next_unread(&mut self) -> Option<Incoming> {
        let unread = self.unread.as_deref_mut()?;
        let mut input = &unread.bytes[unread.start..unread.end];
        let next = self.decoder.next(&mut input, self.max_message.into());
        unread.start = unread.end - input.len();
        self.eof = matches!(next, Err(_) | Ok(Some(WsMessage::Close(_))));
        if self.eof || unread.start == unread.end {
            self.release_unread();
        }
        match next {
            Ok(message) => message.map(|message| self.on_message(message)),
            Err(DecodeError::MessageTooBig) => Some(Incoming::MessageTooBig),
            Err(error) => {
                let code = if error == DecodeError::InvalidUtf8 { 1007 } else { 1002 };
                Some(Incoming::ProtocolError(Close::new(code, error.to_string())))
            }
        }
    }

    fn release_unread(&mut self) {
        if let Some(unread) = self.unread.take() {
            pooled(|pool| pool.release_read(unread));
        }
    }

    fn on_message(&mut self, message: WsMessage) -> Incoming {
        match message {
            WsMessage::Text(text) => Incoming::Message(Message::Text(text)),
            WsMessage::Binary(bytes) => Incoming::Message(Message::Binary(bytes)),
            WsMessage::Ping(payload) => {
                self.write(Opcode::Pong, &[&payload]);
                Incoming::Ping
            }
            WsMessage::Pong => Incoming::Pong,
            WsMessage::Close(close) => {
                let (code, reason) = match &close {
                    None => (None, ""),
                    Some((code, _)) if !self.close_sent && !codec::is_valid_close_code(*code) => {
                        (Some(1002), "Protocol violation")
                    }
                    Some((code, reason)) => (Some(*code), &reason[..]),
                };
                self.write_close(code, reason);
                Incoming::Closed(code)
            }
        }
    }

    /// Reads once. Returns true if anything was received.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut buffer = pooled(BufferPool::acquire_read);
        let mut filled = ReadBuf::new(&mut buffer.bytes);
        let read = Pin::new(&mut self.stream).poll_read(context, &mut filled);
        let length = filled.filled().len();
        if length == 0 {
            pooled(|pool| pool.release_read(buffer));
        } else {
            buffer.end = length;
            self.unread = Some(buffer);
        }
        read.map_ok(|()| length > 0)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for Socket<S> {
    const KEEPALIVE: Option<Duration> = None;
    const KIND: TransportKind = TransportKind::WebSocket;

    /// Reads at most once: what a client sends in parts, it sends for ever.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        if !self.eof {
            if let Some(incoming) = self.next_unread() {
                return Poll::Ready(incoming);
            }
            match ready!(self.poll_read(context)) {
                Ok(true) => return Poll::Ready(self.next_unread().unwrap_or(Incoming::Partial)),
                Ok(false) => self.eof = true,
                Err(error) => {
                    self.eof = true;
                    self.error = Some(error);
                }
            }
        }
        Poll::Ready(Incoming::Disconnected)
    }

    fn queue(&mut self, outgoing: Outgoing) -> io::Result<bool> {
        match outgoing {
            Outgoing::Close(Close { code, reason }) => {
                self.write_close(code, &reason);
                return Ok(true);
            }
            _ if self.close_sent => return Err(io::ErrorKind::NotConnected.into()),
            Outgoing::Message(Message::Text(text)) => self.write(Opcode::Text, &[text.as_bytes()]),
            Outgoing::Message(Message::Binary(bytes)) => self.write(Opcode::Binary, &[&bytes]),
            Outgoing::Prefixed(prefix, rest) => self.write(Opcode::Binary, &[&prefix, &rest]),
        }
        Ok(false)
    }

    fn queue_ping(&mut self) -> io::Result<()> {
        self.write(Opcode::Ping, &[]);
        Ok(())
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    fn take_load(&mut self) -> TransportLoad {
        if let Some(unread) = &mut self.unread {
            pooled(|pool| pool.compact(unread));
        }
        let unsent = self.unsent.as_deref_mut();
        TransportLoad {
            incomplete: self.decoder.held_bytes(),
            unhandled: self.unread.as_ref().map_or(0, |unread| unread.bytes.len()),
            written: unsent.as_ref().is_some_and(|unsent| unsent.written),
            unsent: unsent.map_or(0, |unsent| {
                unsent.written = false;
                unsent.bytes.capacity()
            }),
        }
    }

    fn stop_receiving(&mut self) {
        self.eof = true;
        self.decoder.discard();
        self.release_unread();
    }

    fn is_congested(&self) -> bool {
        self.unsent.as_ref().is_some_and(|unsent| unsent.len() > MAX_UNSENT)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(unsent) = self.unsent.as_deref_mut().filter(|unsent| unsent.len() > 0) {
            match Pin::new(&mut self.stream).poll_write(context, &unsent.bytes[unsent.start..])? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    unsent.start += count;
                    unsent.written = true;
                }
                Poll::Pending => {
                    // Pongs may be appended faster than a slow peer reads: the sent part must not stay
                    // forever.
                    if unsent.start >= unsent.bytes.len() / 2 {
                        unsent.bytes.drain(..std::mem::take(&mut unsent.start));
                    }
                    return Poll::Pending;
                }
            }
        }
        if let Some(unsent) = self.unsent.take() {
            pooled(|pool| pool.release_write(unsent));
        }
        // TLS has a buffer of its own.
        Pin::new(&mut self.stream).poll_flush(context)
    }

    async fn close_gracefully(&mut self, close_sent: bool, timeout: Duration) {
        let close = async {
            let _ = poll_fn(|context| self.poll_flush(context)).await;
            let (mut turn, mut turns) = (Turn::default(), 0);
            // Up to the peer's close frame, or a frame that is invalid.
            while close_sent && !self.eof && turns < MAX_CLOSE_TURNS {
                poll_fn(|context| self.poll_next(context)).await.spend(&mut turn);
                turns += u32::from(turn.is_over());
                turn.yield_if_over().await;
            }
            // Sends the close_notify of TLS.
            if !close_sent {
                let _ = self.stream.shutdown().await;
            }
        };
        let _ = tokio::time::timeout(timeout, close).await;
    }

    /// Discards what the peer sends up to its end. Without this, the kernel would answer data of the peer
    /// with a reset, which can overtake the close frame.
    async fn drain(mut self, timeout: Duration) {
        let discard = async {
            let _ = self.stream.shutdown().await;
            // On the heap, as it would otherwise be a part of each connection's task.
            let (mut buffer, mut discarded) = (vec![0; 1024], 0);
            while discarded < MAX_DISCARDED {
                match self.stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => discarded += count,
                }
            }
        };
        let _ = tokio::time::timeout(timeout, discard).await;
    }
}

#[cfg(test)]
mod autobahn;
#[cfg(test)]
mod tests;
