//! The server's end of one event stream: messages are sent as events in the body of a response, and received
//! from a queue that the client's other requests fill. The caller encodes the events.
//!
//! The HTTP connection pulls the body, as far as its own write buffer has room: what is queued counts as
//! unsent until the connection has taken it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::{Incoming, Transport, TransportKind, TransportLoad};
use crate::protocol::frame::{Message, Outgoing};
use crate::server::memory::MemoryCharge;

/// Most messages of a client that may wait for its task; a request with another waits.
const INBOX_LEN: usize = 4;

/// Most bytes that may be queued before nothing more is received.
const MAX_UNSENT: usize = 64 * 1024;

/// Interval of comments that keep the stream in use (sigver 8.1 to 10.1, measured).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// An empty comment.
const COMMENT: Bytes = Bytes::from_static(b":\n");

/// An event stream. `W` encodes a message as an event, if it has one, and returns true if it is the last.
#[derive(Debug)]
pub(crate) struct EventStream<W> {
    body: BodySender,
    inbox: mpsc::Receiver<Posted>,
    encode: W,
}

impl<W: FnMut(Outgoing) -> (Option<Bytes>, bool)> EventStream<W> {
    /// Returns an event stream that sends to `body`, and receives from the queue `inbox`.
    pub(crate) fn new(body: BodySender, inbox: mpsc::Receiver<Posted>, encode: W) -> Self {
        EventStream { body, inbox, encode }
    }
}

/// A message of a client that waits for its task.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) message: Message,
    /// Charge to the budget of the process, unless the message is short.
    pub(crate) _charge: Option<MemoryCharge>,
}

impl From<Message> for Posted {
    fn from(message: Message) -> Self {
        Posted { message, _charge: None }
    }
}

/// Returns both ends of a queue for the messages of one client.
pub(crate) fn inbox() -> (mpsc::Sender<Posted>, mpsc::Receiver<Posted>) {
    mpsc::channel(INBOX_LEN)
}

impl<W: FnMut(Outgoing) -> (Option<Bytes>, bool) + Send> Transport for EventStream<W> {
    const KEEPALIVE: Option<Duration> = Some(KEEPALIVE_INTERVAL);
    const KIND: TransportKind = TransportKind::EventStream;

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        if self.body.poll_closed(context).is_ready() {
            return Poll::Ready(Incoming::Disconnected);
        }
        let posted = self.inbox.poll_recv(context);
        posted.map(|posted| posted.map_or(Incoming::Disconnected, |posted| Incoming::Message(posted.message)))
    }

    fn queue(&mut self, outgoing: Outgoing) -> io::Result<bool> {
        let (event, last) = (self.encode)(outgoing);
        event.map_or(Ok(()), |event| self.body.push(event))?;
        Ok(last)
    }

    fn queue_ping(&mut self) -> io::Result<()> {
        // Unsent events keep the stream in use as well.
        if self.body.unsent() == 0 { self.body.push(COMMENT) } else { Ok(()) }
    }

    /// The messages in the inbox are charged to the requests that brought them.
    fn take_load(&mut self) -> TransportLoad {
        let mut state = self.body.0.state.lock();
        TransportLoad {
            unsent: state.unsent,
            written: std::mem::take(&mut state.taken),
            ..TransportLoad::default()
        }
    }

    fn stop_receiving(&mut self) {
        self.inbox.close();
    }

    fn take_error(&mut self) -> Option<io::Error> {
        None
    }

    fn is_congested(&self) -> bool {
        self.body.unsent() > MAX_UNSENT
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.body.poll_drained(context)
    }

    async fn close_gracefully(&mut self, _close_sent: bool, timeout: Duration) {
        self.inbox.close();
        let flush = poll_fn(|context| self.body.poll_drained(context));
        let _ = tokio::time::timeout(timeout, flush).await;
    }

    /// Does nothing: the HTTP connection delivers the end of the body.
    async fn drain(self, _timeout: Duration) {}
}

/// The sending end of a response body. Dropping it ends the body.
#[derive(Debug)]
pub(crate) struct BodySender(Arc<BodyChannel>);

/// The receiving end of a response body. Dropping it reports to the sender that the client is disconnected.
#[derive(Debug)]
pub(crate) struct BodyReceiver(Arc<BodyChannel>);

#[derive(Debug)]
struct BodyChannel {
    state: Mutex<ChannelState>,
    ended: Arc<Notify>,
}

#[derive(Debug, Default)]
struct ChannelState {
    queue: VecDeque<Bytes>,
    /// Length of `queue`, in bytes.
    unsent: usize,
    /// The client has taken some of it lately.
    taken: bool,
    /// The sender was dropped.
    ended: bool,
    /// The receiver was dropped.
    closed: bool,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

/// Returns both ends of a body. `ended` is notified when the sender is dropped.
pub(crate) fn body_channel(ended: Arc<Notify>) -> (BodySender, BodyReceiver) {
    let channel = Arc::new(BodyChannel { state: Mutex::default(), ended });
    (BodySender(Arc::clone(&channel)), BodyReceiver(channel))
}

impl BodySender {
    /// Appends to the body.
    ///
    /// # Errors
    /// The client is disconnected.
    pub(crate) fn push(&self, bytes: Bytes) -> io::Result<()> {
        let receiver = {
            let mut state = self.0.state.lock();
            if state.closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            state.unsent += bytes.len();
            state.queue.push_back(bytes);
            state.receiver.take()
        };
        receiver.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Waits until the client is disconnected.
    pub(crate) async fn closed(&self) {
        poll_fn(|context| self.poll_closed(context)).await;
    }

    fn unsent(&self) -> usize {
        self.0.state.lock().unsent
    }

    fn poll_closed(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Poll::Ready(());
        }
        state.register_sender(context);
        Poll::Pending
    }

    fn poll_drained(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.queue.is_empty() {
            return Poll::Ready(Ok(()));
        }
        state.register_sender(context);
        Poll::Pending
    }
}

impl ChannelState {
    /// Registers the sender's task to be woken when the queue is empty or the client disconnects.
    fn register_sender(&mut self, context: &Context<'_>) {
        match &mut self.sender {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}

impl Drop for BodySender {
    fn drop(&mut self) {
        let receiver = {
            let mut state = self.0.state.lock();
            state.ended = true;
            state.receiver.take()
        };
        receiver.into_iter().for_each(Waker::wake);
        self.0.ended.notify_one();
    }
}

impl BodyReceiver {
    /// Receives the next chunk; `None` at the end.
    pub(crate) fn poll_chunk(&self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let (chunk, sender) = {
            let mut state = self.0.state.lock();
            let Some(chunk) = state.queue.pop_front() else {
                if state.ended {
                    return Poll::Ready(None);
                }
                state.receiver = Some(context.waker().clone());
                return Poll::Pending;
            };
            state.unsent -= chunk.len();
            state.taken = true;
            let sender = if state.queue.is_empty() {
                // Releases the memory of a stream that was busy once.
                state.queue = VecDeque::new();
                state.sender.take()
            } else {
                None
            };
            (chunk, sender)
        };
        sender.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(chunk))
    }

    /// Returns true if the body has ended and all of it was received.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.0.state.lock();
        state.ended && state.queue.is_empty()
    }
}

impl Drop for BodyReceiver {
    fn drop(&mut self) {
        let sender = {
            let mut state = self.0.state.lock();
            state.closed = true;
            state.queue = VecDeque::new();
            state.sender.take()
        };
        sender.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::Close;

    fn encode(outgoing: Outgoing) -> (Option<Bytes>, bool) {
        match outgoing {
            Outgoing::Message(Message::Text(text)) => (Some(text.into_bytes()), false),
            Outgoing::Message(Message::Binary(_)) | Outgoing::Prefixed(..) => (None, false),
            Outgoing::Close(_) => (None, true),
        }
    }

    type Encode = fn(Outgoing) -> (Option<Bytes>, bool);

    fn stream() -> (EventStream<Encode>, mpsc::Sender<Posted>, BodyReceiver, Arc<Notify>) {
        let ended = Arc::new(Notify::new());
        let (sender, receiver) = body_channel(Arc::clone(&ended));
        let (inbox, messages) = inbox();
        (EventStream::new(sender, messages, encode), inbox, receiver, ended)
    }

    async fn chunk(body: &BodyReceiver) -> Option<Bytes> {
        poll_fn(|context| body.poll_chunk(context)).await
    }

    fn is_flushed(stream: &mut EventStream<Encode>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        matches!(stream.poll_flush(&mut context), Poll::Ready(Ok(())))
    }

    #[tokio::test]
    async fn queued_events_are_unsent_until_received() {
        let (mut stream, _inbox, body, ended) = stream();
        assert!(is_flushed(&mut stream));
        assert!(!stream.queue(Message::text("a").into()).unwrap());
        assert!(!stream.queue(Message::binary("unspeakable").into()).unwrap());
        stream.queue(Message::text("b".repeat(MAX_UNSENT)).into()).unwrap();
        // No comment is added while events are queued.
        stream.queue_ping().unwrap();
        assert!(stream.is_congested() && !is_flushed(&mut stream));
        assert_eq!(chunk(&body).await.unwrap(), "a");
        assert!(!stream.is_congested() && !is_flushed(&mut stream));
        assert_eq!(chunk(&body).await.unwrap().len(), MAX_UNSENT);
        assert!(is_flushed(&mut stream));
        stream.queue_ping().unwrap();
        assert_eq!(chunk(&body).await.unwrap(), ":\n");
        assert!(stream.queue(Close::empty().into()).unwrap());
        assert!(!body.is_finished());
        drop(stream);
        assert!(body.is_finished());
        assert_eq!(chunk(&body).await, None);
        ended.notified().await;
    }

    #[tokio::test]
    async fn stream_receives_messages_until_its_body_is_dropped() {
        let (mut stream, inbox, body, _ended) = stream();
        inbox.send(Message::text("x").into()).await.unwrap();
        let next = poll_fn(|context| stream.poll_next(context)).await;
        assert_eq!(next, Incoming::Message(Message::text("x")));
        let last = tokio::spawn(async move { poll_fn(|context| stream.poll_next(context)).await });
        tokio::task::yield_now().await;
        drop(body);
        assert_eq!(last.await.unwrap(), Incoming::Disconnected);
        assert!(inbox.send(Message::text("y").into()).await.is_err());
    }

    #[tokio::test]
    async fn inbox_is_bounded() {
        let (_stream, inbox, _body, _ended) = stream();
        for _ in 0..INBOX_LEN {
            inbox.try_send(Message::text("x").into()).unwrap();
        }
        assert!(inbox.try_send(Message::text("y").into()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn close_gracefully_times_out() {
        let (mut stream, _inbox, _body, _ended) = stream();
        stream.queue(Message::text("x").into()).unwrap();
        stream.close_gracefully(true, Duration::from_secs(3)).await;
        assert!(!is_flushed(&mut stream));
    }
}
