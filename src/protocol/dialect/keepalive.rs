//! The times at which a peer is asked whether it is still connected, and at which it is given up. Polled
//! state: the caller passes the time, and sends what is due.

use std::time::{Duration, Instant};

/// Way in which a release finds out that a peer is disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keepalive {
    /// No way.
    None,
    /// A ping, and the next one only if the pong arrived in time.
    PingPong {
        /// Time from one ping to the next, and the timeout of a pong, in seconds.
        interval_s: u8,
    },
    /// A heartbeat every [`HEARTBEAT_INTERVAL`]; [`MAX_MISSED_HEARTBEATS`] unanswered ones are too many.
    Heartbeat {
        /// The heartbeat that would be one too many is sent before the peer is given up (sigver 16 and 17).
        send_final: bool,
        /// A peer that never answers is given up. False while its dialect may be one that need not answer.
        enforce: bool,
    },
}

/// Time from one heartbeat or ping to the next, in seconds (sigver 13 to 20 except 15.0.2, measured).
pub(super) const HEARTBEAT_INTERVAL_S: u8 = 5;
/// The same as a duration.
const HEARTBEAT_INTERVAL: Duration = seconds(HEARTBEAT_INTERVAL_S);
/// Unanswered heartbeats after which a peer is given up (sigver 16 to 20, measured).
const MAX_MISSED_HEARTBEATS: u8 = 3;

/// Action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepaliveDue {
    SendPing,
    Close,
    SendPingThenClose,
}

/// Keepalive state of one connection. Part of the memory of every idle member.
#[derive(Debug)]
pub(super) struct KeepaliveTimer {
    policy: Keepalive,
    next: Option<Instant>,
    unanswered: u8,
    /// The peer has answered at least once.
    has_replied: bool,
}

impl KeepaliveTimer {
    /// Creates a timer that runs from [`start`](Self::start) on.
    pub(super) fn new(policy: Keepalive) -> Self {
        KeepaliveTimer { policy, next: None, unanswered: 0, has_replied: false }
    }

    /// Returns true if the timer is running.
    pub(super) fn is_running(&self) -> bool {
        self.next.is_some()
    }

    /// Starts the timer, with `since` as the beginning of the first interval. Returns true if a ping is due
    /// now.
    pub(super) fn start(&mut self, since: Instant) -> bool {
        self.unanswered = 0;
        match self.policy {
            Keepalive::None => false,
            Keepalive::PingPong { interval_s } => {
                self.next = since.checked_add(seconds(interval_s));
                self.unanswered = 1;
                true
            }
            Keepalive::Heartbeat { .. } => {
                self.next = since.checked_add(HEARTBEAT_INTERVAL);
                false
            }
        }
    }

    /// Replaces the policy; a running timer keeps its next deadline.
    pub(super) fn set_policy(&mut self, policy: Keepalive) {
        self.policy = policy;
        if policy == Keepalive::None {
            self.next = None;
        }
    }

    /// Requires answers to heartbeats from now on; those missed before do not count.
    pub(super) fn enforce(&mut self) {
        if let Keepalive::Heartbeat { enforce: enforce @ false, .. } = &mut self.policy {
            *enforce = true;
            self.unanswered = 0;
        }
    }

    /// Stops the timer.
    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    /// Records an answer of the peer.
    pub(super) fn on_reply(&mut self) {
        self.unanswered = 0;
        self.has_replied = true;
    }

    /// Returns when [`poll`](Self::poll) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Returns what is due at `now`, one action a call.
    pub(super) fn poll(&mut self, now: Instant) -> Option<KeepaliveDue> {
        let due = self.next.filter(|due| *due <= now)?;
        match self.policy {
            Keepalive::None => {
                self.next = None;
                None
            }
            Keepalive::PingPong { interval_s } => {
                if self.unanswered > 0 {
                    self.next = None;
                    return Some(KeepaliveDue::Close);
                }
                self.unanswered = 1;
                self.next = next_tick(due, seconds(interval_s), now);
                Some(KeepaliveDue::SendPing)
            }
            Keepalive::Heartbeat { send_final, enforce } => {
                self.unanswered = self.unanswered.saturating_add(1);
                if self.unanswered < MAX_MISSED_HEARTBEATS || (!enforce && !self.has_replied) {
                    self.next = next_tick(due, HEARTBEAT_INTERVAL, now);
                    return Some(KeepaliveDue::SendPing);
                }
                self.next = None;
                Some(if send_final { KeepaliveDue::SendPingThenClose } else { KeepaliveDue::Close })
            }
        }
    }
}

const fn seconds(seconds: u8) -> Duration {
    Duration::from_secs(seconds as u64)
}

/// Returns the next point of a fixed rate, without the points that `now` is past.
fn next_tick(due: Instant, interval: Duration, now: Instant) -> Option<Instant> {
    due.checked_add(interval).filter(|next| *next > now).or_else(|| now.checked_add(interval))
}
