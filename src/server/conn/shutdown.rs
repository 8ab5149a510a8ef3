//! The end of a server: one signal for all that waits, and the count of the tasks that have to end.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The end of a server.
#[derive(Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Begins the shutdown.
    pub(super) fn begin(&self) {
        self.token.cancel();
        self.tasks.close();
    }

    /// Returns true if the shutdown has begun.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits for the beginning of the shutdown.
    pub fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// Returns a token that a connection holds until it has ended.
    pub fn track(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Waits until all tracked connections have ended. Returns false if they did not in time.
    pub async fn wait(&self, timeout: Duration) -> bool {
        tokio::time::timeout(timeout, self.tasks.wait()).await.is_ok()
    }
}
