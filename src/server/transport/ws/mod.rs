//! WebSockets: a stream on which the upgrade is done, as frames. No dialect, no room.
//!
//! What is read comes by way of a buffer of the thread's, what is written waits in one that is given back when it is
//! empty: an idle connection has neither.

mod buffer_pool;
mod codec;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::{Incoming, Transport, TransportKind};
use crate::protocol::frame::{Close, Message, Outgoing};
use buffer_pool::{ReadBuffer, WriteBuffer};
use codec::{DecodeError, Decoder, Item};

/// What is discarded at most of what a peer sends after we closed, in bytes.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;

/// How much may be queued while the peer does not take it, before it is no longer listened to, in bytes: its own words
/// could make us queue more.
const MAX_UNSENT: usize = 64 * 1024;

/// A WebSocket on the server's side.
#[derive(Debug)]
pub struct Socket<S> {
    stream: S,
    decoder: Decoder,
    /// What was read and not looked at yet.
    unread: Option<Box<ReadBuffer>>,
    /// What was queued and not sent yet.
    unsent: Option<Box<WriteBuffer>>,
    /// We sent a close frame, of our own or as an answer: nothing may follow it.
    closed: bool,
    /// There is nothing more to read.
    over: bool,
    /// The error that ended it.
    error: Option<io::Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes over a stream after its upgrade; `early` is what was read beyond the request. Messages of more than
    /// `max_message` bytes are [`Incoming::MessageTooBig`].
    pub fn new(stream: S, early: Bytes, max_message: usize) -> Self {
        let unread = ReadBuffer { from: 0, to: early.len(), bytes: early.into() };
        Socket {
            stream,
            decoder: Decoder::new(max_message),
            unread: (unread.to > 0).then(|| Box::new(unread)),
            unsent: None,
            closed: false,
            over: false,
            error: None,
        }
    }

    /// These bytes go out before the first frame, and in one piece with it: a write of its own takes 6 µs of each session.
    #[must_use]
    pub fn after(mut self, bytes: Vec<u8>) -> Self {
        if !bytes.is_empty() {
            self.unsent = Some(Box::new(WriteBuffer { bytes, from: 0 }));
        }
        self
    }

    /// Queues a frame, unless a close frame was.
    fn write(&mut self, opcode: OpCode, payload: &[&[u8]]) {
        if self.closed {
            return;
        }
        let unsent = self.unsent.get_or_insert_with(buffer_pool::take_writing);
        codec::encode(opcode, payload, &mut unsent.bytes);
    }

    fn write_close(&mut self, code: Option<u16>, reason: &str) {
        let payload: &[&[u8]] = match code {
            None => &[],
            Some(code) => &[&code.to_be_bytes(), reason.as_bytes()],
        };
        self.write(OpCode::Control(Control::Close), payload);
        self.closed = true;
    }

    /// The next thing in what was read.
    fn next_unread(&mut self) -> Option<Incoming> {
        let unread = self.unread.as_deref_mut()?;
        let mut input = &unread.bytes[unread.from..unread.to];
        let next = self.decoder.next(&mut input);
        unread.from = unread.to - input.len();
        self.over = matches!(next, Err(_) | Ok(Some(Item::Close(_))));
        if self.over || unread.from == unread.to {
            self.unread.take().into_iter().for_each(buffer_pool::give_reading);
        }
        match next {
            Ok(item) => item.map(|item| self.incoming(item)),
            Err(fault) => Some(match fault {
                DecodeError::TooBig => Incoming::MessageTooBig,
                DecodeError::NotUtf8 => Incoming::ProtocolError(Close::new(1007, "the text is not UTF-8")),
                DecodeError::Protocol(error) => Incoming::ProtocolError(Close::new(1002, error.to_string())),
            }),
        }
    }

    fn incoming(&mut self, item: Item) -> Incoming {
        match item {
            Item::Text(text) => Incoming::Message(Message::Text(text)),
            Item::Binary(bytes) => Incoming::Message(Message::Binary(bytes)),
            Item::Ping(payload) => {
                self.write(OpCode::Control(Control::Pong), &[&payload]);
                Incoming::Ping
            }
            Item::Pong => Incoming::Pong,
            Item::Close(close) => {
                let (code, reason) = match &close {
                    None => (None, ""),
                    Some((code, _)) if !self.closed && !CloseCode::from(*code).is_allowed() => {
                        (Some(1002), "Protocol violation")
                    }
                    Some((code, reason)) => (Some(*code), &reason[..]),
                };
                self.write_close(code, reason);
                Incoming::Closed(code)
            }
        }
    }

    /// Reads once. Whether there was anything.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut buffer = buffer_pool::take_reading();
        let mut filled = ReadBuf::new(&mut buffer.bytes);
        let read = Pin::new(&mut self.stream).poll_read(context, &mut filled);
        let length = filled.filled().len();
        if length == 0 {
            buffer_pool::give_reading(buffer);
        } else {
            buffer.to = length;
            self.unread = Some(buffer);
        }
        read.map_ok(|()| length > 0)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for Socket<S> {
    const KEEPALIVE: Option<Duration> = None;
    const KIND: TransportKind = TransportKind::WebSocket;

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            if self.over {
                return Poll::Ready(Incoming::Disconnected);
            }
            if let Some(incoming) = self.next_unread() {
                return Poll::Ready(incoming);
            }
            match ready!(self.poll_read(context)) {
                Ok(true) => {}
                Ok(false) => self.over = true,
                Err(error) => {
                    self.over = true;
                    self.error = Some(error);
                }
            }
        }
    }

    fn queue(&mut self, outgoing: Outgoing) -> io::Result<bool> {
        match outgoing {
            Outgoing::Close(Close { code, reason }) => {
                self.write_close(code, &reason);
                return Ok(true);
            }
            _ if self.closed => return Err(io::ErrorKind::NotConnected.into()),
            Outgoing::Message(Message::Text(text)) => {
                self.write(OpCode::Data(Data::Text), &[text.as_bytes()])
            }
            Outgoing::Message(Message::Binary(bytes)) => self.write(OpCode::Data(Data::Binary), &[&bytes]),
            Outgoing::Prefixed(prefix, rest) => self.write(OpCode::Data(Data::Binary), &[&prefix, &rest]),
        }
        Ok(false)
    }

    fn queue_ping(&mut self) -> io::Result<()> {
        self.write(OpCode::Control(Control::Ping), &[]);
        Ok(())
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    fn is_congested(&self) -> bool {
        self.unsent.as_ref().is_some_and(|unsent| unsent.len() > MAX_UNSENT)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(unsent) = self.unsent.as_deref_mut().filter(|unsent| unsent.len() > 0) {
            match Pin::new(&mut self.stream).poll_write(context, &unsent.bytes[unsent.from..])? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => unsent.from += count,
                Poll::Pending => {
                    // What answers pings could be appended forever, and never be sent to its end.
                    if unsent.from >= unsent.bytes.len() / 2 {
                        unsent.bytes.drain(..std::mem::take(&mut unsent.from));
                    }
                    return Poll::Pending;
                }
            }
        }
        self.unsent.take().into_iter().for_each(buffer_pool::give_writing);
        // Under TLS, what was written may still have to be sent.
        Pin::new(&mut self.stream).poll_flush(context)
    }

    async fn close_gracefully(&mut self, closed: bool, patience: Duration) {
        let farewell = async {
            let _ = poll_fn(|context| self.poll_flush(context)).await;
            while closed
                && matches!(
                    poll_fn(|context| self.poll_next(context)).await,
                    Incoming::Message(_) | Incoming::Ping | Incoming::Pong
                )
            {}
            // Under TLS, what was written may still have to be sent, and the end has a word of its own.
            if !closed {
                let _ = self.stream.shutdown().await;
            }
        };
        let _ = tokio::time::timeout(patience, farewell).await;
    }

    /// Lets a close frame that was sent arrive: the peer has `patience` to finish what it is sending, which is
    /// discarded, and to hang up. Otherwise the kernel would answer its data with a reset, which can overtake the
    /// close frame.
    async fn drain(mut self, patience: Duration) {
        let discard = async {
            let _ = self.stream.shutdown().await;
            // On the heap, as every idle connection would carry it in its task otherwise.
            let (mut buffer, mut discarded) = (vec![0; 1024], 0);
            while discarded < MAX_DISCARDED {
                match self.stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => discarded += count,
                }
            }
        };
        let _ = tokio::time::timeout(patience, discard).await;
    }
}

#[cfg(test)]
mod autobahn;
#[cfg(test)]
mod tests;
