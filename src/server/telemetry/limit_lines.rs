//! Lines of the log about limits that were reached: at most one a minute for each limit, with the number of
//! times since the last. A plain state machine; the counts and the time are arguments.

use std::net::IpAddr;
use std::time::Instant;

use tracing::Span;

use super::limit_counts::{LimitCounts, LimitKind};
use crate::server::log_limit::LogLimit;

/// A line that is due.
#[derive(Clone, Debug)]
pub(in crate::server) struct LimitLine {
    pub(in crate::server) kind: LimitKind,
    /// Number of times that the limit was reached since the last line about it.
    pub(in crate::server) times: u64,
    /// The last client that reached it.
    pub(in crate::server) client: LimitedClient,
}

/// A client that reached a limit.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::server) enum LimitedClient {
    /// One whose connection has no span yet, with its address if it has one.
    Unadmitted(Option<IpAddr>),
    /// One whose connection has this span, which is disabled unless connections are logged.
    Connected(Span),
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
    last: Option<LimitedClient>,
}

impl LimitLines {
    /// Sets the last client that reached a limit.
    pub(super) fn set_last(&mut self, kind: LimitKind, client: LimitedClient) {
        self.0[kind as usize].last = Some(client);
    }

    /// Returns the lines that are due, which count as written.
    pub(super) fn due(&mut self, counts: &LimitCounts, now: Instant) -> Vec<LimitLine> {
        let mut lines = Vec::new();
        for (kind, state) in LimitKind::all().iter().zip(&mut self.0) {
            let count = counts.get(*kind);
            let new = count.wrapping_sub(std::mem::replace(&mut state.seen, count));
            lines.extend(state.lines.count_all(new, now).map(|times| {
                let client = state.last.take().unwrap_or(LimitedClient::Unadmitted(None));
                LimitLine { kind: *kind, times, client }
            }));
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
        let mut due = |counts: &LimitCounts, now| -> Vec<_> {
            lines.due(counts, now).into_iter().map(|line| (line.kind, line.times)).collect()
        };
        assert_eq!(due(&counts, start), []);
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
            written.extend(due(&counts, now).into_iter().map(|line| (tick / 5, line)));
        }
        let rate = |second, times| (second, (LimitKind::ConnectionRate, times));
        let expected =
            [rate(0, 3), (20, (LimitKind::Rooms, 1)), rate(60, 900), rate(120, 900), rate(180, 447)];
        assert_eq!(written, expected);
        // One that follows later is logged at once.
        counts.count(LimitKind::Rooms);
        assert_eq!(due(&counts, start + Duration::from_secs(400)), [(LimitKind::Rooms, 1)]);
    }

    #[test]
    fn line_has_the_last_client_since_the_line_before() {
        let (mut lines, counts, start) = (LimitLines::default(), LimitCounts::default(), Instant::now());
        let client = |last: u8| LimitedClient::Unadmitted(Some([192, 0, 2, last].into()));
        for last in [1, 2] {
            counts.count(LimitKind::Memory);
            lines.set_last(LimitKind::Memory, client(last));
        }
        counts.count(LimitKind::Rooms);
        let mut due = |seconds| -> Vec<_> {
            let now = start + Duration::from_secs(seconds);
            lines.due(&counts, now).into_iter().map(|line| (line.kind, line.client)).collect()
        };
        let unknown = LimitedClient::Unadmitted(None);
        assert_eq!(due(0), [(LimitKind::Rooms, unknown.clone()), (LimitKind::Memory, client(2))]);
        counts.count(LimitKind::Memory);
        assert_eq!(due(60), [(LimitKind::Memory, unknown)]);
    }
}
