//! The queue between the rooms and one connection: bounded in bytes, never waited for by whoever fills it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::protocol::model::Event;

/// The queue of events for one connection. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: Mutex<Queue>,
    limit: u32,
    /// There is nothing to be taken, and its reader is to be woken when there is. Changed with the queue locked.
    quiet: AtomicBool,
}

#[derive(Debug)]
struct Queue {
    events: VecDeque<Event>,
    /// What waits, in bytes.
    waiting: u32,
    overflown: bool,
    /// The reader is to look up, whatever waits.
    notified: bool,
    reader: Option<Waker>,
}

/// More waited than the limit allows: what did not fit is lost, and the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// How much is taken at once, in bytes. What is taken no longer counts as waiting, and ends up in the socket's write
/// buffer, which never shrinks.
const TURN: u32 = 64 * 1024;

/// The longest list that a thread keeps, in events.
const KEEP_CAPACITY: usize = 1024;

thread_local! {
    /// A list that nobody uses, for the next queue that is not empty: an empty one has none (0.2 kB for every idle
    /// connection), and a busy one need not allocate.
    static SPARE: RefCell<VecDeque<Event>> = const { RefCell::new(VecDeque::new()) };
}

impl Outbox {
    /// An empty queue that takes up to `limit` bytes of events.
    pub fn new(limit: usize) -> Self {
        let queue =
            Queue { events: VecDeque::new(), waiting: 0, overflown: false, notified: false, reader: None };
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        Outbox(Arc::new(Inner { queue: Mutex::new(queue), limit, quiet: AtomicBool::new(false) }))
    }

    /// Whether a reader that was told to wait may go on waiting, if its task is the same. It looks several times for each
    /// message: without this, each time would lock the queue (2 % of a message).
    pub fn is_reader_parked(&self) -> bool {
        self.0.quiet.load(Ordering::Acquire)
    }

    /// Adds an event and wakes the reader. Once the limit is passed, this and all later events are dropped, and
    /// the reader learns it.
    pub fn push(&self, event: Event) {
        let reader = {
            let mut queue = self.0.queue.lock();
            // A single event always fits, as its size is bounded by the largest message.
            let (before, limit) = (queue.waiting, self.0.limit);
            let waiting = before.checked_add(cost(&event)).filter(|waiting| before == 0 || *waiting <= limit);
            match waiting.filter(|_| !queue.overflown) {
                Some(waiting) => {
                    queue.waiting = waiting;
                    if queue.events.capacity() == 0 {
                        queue.events = SPARE.take();
                    }
                    queue.events.push_back(event);
                }
                None => queue.overflown = true,
            }
            self.0.wanted(&mut queue)
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Wakes the reader, once.
    pub fn notify(&self) {
        let reader = {
            let mut queue = self.0.queue.lock();
            queue.notified = true;
            self.0.wanted(&mut queue)
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Ready when the limit was passed, or when it was [notified](Self::notify); what waits is left alone.
    pub fn poll_overflow(&self, context: &mut Context<'_>) -> Poll<Result<(), Overflow>> {
        let mut queue = self.0.queue.lock();
        if queue.overflown {
            return Poll::Ready(Err(Overflow));
        }
        if std::mem::take(&mut queue.notified) {
            return Poll::Ready(Ok(()));
        }
        self.0.register(&mut queue, context);
        Poll::Pending
    }

    /// Takes back the list of events that were taken: they are done with.
    pub fn recycle(mut events: VecDeque<Event>) {
        events.clear();
        if (1..=KEEP_CAPACITY).contains(&events.capacity()) {
            SPARE.set(events);
        }
    }

    /// Takes what waits into `events`, which is empty before: all of it, or as much as is to be written at once.
    /// Pending while nothing waits, unless it was [notified](Self::notify).
    pub fn poll_take(
        &self,
        context: &mut Context<'_>,
        events: &mut VecDeque<Event>,
    ) -> Poll<Result<(), Overflow>> {
        let mut queue = self.0.queue.lock();
        if queue.overflown {
            return Poll::Ready(Err(Overflow));
        }
        if queue.events.is_empty() {
            if std::mem::take(&mut queue.notified) {
                return Poll::Ready(Ok(()));
            }
            self.0.register(&mut queue, context);
            return Poll::Pending;
        }
        if queue.waiting <= TURN {
            *events = std::mem::take(&mut queue.events);
            queue.waiting = 0;
            return Poll::Ready(Ok(()));
        }
        let mut taken = 0;
        while taken < TURN
            && let Some(event) = queue.events.pop_front()
        {
            taken += cost(&event);
            events.push_back(event);
        }
        queue.waiting -= taken;
        Poll::Ready(Ok(()))
    }
}

/// In as many bytes as the queue counts with, in a number that is no wider than it must be: there is one per connection.
fn cost(event: &Event) -> u32 {
    u32::try_from(event.queued_bytes()).unwrap_or(u32::MAX)
}

impl Inner {
    /// The reader, who is to look at the queue.
    fn wanted(&self, queue: &mut Queue) -> Option<Waker> {
        self.quiet.store(false, Ordering::Release);
        queue.reader.take()
    }

    fn register(&self, queue: &mut Queue, context: &mut Context<'_>) {
        match &mut queue.reader {
            Some(reader) => reader.clone_from(context.waker()),
            empty => *empty = Some(context.waker().clone()),
        }
        self.quiet.store(queue.events.is_empty(), Ordering::Release);
    }
}
