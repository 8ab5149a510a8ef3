//! The memory that clients can make the server hold: one count of it for the whole process, with a limit.
//!
//! Counted is what grows with what clients send and do not read: parts of messages, bodies of requests, and
//! queues. Small queues are not counted, so that the relay of a message does not touch the count.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;

/// The count of the memory that is held for clients, in bytes.
#[derive(Debug)]
pub struct MemoryBudget {
    used: AtomicUsize,
    limit: usize,
}

/// The limit of a [`MemoryBudget`] is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the memory that clients may hold is used up")]
pub struct BudgetExhausted;

impl MemoryBudget {
    /// Returns a budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(MemoryBudget { used: AtomicUsize::new(0), limit })
    }

    /// Returns the number of bytes that are held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes that may be held.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns a charge of nothing, which grows with what its owner holds.
    pub(crate) fn empty_charge(self: &Arc<Self>) -> MemoryCharge {
        MemoryCharge { budget: Arc::clone(self), bytes: 0 }
    }
}

/// A part of a [`MemoryBudget`], which is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryCharge {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl MemoryCharge {
    /// Returns what is charged.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes the charge to `bytes`. A charge that cannot grow stays as it is.
    ///
    /// # Errors
    /// The charge would grow beyond the limit of its budget.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        let (used, limit) = (&self.budget.used, self.budget.limit);
        if bytes <= self.bytes {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        } else {
            let more = bytes - self.bytes;
            let grow = |used: usize| used.checked_add(more).filter(|used| *used <= limit);
            used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).map_err(|_| BudgetExhausted)?;
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_share_one_limit_and_give_back_what_they_hold() {
        let budget = MemoryBudget::new(100);
        let (mut a, mut b) = (budget.empty_charge(), budget.empty_charge());
        assert_eq!((a.resize(60), b.resize(40), budget.used()), (Ok(()), Ok(()), 100));
        // Whoever asks for more is refused, and keeps what it has.
        assert_eq!(
            (b.resize(41), b.resize(usize::MAX), budget.used()),
            (Err(BudgetExhausted), Err(BudgetExhausted), 100)
        );
        assert_eq!((a.resize(10), b.resize(41), budget.used()), (Ok(()), Ok(()), 51));
        drop(a);
        assert_eq!(budget.used(), 41);
        drop(b);
        assert_eq!(budget.used(), 0);
    }
}
