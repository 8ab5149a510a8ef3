//! The task of one pipe: it does the I/O that the rules in [`Pipe`] require.
//!
//! One task owns both connections, without a queue between them: neither is read while one of them does not
//! take what was sent to it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep_until;

use super::registry::{ConnectorSlot, ListenerGuard};
use crate::protocol::frame::Outgoing;
use crate::protocol::signaller::PipeLimits;
use crate::protocol::signaller::pipe::{Disconnect, INTERNAL_ERROR, Pipe, PipeAction, PipeSide};
use crate::server::clock;
use crate::server::memory::MemoryCharge;
use crate::server::transport::ws::Socket;
use crate::server::transport::{Incoming, Transport as _};
use crate::server::turn::Turn;

/// The stream under a WebSocket. Those of a listener and its connector need not be of one type.
pub(crate) trait PipeStream: AsyncRead + AsyncWrite + fmt::Debug + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Unpin + Send> PipeStream for S {}

/// The WebSocket of a listener or connector.
pub(crate) type PipeSocket = Socket<Box<dyn PipeStream>>;

/// The connection of one side of the pipe.
struct PipeEnd {
    socket: PipeSocket,
    /// There may be data to send.
    flushing: bool,
    close_sent: bool,
}

impl PipeEnd {
    fn new(socket: PipeSocket) -> Self {
        PipeEnd { socket, flushing: false, close_sent: false }
    }

    /// Queues a frame. An error of the connection is returned by the next flush.
    fn queue(&mut self, outgoing: Outgoing) {
        self.close_sent |= matches!(outgoing, Outgoing::Close(_));
        let _ = self.socket.queue(outgoing);
        self.flushing = true;
    }

    /// Ready when all data is sent, or with an error when the connection is lost.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        if self.flushing {
            ready!(self.socket.poll_flush(context)).map_err(drop)?;
            self.flushing = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        let incoming = ready!(self.socket.poll_next(context));
        // The socket queued the pong.
        self.flushing |= matches!(incoming, Incoming::Ping);
        Poll::Ready(incoming)
    }

    /// Returns the memory that is held for the side, in bytes.
    fn held_bytes(&mut self) -> usize {
        self.socket.take_load().bytes()
    }

    async fn finish(self) {
        self.socket.finish(self.close_sent).await;
    }
}

/// Serves a listener: waits for its connector, then runs the pipe between the two until it is closed.
/// Returns the cause of the close.
pub(super) async fn listen(
    socket: PipeSocket,
    mut guard: ListenerGuard<PipeSocket>,
    limits: &PipeLimits,
    mut charge: MemoryCharge,
    stop: impl Future<Output = PipeStop>,
) -> Option<&'static str> {
    let mut stop = pin!(stop);
    let mut pipe = Pipe::listen(limits, clock::now());
    let mut listener = PipeEnd::new(socket);
    let connector =
        match await_connector(&mut pipe, &mut listener, &mut guard, &mut charge, stop.as_mut()).await {
            Some(socket) => {
                let mut connector = PipeEnd::new(socket);
                run_pipe(&mut pipe, &mut listener, &mut connector, &mut charge, stop).await;
                Some(connector)
            }
            // The handle is free before the close handshake. A connector that arrives at this moment is late.
            None => guard.leave().map(reject_late_connector),
        };
    match connector {
        Some(connector) => {
            tokio::join!(listener.finish(), connector.finish());
        }
        None => listener.finish().await,
    }
    pipe.close_cause()
}

/// Reads the listener until a connector arrives, which is returned, or until the pipe is closed.
async fn await_connector(
    pipe: &mut Pipe,
    listener: &mut PipeEnd,
    guard: &mut ListenerGuard<PipeSocket>,
    charge: &mut MemoryCharge,
    mut stop: Pin<&mut impl Future<Output = PipeStop>>,
) -> Option<PipeSocket> {
    let (mut actions, mut turn) = (Vec::new(), Turn::default());
    while !pipe.is_closed() {
        let can_read = pipe.can_read(PipeSide::Listener);
        let next = poll_fn(|context| match ready!(listener.poll_flush(context)) {
            Err(()) => Poll::Ready(Incoming::Disconnected),
            Ok(()) if can_read => listener.poll_read(context),
            Ok(()) => Poll::Pending,
        });
        tokio::select! {
            biased;
            cause = &mut stop => on_stop(pipe, cause, &mut actions),
            connector = poll_fn(|context| guard.poll_connector(context)) => match connector {
                Some(connector) => return Some(connector),
                None => pipe.on_disconnect(PipeSide::Connector, Disconnect::Lost, &mut actions),
            },
            incoming = next => {
                incoming.spend(&mut turn);
                on_incoming(pipe, PipeSide::Listener, incoming, &mut actions);
            }
            () = sleep_until(pipe.deadline().into()) => {}
        }
        if charge.resize(listener.held_bytes() + pipe.buffered_bytes()).is_err() {
            pipe.on_overload(&mut actions);
        }
        // After each frame, so that a client that never stops sending cannot postpone the deadline.
        pipe.handle_timeout(clock::now(), &mut actions);
        actions
            .drain(..)
            .filter(|(to, _)| *to == PipeSide::Listener)
            .for_each(|(_, frame)| listener.queue(frame));
        turn.yield_if_over().await;
    }
    None
}

/// Reason to end a pipe that is not of its clients.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PipeStop {
    Shutdown,
    TokenExpired,
}

fn on_stop(pipe: &mut Pipe, cause: PipeStop, actions: &mut Vec<PipeAction>) {
    match cause {
        PipeStop::Shutdown => pipe.on_shutdown(actions),
        PipeStop::TokenExpired => pipe.on_expiry(actions),
    }
}

/// Forwards messages between the two sides until the pipe is closed.
async fn run_pipe(
    pipe: &mut Pipe,
    listener: &mut PipeEnd,
    connector: &mut PipeEnd,
    charge: &mut MemoryCharge,
    mut stop: Pin<&mut impl Future<Output = PipeStop>>,
) {
    let (mut actions, mut turn) = (Vec::new(), Turn::default());
    pipe.on_connect(clock::now(), &mut actions);
    // The sides take turns, so that one that never stops sending does not keep the other from being read.
    let mut first = PipeSide::Connector;
    loop {
        pipe.handle_timeout(clock::now(), &mut actions);
        for (to, frame) in actions.drain(..) {
            match to {
                PipeSide::Listener => listener.queue(frame),
                PipeSide::Connector => connector.queue(frame),
            }
        }
        if pipe.is_closed() {
            return;
        }
        tokio::select! {
            biased;
            cause = &mut stop => on_stop(pipe, cause, &mut actions),
            (from, incoming) = poll_fn(|context| poll_sides(listener, connector, first, context)) => {
                incoming.spend(&mut turn);
                on_incoming(pipe, from, incoming, &mut actions);
            }
            () = sleep_until(pipe.deadline().into()) => {}
        }
        if charge.resize(listener.held_bytes() + connector.held_bytes()).is_err() {
            pipe.on_overload(&mut actions);
        }
        first = first.opposite();
        turn.yield_if_over().await;
    }
}

/// Flushes both sides, and then reads from one of them, `first` if it has sent something.
fn poll_sides(
    listener: &mut PipeEnd,
    connector: &mut PipeEnd,
    first: PipeSide,
    context: &mut Context<'_>,
) -> Poll<(PipeSide, Incoming)> {
    let (listener_flush, connector_flush) = (listener.poll_flush(context), connector.poll_flush(context));
    for (side, flush) in [(PipeSide::Listener, listener_flush), (PipeSide::Connector, connector_flush)] {
        if flush == Poll::Ready(Err(())) {
            return Poll::Ready((side, Incoming::Disconnected));
        }
    }
    if listener_flush.is_pending() || connector_flush.is_pending() {
        return Poll::Pending;
    }
    for side in [first, first.opposite()] {
        let end = match side {
            PipeSide::Listener => &mut *listener,
            PipeSide::Connector => &mut *connector,
        };
        if let Poll::Ready(incoming) = end.poll_read(context) {
            return Poll::Ready((side, incoming));
        }
    }
    Poll::Pending
}

fn on_incoming(pipe: &mut Pipe, from: PipeSide, incoming: Incoming, actions: &mut Vec<PipeAction>) {
    let disconnect = match incoming {
        Incoming::Message(message) => return pipe.on_message(from, message, actions),
        Incoming::Partial | Incoming::Ping | Incoming::Pong => return,
        Incoming::MessageTooBig => Disconnect::MessageTooBig,
        Incoming::ProtocolError(close) => Disconnect::ProtocolError(close),
        Incoming::Closed(code) => Disconnect::Closed(code),
        Incoming::Disconnected => Disconnect::Lost,
    };
    pipe.on_disconnect(from, disconnect, actions);
}

/// Hands a connector to its listener, whose task does the rest. Returns the cause for which the connection
/// ended, if there was no listener any more.
pub(super) async fn connect(socket: PipeSocket, slot: ConnectorSlot<PipeSocket>) -> Option<&'static str> {
    let socket = slot.connect(socket).err()?;
    reject_late_connector(socket).finish().await;
    Some("no listener")
}

/// Closes a connector whose listener left after it was admitted.
fn reject_late_connector(socket: PipeSocket) -> PipeEnd {
    let mut connector = PipeEnd::new(socket);
    connector.queue(Outgoing::Close(INTERNAL_ERROR));
    connector
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{self, pending};
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::{Sink, Stream};
    use tokio::io::{DuplexStream, ReadBuf};
    use tokio::task::coop;
    use tokio::time::Instant;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::super::registry::Registry;
    use crate::protocol::signaller::handle::Handle;
    use crate::server::memory::MemoryBudget;

    /// Capacity of the stream between a client and the server in each direction, in bytes.
    const WIRE: usize = 4096;

    fn charge() -> MemoryCharge {
        MemoryBudget::new(1 << 20).empty_charge()
    }

    type Client = WebSocketStream<DuplexStream>;

    async fn socket_pair() -> (PipeSocket, Client) {
        let (ours, theirs) = tokio::io::duplex(WIRE);
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let ours: Box<dyn PipeStream> = Box::new(ours);
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

    /// Returns the number of messages of 1000 bytes that are sent before the server stops reading.
    async fn messages_until_blocked(client: &mut Client) -> usize {
        for count in 0..1000 {
            let sending = send(client, Message::binary(vec![0; 1000]));
            if tokio::time::timeout(Duration::from_secs(1), sending).await.is_err() {
                return count;
            }
        }
        panic!("the server never stops reading");
    }

    fn limits() -> PipeLimits {
        PipeLimits {
            max_messages: u32::MAX,
            listen_deadline: Duration::from_secs(600),
            pipe_deadline: Duration::from_secs(600),
            ..PipeLimits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sender_is_not_read_while_the_receiver_does_not_read() {
        let registry = Arc::<Registry<PipeSocket>>::default();
        let guard = registry.listen(abc()).unwrap();
        let (listener, mut l) = socket_pair().await;
        tokio::spawn(async move { listen(listener, guard, &limits(), charge(), pending()).await });
        // The messages kept for a connector, and those in the streams.
        let kept = messages_until_blocked(&mut l).await;
        assert!((60..75).contains(&kept), "{kept}");
        let (connector, mut c) = socket_pair().await;
        connect(connector, registry.take_listener(&abc()).unwrap()).await;
        // The connector is not read either while it does not read the kept messages.
        let back = messages_until_blocked(&mut c).await;
        assert!(back < 10, "{back}");
        // No message is lost or reordered.
        for _ in 0..kept {
            assert_eq!(next(&mut c).await.len(), 1000);
        }
        for _ in 0..back {
            assert_eq!(next(&mut l).await.len(), 1000);
        }
    }

    /// The stream of a client that sends pings without end, and reads everything.
    #[derive(Debug)]
    struct Flood;

    impl AsyncRead for Flood {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            // As sockets do, so that a task that never waits yields to others.
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

    // With a running clock: a paused one does not advance while a task is busy.
    #[tokio::test]
    async fn pings_do_not_postpone_the_deadline() {
        let registry = Arc::<Registry<PipeSocket>>::default();
        let guard = registry.listen(abc()).unwrap();
        let limits = PipeLimits { listen_deadline: Duration::from_millis(50), ..limits() };
        let flood: Box<dyn PipeStream> = Box::new(Flood);
        let socket = Socket::new(flood, Bytes::new(), 1024);
        let task = tokio::spawn(async move { listen(socket, guard, &limits, charge(), pending()).await });
        let freed = async {
            while registry.has_listener(&abc()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), freed).await.unwrap();
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn listener_and_connector_that_miss_each_other_are_closed() {
        let registry = Arc::<Registry<PipeSocket>>::default();
        // The listener left after the connector was admitted.
        let guard = registry.listen(abc()).unwrap();
        let slot = registry.take_listener(&abc()).unwrap();
        drop(guard);
        let (connector, mut c) = socket_pair().await;
        connect(connector, slot).await;
        assert_eq!(close_code(&mut c).await, 1011);

        // The connector arrived after the server began to shut down.
        let guard = registry.listen(abc()).unwrap();
        let ((listener, mut l), (connector, mut c)) = (socket_pair().await, socket_pair().await);
        connect(connector, registry.take_listener(&abc()).unwrap()).await;
        listen(listener, guard, &limits(), charge(), future::ready(PipeStop::Shutdown)).await;
        assert_eq!(close_code(&mut l).await, 1001);
        assert_eq!(close_code(&mut c).await, 1011);

        // The connector was admitted, but never arrived.
        let guard = registry.listen(abc()).unwrap();
        let (listener, mut l) = socket_pair().await;
        drop(registry.take_listener(&abc()).unwrap());
        listen(listener, guard, &limits(), charge(), pending()).await;
        assert_eq!(close_code(&mut l).await, 1011);
        assert!(!registry.has_listener(&abc()));
    }

    fn millis_since(start: Instant) -> u128 {
        start.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn listen_deadline_closes_the_listener_and_frees_the_handle() {
        let registry = Arc::<Registry<PipeSocket>>::default();
        let guard = registry.listen(abc()).unwrap();
        let (listener, mut l) = socket_pair().await;
        let start = Instant::now();
        let task = tokio::spawn(async move {
            listen(listener, guard, &PipeLimits::default(), charge(), pending()).await
        });
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert!(registry.has_listener(&abc()));
        assert_eq!(close_code(&mut l).await, 4000);
        // Timers have a resolution of one millisecond.
        assert!((60_000..=60_001).contains(&millis_since(start)));
        assert!(!registry.has_listener(&abc()));
        drop(l);
        assert_eq!(task.await.unwrap(), Some("listen timeout"));
    }

    #[tokio::test(start_paused = true)]
    async fn pipe_deadline_closes_both_sides() {
        let registry = Arc::<Registry<PipeSocket>>::default();
        let guard = registry.listen(abc()).unwrap();
        let ((listener, mut l), (connector, mut c)) = (socket_pair().await, socket_pair().await);
        tokio::spawn(
            async move { listen(listener, guard, &PipeLimits::default(), charge(), pending()).await },
        );
        tokio::time::sleep(Duration::from_secs(59)).await;
        connect(connector, registry.take_listener(&abc()).unwrap()).await;
        let start = Instant::now();
        tokio::time::sleep(Duration::from_secs(6)).await;
        send(&mut c, Message::text("mid")).await;
        assert_eq!(next(&mut l).await, Message::text("mid"));
        assert_eq!(close_code(&mut l).await, 4001);
        assert_eq!(close_code(&mut c).await, 4001);
        assert!((10_000..=10_001).contains(&millis_since(start)));
    }
}
