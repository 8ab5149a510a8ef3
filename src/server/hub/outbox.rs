//! The queue between the rooms and one connection. It is bounded in bytes, and pushing to it never waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::protocol::model::Event;
use crate::server::scratch;

/// The queue of events for one connection. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<OutboxInner>);

#[derive(Debug)]
struct OutboxInner {
    queue: Mutex<EventQueue>,
    /// Maximum of [`EventQueue::queued_bytes`].
    limit: u32,
    /// The reader is registered and the queue is empty. Changed with the queue locked.
    reader_parked: AtomicBool,
}

#[derive(Debug)]
struct EventQueue {
    events: VecDeque<Event>,
    queued_bytes: u32,
    overflowed: bool,
    /// The reader is to be polled once, even if no event is queued.
    notified: bool,
    reader: Option<Waker>,
}

/// The queue exceeded its limit: events were dropped, and the connection cannot continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// Readers to wake when no lock is held. They are woken when the list is dropped.
#[derive(Debug, Default)]
pub(super) struct WakeList(SmallVec<[Waker; 4]>);

impl WakeList {
    /// Pushes an event, and adds its reader to the list.
    pub(super) fn deliver(&mut self, outbox: &Outbox, event: Event) {
        if let Some(reader) = outbox.enqueue(event) {
            self.0.push(reader);
        }
    }
}

impl Drop for WakeList {
    fn drop(&mut self) {
        while let Some(reader) = self.0.pop() {
            reader.wake();
        }
    }
}

/// Maximum number of bytes taken at once. Taken events no longer count as queued, and end up in the write
/// buffer of the socket, which never shrinks.
const MAX_BATCH_BYTES: u32 = 64 * 1024;

/// Maximum capacity of a list that is kept for reuse, in events.
const MAX_SPARE_CAPACITY: usize = 1024;

impl Outbox {
    /// Creates an empty queue for up to `limit` bytes of events.
    pub fn new(limit: usize) -> Self {
        let queue = EventQueue {
            events: VecDeque::new(),
            queued_bytes: 0,
            overflowed: false,
            notified: false,
            reader: None,
        };
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        Outbox(Arc::new(OutboxInner {
            queue: Mutex::new(queue),
            limit,
            reader_parked: AtomicBool::new(false),
        }))
    }

    /// Returns true if the reader is registered and the queue is still empty, so that polling again from the
    /// same task is unnecessary. Saves a lock per poll.
    pub fn is_reader_parked(&self) -> bool {
        self.0.reader_parked.load(Ordering::Acquire)
    }

    /// Adds an event and wakes the reader. Once the limit is exceeded, this and all later events are dropped,
    /// and polling reports it.
    pub fn push(&self, event: Event) {
        if let Some(reader) = self.enqueue(event) {
            reader.wake();
        }
    }

    /// Adds an event, as [`push`](Self::push) does. Returns the reader, which the caller must wake.
    fn enqueue(&self, event: Event) -> Option<Waker> {
        let mut queue = self.0.queue.lock();
        // A single event always fits, as its size is bounded by the largest message.
        let (before, limit) = (queue.queued_bytes, self.0.limit);
        let after = before.checked_add(queued_bytes(&event)).filter(|after| before == 0 || *after <= limit);
        match after.filter(|_| !queue.overflowed) {
            Some(after) => {
                queue.queued_bytes = after;
                if queue.events.capacity() == 0 {
                    scratch::with(|scratch| {
                        std::mem::swap(&mut queue.events, &mut *scratch.events.borrow_mut())
                    });
                }
                queue.events.push_back(event);
            }
            None => queue.overflowed = true,
        }
        self.0.take_reader(&mut queue)
    }

    /// Wakes the reader, whose next poll is ready once.
    pub fn notify(&self) {
        let reader = {
            let mut queue = self.0.queue.lock();
            queue.notified = true;
            self.0.take_reader(&mut queue)
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Returns ready if the limit was exceeded or the queue was [notified](Self::notify). Takes no events.
    pub fn poll_overflow(&self, context: &mut Context<'_>) -> Poll<Result<(), Overflow>> {
        let mut queue = self.0.queue.lock();
        if queue.overflowed {
            return Poll::Ready(Err(Overflow));
        }
        if std::mem::take(&mut queue.notified) {
            return Poll::Ready(Ok(()));
        }
        self.0.register(&mut queue, context);
        Poll::Pending
    }

    /// Keeps the list of events that were taken for reuse.
    pub fn recycle(mut events: VecDeque<Event>) {
        events.clear();
        if (1..=MAX_SPARE_CAPACITY).contains(&events.capacity()) {
            scratch::with(|scratch| scratch.events.replace(events));
        }
    }

    /// Takes the queued events into `events`, which must be empty: all of them, or as many as may be taken at
    /// once. Pending while the queue is empty, unless it was [notified](Self::notify).
    pub fn poll_take(
        &self,
        context: &mut Context<'_>,
        events: &mut VecDeque<Event>,
    ) -> Poll<Result<(), Overflow>> {
        let mut queue = self.0.queue.lock();
        if queue.overflowed {
            return Poll::Ready(Err(Overflow));
        }
        if queue.events.is_empty() {
            if std::mem::take(&mut queue.notified) {
                return Poll::Ready(Ok(()));
            }
            self.0.register(&mut queue, context);
            return Poll::Pending;
        }
        if queue.queued_bytes <= MAX_BATCH_BYTES {
            std::mem::swap(events, &mut queue.events);
            queue.queued_bytes = 0;
            return Poll::Ready(Ok(()));
        }
        let mut taken = 0;
        while taken < MAX_BATCH_BYTES
            && let Some(event) = queue.events.pop_front()
        {
            taken += queued_bytes(&event);
            events.push_back(event);
        }
        queue.queued_bytes -= taken;
        Poll::Ready(Ok(()))
    }
}

/// Returns the size of an event in the queue's unit, which is narrow as there is a queue per connection.
fn queued_bytes(event: &Event) -> u32 {
    u32::try_from(event.queued_bytes()).unwrap_or(u32::MAX)
}

impl OutboxInner {
    /// Returns the registered reader, which is to be woken.
    fn take_reader(&self, queue: &mut EventQueue) -> Option<Waker> {
        self.reader_parked.store(false, Ordering::Release);
        queue.reader.take()
    }

    fn register(&self, queue: &mut EventQueue, context: &mut Context<'_>) {
        match &mut queue.reader {
            Some(reader) => reader.clone_from(context.waker()),
            empty => *empty = Some(context.waker().clone()),
        }
        self.reader_parked.store(queue.events.is_empty(), Ordering::Release);
    }
}
