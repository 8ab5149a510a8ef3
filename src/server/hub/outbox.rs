//! The queue between the rooms and one connection. It is bounded in bytes, and pushing to it never waits.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::protocol::model::{Event, Side};
use crate::server::memory::{MemoryBudget, MemoryCharge};
use crate::server::scratch;

/// Receiver of the events of a peer whose connection is at another node. No method waits.
pub(crate) trait RemoteReader: fmt::Debug + Send + Sync {
    /// Sends an event. Returns the task to wake once no lock is held.
    fn send(&self, event: &Event) -> Option<Waker>;
    /// Returns true if peers that send to this one are to be held.
    fn is_full(&self) -> bool;
    /// Records that the hold on the peer may be over, or that its room may be known.
    fn notify(&self);
    /// Has the connection closed, as too much waits for it.
    fn overflow(&self);
}

/// The queue of events for one connection. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<OutboxInner>);

/// Clones are equal.
impl PartialEq for Outbox {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Outbox {}

impl Hash for Outbox {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

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
    /// Present while the queue is not small, and in that of a peer at another node.
    extension: Option<Box<Extension>>,
}

/// The queue exceeded its limit: events were dropped, and the connection cannot continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// Longest queue that is neither counted in the budget of the process nor looked at in any other way, in
/// bytes.
const SMALL: u32 = 16 * 1024;

/// Share of the limit above which the queue is full: peers that fill it are not read until it has fallen to
/// half of that.
const FULL_SHARE: u32 = 4;

/// The state of a queue that few queues have.
#[derive(Debug)]
struct Extension {
    kind: ExtensionKind,
    /// Queues of peers that are not read until this one is relieved.
    waiting: Vec<Outbox>,
}

#[derive(Debug)]
enum ExtensionKind {
    /// The queue is not small.
    Charged(MemoryCharge),
    /// The reader is at another node: events are sent to it at once, and none is queued here.
    Remote(Box<dyn RemoteReader>),
}

/// Outcome of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PushResult {
    /// The event is queued, or will not be read.
    Queued,
    /// The event is queued, and the queue is full.
    Full {
        /// The receiver is the joiner of the link.
        to_joiner: bool,
    },
    /// The event was dropped: its sender has to be closed.
    Refused(Refusal),
}

/// Reason for which an event was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The queue has its limit.
    ReceiverFull,
    /// The memory for clients is used up.
    Overloaded,
}

/// Maximum number of bytes taken at once. Taken events no longer count as queued, and end up in the write
/// buffer of the socket, which never shrinks.
const MAX_BATCH_BYTES: u32 = 64 * 1024;

/// Maximum capacity of a list that is kept for reuse, in events.
const MAX_SPARE_CAPACITY: usize = 1024;

impl Outbox {
    /// Creates an empty queue for up to `limit` bytes of events.
    pub fn new(limit: usize) -> Self {
        Self::with_extension(u32::try_from(limit).unwrap_or(u32::MAX), None)
    }

    /// Creates the queue of a peer whose connection is at another node.
    pub(crate) fn remote(reader: Box<dyn RemoteReader>) -> Self {
        let extension = Extension { kind: ExtensionKind::Remote(reader), waiting: Vec::new() };
        Self::with_extension(0, Some(Box::new(extension)))
    }

    fn with_extension(limit: u32, extension: Option<Box<Extension>>) -> Self {
        let queue = EventQueue {
            events: VecDeque::new(),
            queued_bytes: 0,
            overflowed: false,
            notified: false,
            reader: None,
            extension,
        };
        Outbox(Arc::new(OutboxInner {
            queue: Mutex::new(queue),
            limit,
            reader_parked: AtomicBool::new(false),
        }))
    }

    /// Returns true if the reader is registered and the queue is still empty, so that polling again from the
    /// same task is unnecessary. Saves a lock per poll.
    pub(crate) fn is_reader_parked(&self) -> bool {
        self.0.reader_parked.load(Ordering::Acquire)
    }

    /// Adds an event. Returns the reader, which the caller must wake. Once the queue has overflowed, this and
    /// all later events are dropped, and polling reports it.
    pub(super) fn enqueue(&self, event: Event, memory: &Arc<MemoryBudget>) -> (Option<Waker>, PushResult) {
        let mut queue = self.0.queue.lock();
        if let Some(remote) = queue.remote() {
            return send_remote(remote, &event);
        }
        let after = queue.queued_bytes.saturating_add(queued_bytes(&event));
        let admission = match after <= small(self.0.limit) {
            true => PushResult::Queued,
            false => queue.admit(&event, after, self.0.limit, memory),
        };
        if !queue.overflowed && !matches!(admission, PushResult::Refused(_)) {
            queue.queued_bytes = after;
            if queue.events.capacity() == 0 {
                scratch::with(|scratch| std::mem::swap(&mut queue.events, &mut *scratch.events.borrow_mut()));
            }
            queue.events.push_back(event);
        }
        (self.0.take_reader(&mut queue), admission)
    }

    /// Returns the length of the queue, in bytes.
    pub(in crate::server) fn queued_bytes(&self) -> u32 {
        self.0.queue.lock().queued_bytes
    }

    /// Has `sender` notified when the queue is no longer full. Returns false if it is not.
    pub(super) fn add_waiting(&self, sender: &Outbox) -> bool {
        let mut queue = self.0.queue.lock();
        let extension = queue.extension.as_mut();
        extension.map(|extension| extension.waiting.push(sender.clone())).is_some()
    }

    /// Takes back [`add_waiting`](Self::add_waiting).
    pub(super) fn remove_waiting(&self, sender: &Outbox) {
        if let Some(extension) = &mut self.0.queue.lock().extension {
            extension.waiting.retain(|waiting| waiting != sender);
        }
    }

    /// Returns true if peers that filled the queue may be read again.
    pub(super) fn is_relieved(&self) -> bool {
        let queue = self.0.queue.lock();
        match queue.remote() {
            Some(remote) => !remote.is_full(),
            None => queue.overflowed || queue.queued_bytes <= relief(self.0.limit),
        }
    }

    /// Returns true if the reader is at another node.
    pub(super) fn is_remote(&self) -> bool {
        self.0.queue.lock().remote().is_some()
    }

    /// Notifies the peers that wait for a queue at another node, as it is relieved.
    pub(crate) fn relieve_remote(&self) {
        let waiting =
            self.0.queue.lock().extension.as_mut().map(|extension| std::mem::take(&mut extension.waiting));
        waiting.into_iter().flatten().for_each(|waiting| waiting.notify());
    }

    /// Has the connection of the queue closed, as if too much was queued.
    pub(in crate::server) fn overflow(&self) {
        let reader = {
            let mut queue = self.0.queue.lock();
            if let Some(remote) = queue.remote() {
                return remote.overflow();
            }
            queue.overflowed = true;
            self.0.take_reader(&mut queue)
        };
        reader.into_iter().for_each(Waker::wake);
    }

    /// Drops what is queued, and what is pushed from now on, as it will not be taken.
    pub(super) fn close(&self) {
        let (events, extension) = {
            let mut queue = self.0.queue.lock();
            queue.overflowed = true;
            queue.queued_bytes = 0;
            (std::mem::take(&mut queue.events), queue.extension.take())
        };
        drop(events);
        extension.into_iter().flat_map(|extension| extension.waiting).for_each(|waiting| waiting.notify());
    }

    /// Wakes the reader, whose next poll is ready once.
    pub(crate) fn notify(&self) {
        let reader = {
            let mut queue = self.0.queue.lock();
            if let Some(remote) = queue.remote() {
                return remote.notify();
            }
            queue.notified = true;
            self.0.take_reader(&mut queue)
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Returns ready if the limit was exceeded or the queue was [notified](Self::notify). Takes no events.
    pub(crate) fn poll_overflow(&self, context: &mut Context<'_>) -> Poll<Result<(), Overflow>> {
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

    /// Keeps the list of the events taken, to reuse it.
    pub fn recycle(mut events: VecDeque<Event>) {
        events.clear();
        if (1..=MAX_SPARE_CAPACITY).contains(&events.capacity()) {
            scratch::with(|scratch| {
                let spare = &mut *scratch.events.borrow_mut();
                if spare.capacity() == 0 {
                    // Cheaper than dropping the list that is replaced: it has no memory.
                    std::mem::forget(std::mem::replace(spare, events));
                }
            });
        }
    }

    /// Takes the queued events into `events`, which must be empty: all of them, or as many as may be taken at
    /// once. Pending while the queue is empty, unless it was notified.
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
        } else {
            let mut taken = 0;
            while taken < MAX_BATCH_BYTES
                && let Some(event) = queue.events.pop_front()
            {
                taken += queued_bytes(&event);
                events.push_back(event);
            }
            queue.queued_bytes -= taken;
        }
        if queue.extension.is_some() {
            let relieved = queue.relieve(self.0.limit);
            drop(queue);
            relieved.iter().for_each(Outbox::notify);
        }
        Poll::Ready(Ok(()))
    }
}

impl EventQueue {
    /// Decides about an event that would make the queue `after` bytes long, which is not small.
    #[cold]
    fn admit(&mut self, event: &Event, after: u32, limit: u32, memory: &Arc<MemoryBudget>) -> PushResult {
        let (is_message, to_joiner) = recipient(event);
        if self.overflowed {
            return PushResult::Queued;
        }
        // A single event always fits, as its size is bounded by the largest message.
        if self.queued_bytes > 0 && after > limit {
            if is_message {
                return PushResult::Refused(Refusal::ReceiverFull);
            }
            // Without it, the peer would not know its links.
            self.overflowed = true;
            return PushResult::Queued;
        }
        let extension = self.extension.get_or_insert_with(|| {
            let kind = ExtensionKind::Charged(memory.empty_charge());
            Box::new(Extension { kind, waiting: Vec::new() })
        });
        if let ExtensionKind::Charged(charge) = &mut extension.kind
            && charge.resize(after as usize).is_err()
            && is_message
        {
            return PushResult::Refused(Refusal::Overloaded);
        }
        if after > limit / FULL_SHARE { PushResult::Full { to_joiner } } else { PushResult::Queued }
    }

    fn remote(&self) -> Option<&dyn RemoteReader> {
        match &self.extension.as_ref()?.kind {
            ExtensionKind::Remote(reader) => Some(&**reader),
            ExtensionKind::Charged(_) => None,
        }
    }

    /// Gives back what is no longer queued. Returns the queues of peers that may be read again.
    #[cold]
    fn relieve(&mut self, limit: u32) -> Vec<Outbox> {
        let Some(extension) = &mut self.extension else { return Vec::new() };
        let ExtensionKind::Charged(charge) = &mut extension.kind else { return Vec::new() };
        // Cannot fail: it shrinks.
        let _ = charge.resize((self.queued_bytes as usize).min(charge.bytes()));
        let is_relieved = self.queued_bytes <= relief(limit);
        let relieved = if is_relieved { std::mem::take(&mut extension.waiting) } else { Vec::new() };
        if self.queued_bytes <= small(limit) {
            self.extension = None;
        }
        relieved
    }
}

/// Sends an event to a reader at another node. Returns the writer to wake.
#[cold]
fn send_remote(remote: &dyn RemoteReader, event: &Event) -> (Option<Waker>, PushResult) {
    let (_, to_joiner) = recipient(event);
    let (writer, is_full) = (remote.send(event), remote.is_full());
    (writer, if is_full { PushResult::Full { to_joiner } } else { PushResult::Queued })
}

/// Returns true if the event is a message, and true if it is for the joiner of a link.
fn recipient(event: &Event) -> (bool, bool) {
    match event {
        Event::Relayed { side, .. } => (true, *side == Side::Joiner),
        Event::LinkEnded { side, .. } => (false, *side == Side::Joiner),
        Event::Admitted { .. }
        | Event::BecameMember { .. }
        | Event::LinkedToMember { .. }
        | Event::LinkedToJoiner { .. }
        | Event::Refused(_)
        | Event::Undeliverable { .. }
        | Event::Evicted(_) => (false, false),
    }
}

/// Returns the length up to which a queue is small.
fn small(limit: u32) -> u32 {
    SMALL.min(relief(limit))
}

/// Returns the length at which a full queue is relieved.
fn relief(limit: u32) -> u32 {
    limit / FULL_SHARE / 2
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
