//! When a peer is asked whether it is still there, and when it is taken for gone. Polled state: the caller brings
//! the time and sends what is due.

use std::time::{Duration, Instant};

/// How a dialect finds out that a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keepalive {
    /// It does not.
    None,
    /// A ping, and the next one only if the pong came in time (sigver 15).
    PingPong {
        /// From one ping to the next, and the time there is for a pong.
        every: Duration,
    },
    /// A heartbeat at a fixed rate; three unanswered ones are too many (sigver 16 to 20).
    Heartbeat {
        /// The heartbeat that would be the third is sent before the peer is given up (sigver 16 and 17).
        third: bool,
        /// Whether a peer that never answers is given up at all. Not as long as its dialect may be one in which
        /// it need not answer.
        strict: bool,
    },
}

/// From one heartbeat to the next (sigver 16 to 20, measured).
pub(super) const BEAT: Duration = Duration::from_secs(5);
const MISSED_BEATS: u32 = 3;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepaliveDue {
    /// Ask the peer.
    SendPing,
    /// Give the peer up.
    Close,
    /// Ask the peer once more, and give it up.
    SendPingThenClose,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct KeepaliveTimer {
    rule: Keepalive,
    next: Option<Instant>,
    unanswered: u32,
    /// The peer has shown that it knows how to answer.
    answers: bool,
}

impl KeepaliveTimer {
    /// Nobody is asked until [`start`](Self::start).
    pub(super) fn new(rule: Keepalive) -> Self {
        KeepaliveTimer { rule, next: None, unanswered: 0, answers: false }
    }

    /// Whether the peer is being asked.
    pub(super) fn running(&self) -> bool {
        self.next.is_some()
    }

    /// Begins to ask, `since` being the beginning of the first interval. Whether the first question is due now.
    pub(super) fn start(&mut self, since: Instant) -> bool {
        self.unanswered = 0;
        match self.rule {
            Keepalive::None => false,
            Keepalive::PingPong { every } => {
                self.next = Some(since + every);
                self.unanswered = 1;
                true
            }
            Keepalive::Heartbeat { .. } => {
                self.next = Some(since + BEAT);
                false
            }
        }
    }

    /// Another rule holds from now on; what is under way goes on.
    pub(super) fn change(&mut self, rule: Keepalive) {
        self.rule = rule;
        if rule == Keepalive::None {
            self.next = None;
        }
    }

    /// From now on the peer has to answer; what it missed before does not count.
    pub(super) fn insist(&mut self) {
        if let Keepalive::Heartbeat { strict: strict @ false, .. } = &mut self.rule {
            *strict = true;
            self.unanswered = 0;
        }
    }

    /// Asks no more.
    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    /// The peer answered.
    pub(super) fn answered(&mut self) {
        self.unanswered = 0;
        self.answers = true;
    }

    /// When [`poll`](Self::poll) is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// What is due at `now`, one thing a call.
    pub(super) fn poll(&mut self, now: Instant) -> Option<KeepaliveDue> {
        let due = self.next.filter(|due| *due <= now)?;
        match self.rule {
            Keepalive::None => {
                self.next = None;
                None
            }
            Keepalive::PingPong { every } => {
                if self.unanswered > 0 {
                    self.next = None;
                    return Some(KeepaliveDue::Close);
                }
                self.unanswered = 1;
                self.next = Some(after(due, every, now));
                Some(KeepaliveDue::SendPing)
            }
            Keepalive::Heartbeat { third, strict } => {
                self.unanswered += 1;
                if self.unanswered < MISSED_BEATS || (!strict && !self.answers) {
                    self.next = Some(after(due, BEAT, now));
                    return Some(KeepaliveDue::SendPing);
                }
                self.next = None;
                Some(if third { KeepaliveDue::SendPingThenClose } else { KeepaliveDue::Close })
            }
        }
    }
}

/// The next point of a fixed rate, without catching up on points that were slept through.
fn after(due: Instant, every: Duration, now: Instant) -> Instant {
    let next = due + every;
    if next > now { next } else { now + every }
}
