//! Another node without a link, and when the log has a line about it.

use std::time::Duration;

use tokio::time::Instant;

/// Time without a link until it is logged, and for which another node may run without knowing this one until
/// that counts as a fault: a node that starts, or reaches the engine again, is not known to all others yet.
pub(super) const REPORT_AFTER: Duration = Duration::from_secs(5);
/// Time between two lines about a node.
const REPORT_PAUSE: Duration = Duration::from_secs(60);

/// Another node to which there is no link.
#[derive(Clone, Debug)]
pub(super) struct Unlinked {
    pub(super) since: Instant,
    /// The text of the last failure.
    pub(super) fault: String,
    /// The last failure was that the other node works with other versions of the messages.
    pub(super) has_other_versions: bool,
    reported: Option<Instant>,
}

impl Unlinked {
    pub(super) fn new(now: Instant) -> Self {
        Unlinked { since: now, fault: "not tried yet".to_owned(), has_other_versions: false, reported: None }
    }

    /// Takes note of a failure. Returns the time since `since` if a line is due.
    pub(super) fn failed(&mut self, fault: String, since: Instant, now: Instant) -> Option<Duration> {
        self.fault = fault;
        let time = now.saturating_duration_since(since);
        let is_due = match self.reported {
            None => time >= REPORT_AFTER,
            Some(at) => now.saturating_duration_since(at) >= REPORT_PAUSE,
        };
        is_due.then(|| {
            self.reported = Some(now);
            time
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_without_a_link_is_reported_after_some_seconds_and_then_once_a_minute() {
        let start = Instant::now();
        let mut unlinked = Unlinked::new(start);
        let lines: Vec<u64> = (1..=125)
            .filter_map(|second| {
                unlinked.failed("timed out".to_owned(), start, start + Duration::from_secs(second))
            })
            .map(|time| time.as_secs())
            .collect();
        assert_eq!(lines, [5, 65, 125]);
    }
}
