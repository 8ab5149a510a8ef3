//! A limit of log lines about events that may be frequent: one line, then one a minute with their number.

use std::time::{Duration, Instant};

/// Shortest time between two lines.
const PAUSE: Duration = Duration::from_secs(60);

/// Number of events since the last line, and the time of the next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogLimit {
    events: u64,
    next: Option<Instant>,
}

impl LogLimit {
    /// Counts an event. If a line is due, returns the number of events since the last one.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        self.count_all(1, now)
    }

    /// Counts so many events. If a line is due, returns the number of events since the last one.
    pub(super) fn count_all(&mut self, events: u64, now: Instant) -> Option<u64> {
        self.events += events;
        if self.events == 0 || self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + PAUSE);
        Some(std::mem::take(&mut self.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_minute_are_one_line() {
        let (mut limit, start) = (LogLimit::default(), Instant::now());
        assert_eq!(limit.count(start), Some(1));
        for _ in 0..599 {
            assert_eq!(limit.count(start + Duration::from_secs(59)), None);
        }
        assert_eq!(limit.count(start + PAUSE), Some(600));
        assert_eq!(limit.count(start + PAUSE), None);
    }
}
