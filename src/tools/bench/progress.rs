//! Progress reports of a measurement, and its stop signal.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// Phase of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Connections are being opened.
    Connecting {
        /// Rooms or members that are ready.
        done: usize,
        /// Total number.
        of: usize,
    },
    /// Each room exchanges its messages, one room after another.
    Exchanging {
        /// Rooms that are done.
        done: usize,
        /// Total number.
        of: usize,
    },
    /// The measurement window is open.
    Measuring {
        /// Elapsed seconds.
        seconds: f64,
        /// Total seconds.
        of: f64,
    },
}

/// Receiver of progress reports, with the stop signal. Clones share both.
#[derive(Clone)]
pub struct Progress(Arc<Inner>);

struct Inner {
    report: Box<dyn Fn(Phase) + Send + Sync>,
    stop: watch::Sender<bool>,
}

impl Progress {
    /// Returns a progress that passes reports to `report`.
    pub fn new(report: impl Fn(Phase) + Send + Sync + 'static) -> Self {
        Progress(Arc::new(Inner { report: Box::new(report), stop: watch::Sender::new(false) }))
    }

    /// Returns a progress that drops reports.
    pub fn none() -> Self {
        Progress::new(|_| {})
    }

    /// Stops the measurement; results so far are kept.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    /// Returns true if the measurement was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.0.stop.borrow()
    }

    /// Waits until the measurement is stopped.
    pub(crate) async fn stopped(&self) {
        // The sender is not dropped before `self`.
        let _ = self.0.stop.subscribe().wait_for(|stop| *stop).await;
    }

    pub(super) fn report(&self, phase: Phase) {
        (self.0.report)(phase);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Progress::none()
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress(stopped: {})", self.is_stopped())
    }
}
