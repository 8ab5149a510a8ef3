//! Counts of lines that the log of the program does not have.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counts of lines that were not written to the log.
#[derive(Debug, Default)]
pub struct LogCounts {
    dropped: AtomicU64,
    summed_up: AtomicU64,
}

/// [`LogCounts`] at one time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LogReport {
    /// Lines that were dropped, as the output was full, closed, or not read fast enough.
    pub dropped: u64,
    /// Repeated lines of which the log has the number only.
    pub summed_up: u64,
}

impl LogCounts {
    /// Counts a line that was dropped.
    pub(crate) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a repeated line of which the log has the number only.
    pub(crate) fn count_summed_up(&self) {
        self.summed_up.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of lines that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Returns the number of repeated lines of which the log has the number only.
    pub(crate) fn summed_up(&self) -> u64 {
        self.summed_up.load(Ordering::Relaxed)
    }

    /// Returns the counts.
    pub(crate) fn report(&self) -> LogReport {
        LogReport { dropped: self.dropped(), summed_up: self.summed_up() }
    }
}
