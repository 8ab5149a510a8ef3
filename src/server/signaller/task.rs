//! The task of one pipe: it waits, and does what the rules say. None of them lives here.
//!
//! One task holds both connections. So there is no queue between them: neither is read while one of them does not
//! take what was sent to it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::registry::{ConnectorSlot, ListenerGuard};
use crate::protocol::frame::Outgoing;
use crate::protocol::signaller::PipeLimits;
use crate::protocol::signaller::pipe::{Action, End, INTERNAL, Pipe, Side};
use crate::server::transport::ws::Socket;
use crate::server::transport::{Incoming, Transport as _};

/// What a WebSocket runs on. The streams of a listener and its guest need not be of one type.
pub(crate) trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Unpin + Send> Stream for S {}

/// A connection of the relay.
pub(crate) type PipeSocket = Socket<Box<dyn Stream>>;

/// How long a peer has to take notice of a close frame.
const CLOSING: Duration = Duration::from_secs(3);

/// One end of the pipe.
struct Peer {
    line: PipeSocket,
    /// Something waits to be sent.
    flushing: bool,
    /// We sent a close frame.
    closed: bool,
}

impl Peer {
    fn new(line: PipeSocket) -> Self {
        Peer { line, flushing: false, closed: false }
    }

    /// An error means that the connection is broken; the next flush says so, to whom it concerns.
    fn queue(&mut self, outgoing: Outgoing) {
        self.closed |= matches!(outgoing, Outgoing::Close(_));
        let _ = self.line.queue(outgoing);
        self.flushing = true;
    }

    async fn farewell(mut self) {
        self.line.close_gracefully(self.closed, CLOSING).await;
        if self.closed {
            self.line.drain(CLOSING).await;
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "there is one of it, on the stack, and only for a moment")]
enum Wake {
    Stop,
    /// The guest came, or will not come.
    Guest(Option<PipeSocket>),
    Incoming(Side, Incoming),
    Broken(Side),
    Time,
}

/// Listens, and when the guest has come, drives the pipe between the two, until it is over.
pub(super) async fn listen(
    line: PipeSocket,
    mut listening: ListenerGuard<PipeSocket>,
    options: &PipeLimits,
    stop: impl Future<Output = ()>,
) {
    let mut listener = Peer::new(line);
    let mut connector: Option<Peer> = None;
    let mut pipe = Pipe::listen(options, Instant::now().into_std());
    let mut actions: Vec<Action> = Vec::new();
    let mut stop = pin!(stop);
    let mut timer = pin!(tokio::time::sleep_until(pipe.deadline().into()));
    // Takes turns, so that one who never stops talking does not keep us from hearing the other.
    let mut turn = Side::Listener;
    while !pipe.is_over() {
        if timer.deadline() != pipe.deadline().into() {
            timer.as_mut().reset(pipe.deadline().into());
        }
        turn = turn.other();
        let wake = poll_fn(|cx| {
            if stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wake::Stop);
            }
            if connector.is_none()
                && let Poll::Ready(guest) = listening.poll_guest(cx)
            {
                return Poll::Ready(Wake::Guest(guest));
            }
            match poll_peers(&mut listener, connector.as_mut(), &pipe, turn, cx) {
                Poll::Ready(wake) => Poll::Ready(wake),
                Poll::Pending => timer.as_mut().poll(cx).map(|()| Wake::Time),
            }
        })
        .await;
        let now = Instant::now().into_std();
        match wake {
            Wake::Stop => pipe.on_stop(&mut actions),
            Wake::Guest(Some(guest)) => {
                connector = Some(Peer::new(guest));
                pipe.on_connect(now, &mut actions);
            }
            Wake::Guest(None) => pipe.on_end(Side::Connector, End::Gone, &mut actions),
            Wake::Incoming(from, incoming) => match incoming {
                Incoming::Message(message) => pipe.on_message(from, message, &mut actions),
                Incoming::Ping => match (from, &mut connector) {
                    (Side::Listener, _) => listener.flushing = true,
                    (Side::Connector, Some(connector)) => connector.flushing = true,
                    (Side::Connector, None) => {}
                },
                Incoming::Pong => {}
                Incoming::MessageTooBig => pipe.on_end(from, End::TooBig, &mut actions),
                Incoming::ProtocolError(close) => pipe.on_end(from, End::Violation(close), &mut actions),
                Incoming::Closed(code) => pipe.on_end(from, End::Closed(code), &mut actions),
                Incoming::Disconnected => pipe.on_end(from, End::Gone, &mut actions),
            },
            Wake::Broken(side) => pipe.on_end(side, End::Gone, &mut actions),
            Wake::Time => {}
        }
        // At every turn: no traffic puts a deadline off.
        pipe.on_time(now, &mut actions);
        for (to, outgoing) in actions.drain(..) {
            match (to, &mut connector) {
                (Side::Listener, _) => listener.queue(outgoing),
                (Side::Connector, Some(connector)) => connector.queue(outgoing),
                (Side::Connector, None) => {}
            }
        }
    }
    // The handle is free before the farewell. A guest that comes at this moment has missed the listener.
    let late = listening.leave().map(missed);
    if connector.is_none() {
        connector = late;
    }
    match connector {
        Some(connector) => {
            tokio::join!(listener.farewell(), connector.farewell());
        }
        None => listener.farewell().await,
    }
}

/// What the two sent, or did not take.
fn poll_peers(
    listener: &mut Peer,
    mut connector: Option<&mut Peer>,
    pipe: &Pipe,
    turn: Side,
    context: &mut Context<'_>,
) -> Poll<Wake> {
    let mut flushing = false;
    for side in [Side::Listener, Side::Connector] {
        let Some(peer) = peer(side, listener, &mut connector) else {
            continue;
        };
        if peer.flushing {
            match peer.line.poll_flush(context) {
                Poll::Ready(Ok(())) => peer.flushing = false,
                Poll::Ready(Err(_)) => return Poll::Ready(Wake::Broken(side)),
                Poll::Pending => flushing = true,
            }
        }
    }
    if flushing {
        return Poll::Pending;
    }
    for side in [turn, turn.other()] {
        if let Some(peer) = peer(side, listener, &mut connector)
            && pipe.wants(side)
            && let Poll::Ready(incoming) = peer.line.poll_next(context)
        {
            return Poll::Ready(Wake::Incoming(side, incoming));
        }
    }
    Poll::Pending
}

fn peer<'a>(
    side: Side,
    listener: &'a mut Peer,
    connector: &'a mut Option<&mut Peer>,
) -> Option<&'a mut Peer> {
    match side {
        Side::Listener => Some(listener),
        Side::Connector => connector.as_deref_mut(),
    }
}

/// Hands a guest to its listener, whose task does the rest.
pub(super) async fn connect(line: PipeSocket, claim: ConnectorSlot<PipeSocket>) {
    if let Err(line) = claim.join(line) {
        missed(line).farewell().await;
    }
}

/// A guest whose listener left after it was admitted.
fn missed(line: PipeSocket) -> Peer {
    let mut guest = Peer::new(line);
    guest.queue(INTERNAL.into());
    guest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::ready;

    use bytes::Bytes;
    use futures_util::{Sink, Stream};
    use tokio::io::{DuplexStream, ReadBuf};
    use tokio::task::coop;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::super::registry::Registry;
    use crate::protocol::signaller::handle::Handle;

    /// What the streams between a client and the server hold, in bytes, each way.
    const WIRE: usize = 4096;

    type Client = WebSocketStream<DuplexStream>;

    async fn line() -> (PipeSocket, Client) {
        let (ours, theirs) = tokio::io::duplex(WIRE);
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let ours: Box<dyn super::Stream> = Box::new(ours);
        (Socket::new(ours, Bytes::new(), 1024), client)
    }

    fn abc() -> Handle {
        Handle::parse("abc").unwrap()
    }

    async fn next(client: &mut Client) -> Message {
        let next = poll_fn(|context| Pin::new(&mut *client).poll_next(context));
        next.await.unwrap().unwrap()
    }

    async fn close_code(client: &mut Client) -> u16 {
        match next(client).await {
            Message::Close(Some(close)) => close.code.into(),
            other => panic!("{other:?}"),
        }
    }

    async fn send(client: &mut Client, message: Message) {
        poll_fn(|context| Pin::new(&mut *client).poll_ready(context)).await.unwrap();
        Pin::new(&mut *client).start_send(message).unwrap();
        poll_fn(|context| Pin::new(&mut *client).poll_flush(context)).await.unwrap();
    }

    /// How many messages of 1000 bytes go out before the server stops reading.
    async fn sent_until_stuck(client: &mut Client) -> usize {
        for count in 0..1000 {
            let sending = send(client, Message::binary(vec![0; 1000]));
            if tokio::time::timeout(Duration::from_secs(1), sending).await.is_err() {
                return count;
            }
        }
        panic!("the server reads whatever comes");
    }

    fn options() -> PipeLimits {
        PipeLimits {
            max_messages: u32::MAX,
            listen_deadline: Duration::from_secs(600),
            pipe_deadline: Duration::from_secs(600),
            ..PipeLimits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_piles_up_in_front_of_somebody_who_does_not_read() {
        let registry = Arc::<Registry<PipeSocket>>::default();
        let listening = registry.listen(abc()).unwrap();
        let (listener, mut l) = line().await;
        tokio::spawn(async move { listen(listener, listening, &options(), pending()).await });
        // As much as waits for a connector, and what is under way.
        let early = sent_until_stuck(&mut l).await;
        assert!((60..75).contains(&early), "{early}");
        let (connector, mut c) = line().await;
        connect(connector, registry.claim(&abc()).unwrap()).await;
        // The way back is shut too while the connector does not read what came early.
        let back = sent_until_stuck(&mut c).await;
        assert!(back < 10, "{back}");
        // It is not lost, and the one that was stuck comes after it.
        for _ in 0..early {
            assert_eq!(next(&mut c).await.len(), 1000);
        }
        for _ in 0..back {
            assert_eq!(next(&mut l).await.len(), 1000);
        }
    }

    /// Somebody who never stops to send pings, and takes whatever comes.
    #[derive(Debug)]
    struct Flood;

    impl AsyncRead for Flood {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            // As sockets do: with this, a task that never waits is interrupted now and then.
            ready!(coop::poll_proceed(context)).made_progress();
            buffer.put_slice(&[0x89, 0x80, 0, 0, 0, 0]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Flood {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    // On a clock that goes: one that is paused does not, as long as somebody is busy.
    #[tokio::test]
    async fn pings_put_no_deadline_off() {
        let registry = Arc::<Registry<PipeSocket>>::default();
        let listening = registry.listen(abc()).unwrap();
        let options = PipeLimits { listen_deadline: Duration::from_millis(50), ..options() };
        let flood: Box<dyn super::Stream> = Box::new(Flood);
        let line = Socket::new(flood, Bytes::new(), 1024);
        let task = tokio::spawn(async move { listen(line, listening, &options, pending()).await });
        let freed = async {
            while registry.has(&abc()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), freed).await.unwrap();
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_and_a_listener_that_miss_each_other_are_told() {
        let registry = Arc::<Registry<PipeSocket>>::default();
        // The listener left after the guest was admitted.
        let listening = registry.listen(abc()).unwrap();
        let claim = registry.claim(&abc()).unwrap();
        drop(listening);
        let (connector, mut c) = line().await;
        connect(connector, claim).await;
        assert_eq!(close_code(&mut c).await, 1011);

        // The guest came, but something else ended the wait first.
        let listening = registry.listen(abc()).unwrap();
        let ((listener, mut l), (connector, mut c)) = (line().await, line().await);
        connect(connector, registry.claim(&abc()).unwrap()).await;
        listen(listener, listening, &options(), ready(())).await;
        assert_eq!(close_code(&mut l).await, 1001);
        assert_eq!(close_code(&mut c).await, 1011);

        // The guest was admitted, but never came.
        let listening = registry.listen(abc()).unwrap();
        let (listener, mut l) = line().await;
        drop(registry.claim(&abc()).unwrap());
        listen(listener, listening, &options(), pending()).await;
        assert_eq!(close_code(&mut l).await, 1011);
        assert!(!registry.has(&abc()));
    }
}
