//! The clock of the server: that of the runtime, which tests can pause and advance.

use std::time::Instant;

/// Returns the current time.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
