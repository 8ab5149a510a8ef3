//! Counts of the questions to the program that decides about tokens.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts of clients with tokens, and of questions.
#[derive(Debug, Default)]
pub(crate) struct CalloutCounts {
    /// Clients that got an answer that was kept.
    pub(crate) cached: EventCount,
    /// Clients that waited for the answer to the question of another one.
    pub(crate) shared: EventCount,
    /// Clients that were refused, as the program is not asked for their address for a while.
    pub(crate) paused: EventCount,
    /// Questions that had no turn in time.
    pub(crate) crowded_out: EventCount,
    /// Questions that were answered.
    pub(crate) answered: EventCount,
    /// Questions that were not answered in time, or not as they should.
    pub(crate) failed: EventCount,
    is_silent: AtomicBool,
}

/// Number of events so far.
#[derive(Debug, Default)]
pub(crate) struct EventCount(AtomicU64);

impl EventCount {
    /// Counts one more.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl CalloutCounts {
    /// Records that the program does not answer, or answers again.
    pub(crate) fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Returns true from the time at which the program did not answer until its next answer.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }
}
