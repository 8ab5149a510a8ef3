//! The end of a server, in two phases: while it drains, connections are closed one after the other, at times
//! spread over a timeout; then those that are left close at once.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::protocol::model::PeerId;
use crate::server::clock;

/// Time for the first request of connections that were accepted before the drain. Only this
/// process can serve them, also if another one has the port by now.
const ADMISSION_GRACE: Duration = Duration::from_secs(1);

/// The end of a server.
#[derive(Debug, Default)]
pub struct Shutdown {
    window: OnceLock<DrainWindow>,
    /// Cancelled when the drain begins.
    draining: CancellationToken,
    /// Cancelled when all connections are to close.
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// Time over which connections are closed.
#[derive(Debug)]
struct DrainWindow {
    begin: Instant,
    length: Duration,
}

impl DrainWindow {
    /// Returns the time at which a connection is closed. Clients come back a fixed time after a close, so
    /// that closes at one time would be joins at one time.
    fn close_at(&self, id: PeerId) -> Instant {
        // Multiplicative hashing, as ids are consecutive numbers from 0. The upper 16 bits are the fraction.
        let spread = (id.0.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32;
        self.begin + self.length / (1 << 16) * spread
    }
}

impl Shutdown {
    /// Begins the drain: connections are closed within `length`.
    pub(crate) fn begin_draining(&self, length: Duration) {
        self.window.get_or_init(|| DrainWindow { begin: clock::now(), length });
        self.draining.cancel();
        self.tasks.close();
    }

    /// Begins the end: all connections close at once.
    pub(crate) fn begin_closing(&self) {
        self.draining.cancel();
        self.closing.cancel();
        self.tasks.close();
    }

    /// Returns true if no new connection is accepted any more.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Returns true if all connections are to close, or if the drain began since `is_draining` returned
    /// `draining`.
    pub(super) fn has_advanced(&self, draining: bool) -> bool {
        self.is_closing() || self.is_draining() != draining
    }

    /// Returns true if all connections are to close.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Returns the time at which a connection is to close, if the drain has begun.
    pub(crate) fn close_at(&self, id: PeerId) -> Option<Instant> {
        self.window.get().map(|window| window.close_at(id))
    }

    /// Waits until no new connection is accepted any more.
    pub(crate) fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.draining.cancelled()
    }

    /// Waits until connections without a request are to end: some time after the begin of the drain.
    pub(crate) async fn admission_over(&self) {
        self.draining().await;
        // Boxed, as each new connection has this state.
        let grace = Box::pin(tokio::time::sleep(ADMISSION_GRACE));
        tokio::select! {
            () = grace => {}
            () = self.closing() => {}
        }
    }

    /// Waits until all connections are to close.
    pub(crate) fn closing(&self) -> WaitForCancellationFuture<'_> {
        self.closing.cancelled()
    }

    /// Waits until this connection is to close.
    pub(crate) async fn connection_closing(&self, id: PeerId) {
        self.draining().await;
        let Some(at) = self.close_at(id) else { return };
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => {}
            () = self.closing() => {}
        }
    }

    /// Returns a token that a connection holds until it has ended.
    pub(crate) fn track(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Waits until all tracked connections have ended. Returns false if they did not in time.
    pub(crate) async fn wait(&self, timeout: Duration) -> bool {
        tokio::time::timeout(timeout, self.tasks.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_are_spread_over_the_window() {
        let window = DrainWindow { begin: Instant::now(), length: Duration::from_secs(10) };
        let mut tenths = [0_u32; 10];
        for id in 0..10_000 {
            let after = window.close_at(PeerId(id)) - window.begin;
            tenths[usize::try_from(after.as_secs()).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (900..=1100).contains(count)), "{tenths:?}");
        let none = DrainWindow { length: Duration::ZERO, ..window };
        assert_eq!(none.close_at(PeerId(7)), none.begin);
    }
}
