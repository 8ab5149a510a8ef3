//! Bytes that a connection makes the server hold from one turn to the next: begun messages, and what the
//! client does not read. They are charged to the budget of the process, and have deadlines. Polled state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::server::memory::{BudgetExhausted, MemoryBudget, MemoryCharge};
use crate::server::transport::TransportLoad;

/// Bytes that one connection makes the server hold, and since when.
#[derive(Debug)]
pub(super) struct HeldBytes {
    charge: MemoryCharge,
    /// Time since which a message is incomplete.
    message_since: Option<Instant>,
    /// Time since which the client has read nothing.
    unread_since: Option<Instant>,
}

/// A deadline that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeldTimeout {
    /// The rest of a message did not arrive.
    Message,
    /// The client reads nothing.
    Write,
}

/// Outcome of a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct TurnSummary {
    /// A message was completed: what is incomplete now is another one.
    pub(super) completed: bool,
    /// The client was not read, so that nothing could arrive.
    pub(super) paused: bool,
}

impl HeldBytes {
    pub(super) fn new(budget: &Arc<MemoryBudget>) -> Self {
        HeldBytes { charge: budget.empty_charge(), message_since: None, unread_since: None }
    }

    /// Records what is held at the end of a turn.
    ///
    /// # Errors
    /// It is more than before, and the process may not hold more.
    pub(super) fn update(
        &mut self,
        load: TransportLoad,
        turn: TurnSummary,
        now: Instant,
    ) -> Result<(), BudgetExhausted> {
        self.message_since = match self.message_since {
            _ if load.incomplete == 0 => None,
            Some(since) if !turn.completed && !turn.paused => Some(since),
            _ => Some(now),
        };
        self.unread_since = match self.unread_since {
            _ if load.unsent == 0 => None,
            Some(since) if !load.written => Some(since),
            _ => Some(now),
        };
        self.charge.resize(load.bytes())
    }

    /// Returns the number of bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.charge.bytes()
    }

    /// Returns when something has taken `timeout`.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let first = self.message_since.into_iter().chain(self.unread_since).min();
        first.map(|since| since + timeout)
    }

    /// Returns what has taken `timeout`: from the first byte of a message to its last, or without the client
    /// reading anything. Pongs prolong neither.
    pub(super) fn timeout(&self, now: Instant, timeout: Duration) -> Option<HeldTimeout> {
        let passed = |since: Option<Instant>| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= timeout)
        };
        if passed(self.message_since) {
            return Some(HeldTimeout::Message);
        }
        passed(self.unread_since).then_some(HeldTimeout::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const TURN: TurnSummary = TurnSummary { completed: false, paused: false };

    fn incomplete(bytes: usize) -> TransportLoad {
        TransportLoad { incomplete: bytes, ..TransportLoad::default() }
    }

    fn unsent(bytes: usize, written: bool) -> TransportLoad {
        TransportLoad { unsent: bytes, written, ..TransportLoad::default() }
    }

    #[test]
    fn message_has_a_deadline_from_its_first_byte() {
        let (start, budget) = (Instant::now(), MemoryBudget::new(1000));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut held = HeldBytes::new(&budget);
        assert_eq!(
            (held.update(incomplete(10), TURN, start), held.deadline(TIMEOUT)),
            (Ok(()), Some(at(30)))
        );
        // More of it arrives, and pongs, which no turn shows.
        held.update(incomplete(500), TURN, at(29)).unwrap();
        assert_eq!(
            (held.timeout(at(29), TIMEOUT), held.timeout(at(30), TIMEOUT)),
            (None, Some(HeldTimeout::Message))
        );
        assert_eq!(budget.used(), 500);
        // The next message has its own time, and so has one that was not read for a while.
        held.update(incomplete(10), TurnSummary { completed: true, ..TURN }, at(29)).unwrap();
        assert_eq!(
            (held.timeout(at(58), TIMEOUT), held.timeout(at(59), TIMEOUT)),
            (None, Some(HeldTimeout::Message))
        );
        held.update(incomplete(10), TurnSummary { paused: true, ..TURN }, at(50)).unwrap();
        assert_eq!(
            (held.timeout(at(79), TIMEOUT), held.timeout(at(80), TIMEOUT)),
            (None, Some(HeldTimeout::Message))
        );
        held.update(TransportLoad::default(), TURN, at(60)).unwrap();
        assert_eq!((held.deadline(TIMEOUT), budget.used()), (None, 0));
    }

    #[test]
    fn client_that_reads_nothing_has_a_deadline() {
        let (start, budget) = (Instant::now(), MemoryBudget::new(1000));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut held = HeldBytes::new(&budget);
        held.update(unsent(100, false), TURN, start).unwrap();
        held.update(unsent(200, false), TURN, at(20)).unwrap();
        assert_eq!(
            (held.timeout(at(29), TIMEOUT), held.timeout(at(30), TIMEOUT)),
            (None, Some(HeldTimeout::Write))
        );
        // A slow client is not one that reads nothing.
        held.update(unsent(150, true), TURN, at(29)).unwrap();
        assert_eq!(
            (held.timeout(at(58), TIMEOUT), held.timeout(at(59), TIMEOUT)),
            (None, Some(HeldTimeout::Write))
        );
        held.update(unsent(0, true), TURN, at(59)).unwrap();
        assert_eq!(held.deadline(TIMEOUT), None);
    }

    #[test]
    fn client_that_asks_for_more_than_the_budget_is_refused() {
        let (now, budget) = (Instant::now(), MemoryBudget::new(1000));
        let (mut one, mut other) = (HeldBytes::new(&budget), HeldBytes::new(&budget));
        one.update(incomplete(900), TURN, now).unwrap();
        assert_eq!(other.update(unsent(101, false), TURN, now), Err(BudgetExhausted));
        drop(one);
        assert_eq!(other.update(unsent(101, false), TURN, now), Ok(()));
    }
}
