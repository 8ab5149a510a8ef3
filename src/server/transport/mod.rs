//! How frames travel: WebSockets, and event streams with the requests that answer them. No dialect, no room.

pub mod sse_body;
pub mod ws;

use std::future::Future;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::protocol::frame::{Close, Message, Outgoing};

/// What came from the peer.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    /// A message.
    Message(Message),
    /// A sign of life: a ping, which is answered already, or the pong of ours.
    Ping,
    /// The pong of our ping.
    Pong,
    /// A frame longer than allowed.
    MessageTooBig,
    /// Something that breaks the transport's protocol; what, and the close that says so.
    ProtocolError(Close),
    /// The peer closed, with this code if it gave one; its close frame is answered with the next flush.
    Closed(Option<u16>),
    /// The connection is over, without a close frame or after it.
    Disconnected,
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
    /// How often a ping is due, if pings only keep the connection in use and nobody answers them. `None` if they are
    /// answered, so that a peer can be asked whether it is there.
    const KEEPALIVE: Option<Duration>;

    /// Kind of the transport, for logs.
    const KIND: TransportKind;

    /// The next thing that came.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Incoming>;

    /// Queues a frame; it is sent with the next [`poll_flush`](Self::poll_flush). Whether it was the last, after which
    /// nothing can be queued: a close frame, unless the transport has errors that end nothing.
    ///
    /// # Errors
    /// The connection is broken.
    fn queue(&mut self, outgoing: Outgoing) -> io::Result<bool>;

    /// Queues a ping, as the transport has it.
    ///
    /// # Errors
    /// The connection is broken.
    fn queue_ping(&mut self) -> io::Result<()>;

    /// Whether so much is queued that the peer should be heard no more before it has taken it.
    fn is_congested(&self) -> bool;

    /// Sends what is queued.
    ///
    /// # Errors
    /// The connection is broken.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Returns the error that disconnected the client, once, if it was one.
    fn take_error(&mut self) -> Option<io::Error>;

    /// Sends what is queued, and if a close frame is in it, hears out the peer up to its answer: all that for as long
    /// as `patience` lasts.
    fn close_gracefully(&mut self, closed: bool, patience: Duration) -> impl Future<Output = ()> + Send;

    /// Lets a close frame that was sent arrive, for as long as `patience` lasts.
    fn drain(self, patience: Duration) -> impl Future<Output = ()> + Send;
}
