//! One event stream on the server's side: frames out as events in the body of an answer, frames in from wherever the
//! client's other requests arrive. No HTTP, no dialect: how a frame is written is the caller's business.
//!
//! The body is pulled by the HTTP connection, which takes no more than its own write buffer has room for. So what was
//! queued counts as unsent until the connection has taken it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::{Incoming, Transport, TransportKind};
use crate::protocol::frame::{Message, Outgoing};

/// How many of a client's frames may wait for its task; who brings more waits.
const PENDING: usize = 4;

/// How much may be queued while the client does not take it, before it is no longer listened to, in bytes.
const MAX_UNSENT: usize = 64 * 1024;

/// How often a comment keeps the stream in use (sigver 8.1 to 10.1, measured).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// A line without a meaning.
const COMMENT: Bytes = Bytes::from_static(b":\n");

/// An event stream. `W` writes a frame as it is to appear in the body, if it is to appear at all, and says whether it is
/// the last.
#[derive(Debug)]
pub struct EventStream<W> {
    queue: BodySender,
    incoming: mpsc::Receiver<Message>,
    write: W,
}

impl<W: FnMut(Outgoing) -> (Option<Bytes>, bool)> EventStream<W> {
    /// An event stream whose events go to `queue`, and whose client's frames come from an [`inbox`].
    pub fn new(queue: BodySender, incoming: mpsc::Receiver<Message>, write: W) -> Self {
        EventStream { queue, incoming, write }
    }
}

/// Where a client's frames wait for its task: the end where they arrive, and the end where they are taken.
pub fn inbox() -> (mpsc::Sender<Message>, mpsc::Receiver<Message>) {
    mpsc::channel(PENDING)
}

impl<W: FnMut(Outgoing) -> (Option<Bytes>, bool) + Send> Transport for EventStream<W> {
    const KEEPALIVE: Option<Duration> = Some(KEEPALIVE_INTERVAL);
    const KIND: TransportKind = TransportKind::EventStream;

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        if self.queue.poll_gone(context).is_ready() {
            return Poll::Ready(Incoming::Disconnected);
        }
        self.incoming
            .poll_recv(context)
            .map(|message| message.map_or(Incoming::Disconnected, Incoming::Message))
    }

    fn queue(&mut self, outgoing: Outgoing) -> io::Result<bool> {
        let (event, last) = (self.write)(outgoing);
        event.map_or(Ok(()), |event| self.queue.push(event))?;
        Ok(last)
    }

    fn queue_ping(&mut self) -> io::Result<()> {
        // A path on which something waits to be sent is in use.
        if self.queue.unsent() == 0 { self.queue.push(COMMENT) } else { Ok(()) }
    }

    fn take_error(&mut self) -> Option<io::Error> {
        None
    }

    fn is_congested(&self) -> bool {
        self.queue.unsent() > MAX_UNSENT
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue.poll_taken(context)
    }

    async fn close_gracefully(&mut self, _closed: bool, patience: Duration) {
        self.incoming.close();
        let flush = poll_fn(|context| self.queue.poll_taken(context));
        let _ = tokio::time::timeout(patience, flush).await;
    }

    async fn drain(self, _patience: Duration) {
        // The end of the body says it all, and who serves it sees to its arrival.
    }
}

/// The writing end of a body. The body ends when it is dropped.
#[derive(Debug)]
pub struct BodySender(Arc<BodyChannel>);

/// The body of an answer, as the HTTP connection takes it. Dropping it tells the other end that the client is gone.
#[derive(Debug)]
pub struct BodyReceiver(Arc<BodyChannel>);

#[derive(Debug)]
struct BodyChannel {
    state: Mutex<State>,
    over: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    /// What waits, in bytes.
    unsent: usize,
    ended: bool,
    gone: bool,
    sender: Option<Waker>,
    body: Option<Waker>,
}

/// The two ends of a body. `over` is notified when there will be no more of it.
pub fn body(over: Arc<Notify>) -> (BodySender, BodyReceiver) {
    let line = Arc::new(BodyChannel { state: Mutex::default(), over });
    (BodySender(Arc::clone(&line)), BodyReceiver(line))
}

impl BodySender {
    /// Appends to the body.
    ///
    /// # Errors
    /// The client is gone.
    pub fn push(&self, bytes: Bytes) -> io::Result<()> {
        let body = {
            let mut state = self.0.state.lock();
            if state.gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            state.unsent += bytes.len();
            state.waiting.push_back(bytes);
            state.body.take()
        };
        body.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Waits until the client is gone.
    pub async fn gone(&self) {
        poll_fn(|context| self.poll_gone(context)).await;
    }

    fn unsent(&self) -> usize {
        self.0.state.lock().unsent
    }

    fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state.lock();
        if state.gone {
            return Poll::Ready(());
        }
        state.await_body(context);
        Poll::Pending
    }

    fn poll_taken(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state.lock();
        if state.gone {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        state.await_body(context);
        Poll::Pending
    }
}

impl State {
    /// Has the sender's task woken by the next thing that happens to the body.
    fn await_body(&mut self, context: &Context<'_>) {
        match &mut self.sender {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}

impl Drop for BodySender {
    fn drop(&mut self) {
        let body = {
            let mut state = self.0.state.lock();
            state.ended = true;
            state.body.take()
        };
        body.into_iter().for_each(Waker::wake);
        self.0.over.notify_one();
    }
}

impl BodyReceiver {
    /// The next piece; `None` is the end.
    pub fn poll_piece(&self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let (piece, sender) = {
            let mut state = self.0.state.lock();
            let Some(piece) = state.waiting.pop_front() else {
                if state.ended {
                    return Poll::Ready(None);
                }
                state.body = Some(context.waker().clone());
                return Poll::Pending;
            };
            state.unsent -= piece.len();
            let sender = if state.waiting.is_empty() {
                // A stream that once was busy gives its memory back.
                state.waiting = VecDeque::new();
                state.sender.take()
            } else {
                None
            };
            (piece, sender)
        };
        sender.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(piece))
    }

    /// Whether nothing is left, nor will be.
    pub fn is_over(&self) -> bool {
        let state = self.0.state.lock();
        state.ended && state.waiting.is_empty()
    }
}

impl Drop for BodyReceiver {
    fn drop(&mut self) {
        let sender = {
            let mut state = self.0.state.lock();
            state.gone = true;
            state.waiting = VecDeque::new();
            state.sender.take()
        };
        sender.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::Close;

    fn write(outgoing: Outgoing) -> (Option<Bytes>, bool) {
        match outgoing {
            Outgoing::Message(Message::Text(text)) => (Some(text.into_bytes()), false),
            Outgoing::Message(Message::Binary(_)) | Outgoing::Prefixed(..) => (None, false),
            Outgoing::Close(_) => (None, true),
        }
    }

    type Write = fn(Outgoing) -> (Option<Bytes>, bool);

    fn stream() -> (EventStream<Write>, mpsc::Sender<Message>, BodyReceiver, Arc<Notify>) {
        let over = Arc::new(Notify::new());
        let (queue, body) = body(Arc::clone(&over));
        let (sender, frames) = inbox();
        (EventStream::new(queue, frames, write), sender, body, over)
    }

    async fn piece(body: &BodyReceiver) -> Option<Bytes> {
        poll_fn(|context| body.poll_piece(context)).await
    }

    fn flushed(stream: &mut EventStream<Write>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        matches!(stream.poll_flush(&mut context), Poll::Ready(Ok(())))
    }

    #[tokio::test]
    async fn what_is_queued_is_unsent_until_it_is_taken() {
        let (mut stream, _sender, body, over) = stream();
        assert!(flushed(&mut stream));
        assert!(!stream.queue(Message::text("a").into()).unwrap());
        assert!(!stream.queue(Message::binary("unspeakable").into()).unwrap());
        stream.queue(Message::text("b".repeat(MAX_UNSENT)).into()).unwrap();
        // Something waits already.
        stream.queue_ping().unwrap();
        assert!(stream.is_congested() && !flushed(&mut stream));
        assert_eq!(piece(&body).await.unwrap(), "a");
        assert!(!stream.is_congested() && !flushed(&mut stream));
        assert_eq!(piece(&body).await.unwrap().len(), MAX_UNSENT);
        assert!(flushed(&mut stream));
        stream.queue_ping().unwrap();
        assert_eq!(piece(&body).await.unwrap(), ":\n");
        assert!(stream.queue(Close::empty().into()).unwrap());
        assert!(!body.is_over());
        drop(stream);
        assert!(body.is_over());
        assert_eq!(piece(&body).await, None);
        over.notified().await;
    }

    #[tokio::test]
    async fn frames_come_in_and_the_end_of_the_body_is_the_end() {
        let (mut stream, sender, body, _over) = stream();
        sender.send(Message::text("x")).await.unwrap();
        let next = poll_fn(|context| stream.poll_next(context)).await;
        assert_eq!(next, Incoming::Message(Message::text("x")));
        let gone = tokio::spawn(async move { poll_fn(|context| stream.poll_next(context)).await });
        tokio::task::yield_now().await;
        drop(body);
        assert_eq!(gone.await.unwrap(), Incoming::Disconnected);
        assert!(sender.send(Message::text("y")).await.is_err());
    }

    #[tokio::test]
    async fn frames_that_nobody_takes_are_few() {
        let (_stream, sender, _body, _over) = stream();
        for _ in 0..PENDING {
            sender.try_send(Message::text("x")).unwrap();
        }
        assert!(sender.try_send(Message::text("y")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_farewell_has_its_time() {
        let (mut stream, _sender, _body, _over) = stream();
        stream.queue(Message::text("x").into()).unwrap();
        stream.close_gracefully(true, Duration::from_secs(3)).await;
        assert!(!flushed(&mut stream));
    }
}
