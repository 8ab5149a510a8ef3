//! Back-pressure: a peer that sends to a full queue is not read for a while, so that it waits, and not the
//! receiver. Polled state of the sender.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::outbox::{PushResult, Refusal};
use super::room_cell::RoomCell;
use super::{Hold, Outbox};
use crate::protocol::model::{Event, Reason};
use crate::server::memory::MemoryBudget;
use crate::server::turn::Turn;

/// Longest time that a member is not read because one of its joiners does not read. The joiner is closed
/// then: the other joiners of that member wait as well.
const JOINER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time in which a peer whose messages have no receiver has one allowance.
const NO_RECEIVER_INTERVAL: Duration = Duration::from_secs(1);

/// Pressure on a peer that sends more than is received.
#[derive(Debug)]
pub(super) struct Pressure {
    pub(super) cause: PressureCause,
    /// The rest of what the peer may send: heartbeats, and the few messages of a client that did not fill
    /// the queue itself.
    allowance: Turn,
    /// Time since which the peer is not read.
    held_since: Option<Instant>,
}

/// Cause of the pressure on a peer.
#[derive(Clone, Debug)]
pub(super) enum PressureCause {
    /// The queue of a member through which the peer joined.
    Member(Outbox),
    /// The queue of a joiner of the peer.
    Joiner(Outbox),
    /// The peer's own queue: it does not read the answers.
    Itself(Outbox),
    /// A queue at another node.
    Elsewhere(Arc<RoomCell>, Hold),
    /// The message had no receiver.
    NoReceiver,
    /// A message was dropped, and the peer has to be closed for this reason.
    Refused(Reason),
}

impl Pressure {
    pub(super) fn new(cause: PressureCause) -> Self {
        Pressure { cause, allowance: Turn::default(), held_since: None }
    }

    /// Counts a message of the peer.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.allowance.spend(1, bytes);
    }

    /// Returns the state of the reading of the peer. Once it may be read again, the pressure is over.
    pub(super) fn poll(&mut self, now: Instant) -> Reading {
        let relieved = match &self.cause {
            PressureCause::Member(outbox) | PressureCause::Joiner(outbox) | PressureCause::Itself(outbox) => {
                outbox.is_relieved()
            }
            PressureCause::Elsewhere(cell, _) => {
                cell.state.lock().remote().is_none_or(|remote| remote.is_relieved())
            }
            PressureCause::NoReceiver => {
                let since = *self.held_since.get_or_insert(now);
                now.saturating_duration_since(since) >= NO_RECEIVER_INTERVAL
            }
            PressureCause::Refused(_) => false,
        };
        if relieved {
            return Reading::Free;
        }
        if !self.allowance.is_over() {
            return Reading::Allowance;
        }
        self.held_since.get_or_insert(now);
        Reading::Paused
    }

    /// Ends the pressure on the peer with the queue `sender`.
    pub(super) fn end(&self, sender: &Outbox) {
        match &self.cause {
            PressureCause::Member(outbox) | PressureCause::Joiner(outbox) => outbox.remove_waiting(sender),
            PressureCause::Itself(_)
            | PressureCause::Elsewhere(..)
            | PressureCause::NoReceiver
            | PressureCause::Refused(_) => {}
        }
    }

    /// Returns when [`on_timeout`](Self::on_timeout) has to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let timeout = match &self.cause {
            PressureCause::Joiner(_) | PressureCause::Elsewhere(_, Hold::JoinerFull) => JOINER_TIMEOUT,
            PressureCause::NoReceiver => NO_RECEIVER_INTERVAL,
            // Both have the timeouts of a client from which nothing is received.
            PressureCause::Member(_)
            | PressureCause::Itself(_)
            | PressureCause::Elsewhere(..)
            | PressureCause::Refused(_) => return None,
        };
        self.held_since.map(|since| since + timeout)
    }

    /// Ends the pressure whose time has passed. Returns true if it did.
    pub(super) fn on_timeout(&self, now: Instant) -> bool {
        let over = self.deadline().is_some_and(|deadline| deadline <= now);
        if over {
            match &self.cause {
                PressureCause::Joiner(joiner) => joiner.overflow(),
                PressureCause::Elsewhere(cell, _) => {
                    cell.state.lock().remote().into_iter().for_each(|remote| remote.close_joiner());
                }
                _ => {}
            }
        }
        over
    }
}

/// State of a peer under pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The pressure is over.
    Free,
    /// The peer is read up to its allowance.
    Allowance,
    /// The peer is not read.
    Paused,
}

/// The deliveries of one command of a peer: the readers to wake when no lock is held, and the pressure that
/// full queues put on the peer. The readers are woken when the list is dropped.
#[derive(Debug)]
pub(super) struct Deliveries<'a> {
    sender: &'a Outbox,
    memory: &'a Arc<MemoryBudget>,
    /// The only reader, in most cases.
    reader: Option<Waker>,
    other_readers: Vec<Waker>,
    /// The sender is under pressure already.
    waits: bool,
    pressure: Option<Box<Pressure>>,
}

impl<'a> Deliveries<'a> {
    /// Returns the deliveries of a peer whose own queue is `sender`.
    pub(super) fn new(sender: &'a Outbox, memory: &'a Arc<MemoryBudget>, waits: bool) -> Self {
        Deliveries { sender, memory, reader: None, other_readers: Vec::new(), waits, pressure: None }
    }

    /// Pushes an event, and adds its reader to the list.
    pub(super) fn deliver(&mut self, outbox: &Outbox, event: Event) {
        let is_undeliverable = matches!(event, Event::Undeliverable { .. });
        let (reader, admission) = outbox.enqueue(event, self.memory);
        // The sender itself is running: it polls its queue before it waits again. One of another node is not:
        // its reader is the link.
        if let Some(reader) = reader
            && (outbox != self.sender || outbox.is_remote())
        {
            self.add_reader(reader);
        }
        if is_undeliverable || admission != PushResult::Queued {
            self.on_pressure(outbox, admission);
        }
    }

    fn add_reader(&mut self, reader: Waker) {
        match &self.reader {
            None => self.reader = Some(reader),
            Some(_) => self.other_readers.push(reader),
        }
    }

    /// Wakes the readers. Returns the pressure on the peer, if there is any that it did not have.
    pub(super) fn finish(mut self) -> Option<Box<Pressure>> {
        self.pressure.take()
    }

    #[cold]
    fn on_pressure(&mut self, outbox: &Outbox, admission: PushResult) {
        let cause = match admission {
            PushResult::Refused(refusal) => {
                let reason = match refusal {
                    Refusal::ReceiverFull => Reason::ReceiverFull,
                    Refusal::Overloaded => Reason::Overloaded,
                };
                self.pressure = Some(Box::new(Pressure::new(PressureCause::Refused(reason))));
                return;
            }
            _ if self.waits || self.pressure.is_some() => return,
            PushResult::Queued => PressureCause::NoReceiver,
            PushResult::Full { .. } if outbox == self.sender => PressureCause::Itself(outbox.clone()),
            PushResult::Full { .. } if !outbox.add_waiting(self.sender) => return,
            PushResult::Full { to_joiner: true } => PressureCause::Joiner(outbox.clone()),
            PushResult::Full { to_joiner: false } => PressureCause::Member(outbox.clone()),
        };
        self.pressure = Some(Box::new(Pressure::new(cause)));
    }
}

impl Drop for Deliveries<'_> {
    fn drop(&mut self) {
        let readers = self.reader.take().into_iter().chain(self.other_readers.drain(..));
        readers.for_each(Waker::wake);
    }
}
