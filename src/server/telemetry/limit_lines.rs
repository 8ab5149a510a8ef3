//! Lines of the log about limits that were reached: at most one a minute for each limit, with the number of
//! times since the last. A plain state machine; the counts and the time are arguments.

use std::time::Instant;

use super::limit_counts::{LimitCounts, LimitKind};
use crate::server::log_limit::LogLimit;

/// A line that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct LimitLine {
    pub(in crate::server) kind: LimitKind,
    /// Number of times that the limit was reached since the last line about it.
    pub(in crate::server) times: u64,
}

/// State of the lines.
#[derive(Debug, Default)]
pub(super) struct LimitLines([LineState; LimitKind::all().len()]);

/// State of the lines about one limit.
#[derive(Debug, Default)]
struct LineState {
    /// The count at the last look.
    seen: u64,
    lines: LogLimit,
}

impl LimitLines {
    /// Returns the lines that are due, which count as written.
    pub(super) fn due(&mut self, counts: &LimitCounts, now: Instant) -> Vec<LimitLine> {
        let mut lines = Vec::new();
        for (kind, state) in LimitKind::all().iter().zip(&mut self.0) {
            let count = counts.get(*kind);
            let new = count.wrapping_sub(std::mem::replace(&mut state.seen, count));
            lines.extend(state.lines.count_all(new, now).map(|times| LimitLine { kind: *kind, times }));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_limit_has_one_line_a_minute_and_no_event_is_lost() {
        let (mut lines, counts, start) = (LimitLines::default(), LimitCounts::default(), Instant::now());
        let line = |kind, times| LimitLine { kind, times };
        assert_eq!(lines.due(&counts, start), []);
        // An attack of two minutes and a half, looked at five times a second.
        let mut written = Vec::new();
        for tick in 0..1500_u64 {
            let now = start + Duration::from_millis(200 * tick);
            if tick < 750 {
                (0..3).for_each(|_| counts.count(LimitKind::ConnectionRate));
            }
            if tick == 100 {
                counts.count(LimitKind::Rooms);
            }
            written.extend(lines.due(&counts, now).into_iter().map(|line| (tick / 5, line)));
        }
        let rate = |second, times| (second, line(LimitKind::ConnectionRate, times));
        let expected =
            [rate(0, 3), (20, line(LimitKind::Rooms, 1)), rate(60, 900), rate(120, 900), rate(180, 447)];
        assert_eq!(written, expected);
        // One that follows later is logged at once.
        counts.count(LimitKind::Rooms);
        assert_eq!(lines.due(&counts, start + Duration::from_secs(400)), [line(LimitKind::Rooms, 1)]);
    }
}
