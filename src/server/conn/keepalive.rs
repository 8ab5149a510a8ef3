//! Keepalive below the dialects: WebSocket pings after a silence, which every client answers by itself. Where
//! pings are not answered, they keep the path in use. Polled state.

use std::time::{Duration, Instant};

/// The timer of one connection.
#[derive(Debug)]
pub(super) struct PingTimer {
    /// Time of silence before a ping, in milliseconds: there is one for each connection.
    timeout: u32,
    last_activity: Instant,
    pinged: bool,
    /// Pings are answered.
    answered: bool,
}

/// An action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PingDue {
    /// Send a ping.
    SendPing,
    /// The client did not answer.
    TimedOut,
}

impl PingTimer {
    /// Returns a timer that asks for a ping after `timeout` without activity, and times out after as long
    /// again.
    pub(super) fn new(timeout: Duration, now: Instant) -> Self {
        PingTimer { timeout: millis(timeout), last_activity: now, pinged: false, answered: true }
    }

    /// Returns a timer of pings that are not answered, one in each interval: it never times out.
    pub(super) fn unanswered(every: Duration, now: Instant) -> Self {
        PingTimer { timeout: millis(every), last_activity: now, pinged: false, answered: false }
    }

    /// Notes that a frame was received.
    pub(super) fn on_activity(&mut self, now: Instant) {
        if self.answered {
            self.last_activity = now;
            self.pinged = false;
        }
    }

    /// Returns when [`poll`](Self::poll) has to be called.
    pub(super) fn deadline(&self) -> Instant {
        let timeout = Duration::from_millis(self.timeout.into());
        self.last_activity + if self.pinged { 2 * timeout } else { timeout }
    }

    /// Returns what is due at `now`.
    pub(super) fn poll(&mut self, now: Instant) -> Option<PingDue> {
        if now < self.deadline() {
            return None;
        }
        if !self.answered {
            self.last_activity = now;
            return Some(PingDue::SendPing);
        }
        if self.pinged {
            return Some(PingDue::TimedOut);
        }
        self.pinged = true;
        Some(PingDue::SendPing)
    }
}

fn millis(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_once_and_then_times_out() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timer = PingTimer::new(Duration::from_secs(10), start);
        assert_eq!(timer.poll(at(9)), None);
        assert_eq!(timer.poll(at(10)), Some(PingDue::SendPing));
        assert_eq!(timer.poll(at(19)), None);
        timer.on_activity(at(19));
        assert_eq!((timer.poll(at(28)), timer.poll(at(29))), (None, Some(PingDue::SendPing)));
        assert_eq!((timer.poll(at(38)), timer.poll(at(39))), (None, Some(PingDue::TimedOut)));
    }

    #[test]
    fn unanswered_pings_are_sent_in_every_interval() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timer = PingTimer::unanswered(Duration::from_secs(20), start);
        timer.on_activity(at(15));
        assert_eq!((timer.poll(at(19)), timer.poll(at(20))), (None, Some(PingDue::SendPing)));
        assert_eq!((timer.poll(at(39)), timer.poll(at(41))), (None, Some(PingDue::SendPing)));
        assert_eq!((timer.poll(at(60)), timer.poll(at(61))), (None, Some(PingDue::SendPing)));
    }
}
