//! Whether the other end of a connection still exists, whatever its dialect: WebSocket pings after a silence, which
//! every client answers without its user's help. Where nobody answers, a beat keeps the path in use. Polled state.

use std::time::{Duration, Instant};

/// The state of one connection.
#[derive(Debug)]
pub(super) struct PingTimer {
    /// In milliseconds: there is one for each connection.
    patience: u32,
    heard: Instant,
    asked: bool,
    /// Pings are answered.
    answered: bool,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PingDue {
    /// Send a ping.
    SendPing,
    /// The connection is dead.
    TimedOut,
}

impl PingTimer {
    /// After `patience` without a word the peer is asked, after as long again it is dead.
    pub(super) fn new(patience: Duration, now: Instant) -> Self {
        PingTimer { patience: millis(patience), heard: now, asked: false, answered: true }
    }

    /// A ping is due every so often, and nobody answers: the peer is never dead.
    pub(super) fn beat(every: Duration, now: Instant) -> Self {
        PingTimer { patience: millis(every), heard: now, asked: false, answered: false }
    }

    /// Something came.
    pub(super) fn heard(&mut self, now: Instant) {
        if self.answered {
            self.heard = now;
            self.asked = false;
        }
    }

    /// When [`poll`](Self::poll) is to be called.
    pub(super) fn deadline(&self) -> Instant {
        let patience = Duration::from_millis(self.patience.into());
        self.heard + if self.asked { 2 * patience } else { patience }
    }

    /// What is due at `now`.
    pub(super) fn poll(&mut self, now: Instant) -> Option<PingDue> {
        if now < self.deadline() {
            return None;
        }
        if !self.answered {
            self.heard = now;
            return Some(PingDue::SendPing);
        }
        if self.asked {
            return Some(PingDue::TimedOut);
        }
        self.asked = true;
        Some(PingDue::SendPing)
    }
}

fn millis(patience: Duration) -> u32 {
    u32::try_from(patience.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_once_and_then_gives_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut idle = PingTimer::new(Duration::from_secs(10), start);
        assert_eq!(idle.poll(at(9)), None);
        assert_eq!(idle.poll(at(10)), Some(PingDue::SendPing));
        assert_eq!(idle.poll(at(19)), None);
        idle.heard(at(19));
        assert_eq!((idle.poll(at(28)), idle.poll(at(29))), (None, Some(PingDue::SendPing)));
        assert_eq!((idle.poll(at(38)), idle.poll(at(39))), (None, Some(PingDue::TimedOut)));
    }

    #[test]
    fn beats_whatever_is_heard() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut idle = PingTimer::beat(Duration::from_secs(20), start);
        idle.heard(at(15));
        assert_eq!((idle.poll(at(19)), idle.poll(at(20))), (None, Some(PingDue::SendPing)));
        assert_eq!((idle.poll(at(39)), idle.poll(at(41))), (None, Some(PingDue::SendPing)));
        assert_eq!((idle.poll(at(60)), idle.poll(at(61))), (None, Some(PingDue::SendPing)));
    }
}
