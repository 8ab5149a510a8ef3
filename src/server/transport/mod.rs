//! Transports of messages: WebSockets, and event streams with the requests that carry the other direction.

pub(crate) mod sse_body;
pub mod ws;

use std::future::Future;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::protocol::frame::{Close, Message, Outgoing};
use crate::server::turn::Turn;

/// Time that a client has to receive and answer a close frame.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// An event on the receiving side of a connection.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Incoming {
    /// A message.
    Message(Message),
    /// A part of a message, which is kept until the rest has arrived.
    Partial,
    /// A ping; its pong is queued already.
    Ping,
    /// The pong of a ping that was queued here.
    Pong,
    /// A message longer than allowed.
    MessageTooBig,
    /// A violation of the transport's protocol, and the close frame for it.
    ProtocolError(Close),
    /// A close frame, with its code; the answer is queued already.
    Closed(Option<u16>),
    /// The end of the connection, after a close frame or without one.
    Disconnected,
}

impl Incoming {
    /// Counts the event towards the turn of its receiver.
    pub(crate) fn spend(&self, turn: &mut Turn) {
        match self {
            Incoming::Message(message) => turn.spend(1, message.len()),
            // One read was made for it, of any length.
            Incoming::Partial => turn.spend(1, usize::MAX),
            _ => turn.spend(1, 0),
        }
    }
}

/// Memory that a transport holds for its client, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportLoad {
    /// A message of which a part was received.
    pub incomplete: usize,
    /// Messages that were received and not handled.
    pub unhandled: usize,
    /// Bytes that the client did not take.
    pub unsent: usize,
    /// The client took some of it.
    pub written: bool,
}

impl TransportLoad {
    /// Returns the length of all.
    pub(crate) fn bytes(&self) -> usize {
        self.incomplete + self.unhandled + self.unsent
    }
}

/// Kind of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportKind {
    /// A WebSocket.
    WebSocket,
    /// A stream of server-sent events, and the requests that answer it.
    EventStream,
    /// A WebSocket of a signaller pipe.
    SignallerPipe,
}

impl TransportKind {
    /// Returns the name used in logs.
    pub const fn name(self) -> &'static str {
        match self {
            TransportKind::WebSocket => "websocket",
            TransportKind::EventStream => "event stream",
            TransportKind::SignallerPipe => "signaller pipe",
        }
    }
}

/// The server's end of one connection.
pub trait Transport {
    /// Interval of pings that only keep the connection in use, as the transport has no pongs. `None` if pings
    /// are answered, and so show that the peer is alive.
    const KEEPALIVE: Option<Duration>;

    /// Kind of the transport, for logs.
    const KIND: TransportKind;

    /// Receives the next event.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Incoming>;

    /// Queues a message or close frame for the next [`poll_flush`](Self::poll_flush). Returns true if nothing
    /// can be queued after it.
    ///
    /// # Errors
    /// The connection is broken or closed.
    fn queue(&mut self, outgoing: Outgoing) -> io::Result<bool>;

    /// Queues a ping, in the form that the transport has.
    ///
    /// # Errors
    /// The connection is broken.
    fn queue_ping(&mut self) -> io::Result<()>;

    /// Returns true if so much is queued that nothing more should be received before the peer has taken some
    /// of it.
    fn is_congested(&self) -> bool;

    /// Sends the queue.
    ///
    /// # Errors
    /// The connection is broken.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Returns what is held for the client. What was written since the last call is reported once.
    fn take_load(&mut self) -> TransportLoad;

    /// Discards what was received and not handled, and receives nothing more.
    fn stop_receiving(&mut self);

    /// Returns the error that disconnected the client, once, if it was one.
    fn take_error(&mut self) -> Option<io::Error>;

    /// Sends the queue; if a close frame is in it (`close_sent`), receives up to the peer's close frame.
    /// Gives up after `timeout`.
    fn close_gracefully(&mut self, close_sent: bool, timeout: Duration) -> impl Future<Output = ()> + Send;

    /// Lets the close frame arrive: discards what the peer is still sending, up to its end or for `timeout`.
    fn drain(self, timeout: Duration) -> impl Future<Output = ()> + Send;

    /// Ends the connection, with the close handshake if a close frame was queued (`close_sent`).
    fn finish(mut self, close_sent: bool) -> impl Future<Output = ()> + Send
    where
        Self: Send + Sized,
    {
        async move {
            self.close_gracefully(close_sent, CLOSE_TIMEOUT).await;
            if close_sent {
                self.drain(CLOSE_TIMEOUT).await;
            }
        }
    }
}
