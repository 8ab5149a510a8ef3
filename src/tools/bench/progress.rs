//! How far a measurement is, and the wish to end it. What is shown of it is the caller's.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Connections are made.
    Connecting {
        /// How many rooms, or members, there are.
        done: usize,
        /// How many there will be.
        of: usize,
    },
    /// Each room has its messages, one room after another.
    Exchanging {
        /// How many rooms have had them.
        done: usize,
        /// How many there are.
        of: usize,
    },
    /// What is to be measured happens.
    Measuring {
        /// For how many seconds it has.
        seconds: f64,
        /// For how many it will.
        of: f64,
    },
}

/// Whom to tell how far it is, and whether to go on. Clones are one and the same.
#[derive(Clone)]
pub struct Progress(Arc<Inner>);

struct Inner {
    tell: Box<dyn Fn(Phase) + Send + Sync>,
    stop: watch::Sender<bool>,
}

impl Progress {
    /// Tells this.
    pub fn new(tell: impl Fn(Phase) + Send + Sync + 'static) -> Self {
        Progress(Arc::new(Inner { tell: Box::new(tell), stop: watch::Sender::new(false) }))
    }

    /// Tells nobody.
    pub fn none() -> Self {
        Progress::new(|_| {})
    }

    /// Ends the measurement: what has been measured until now is its result.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    /// Whether it is to end.
    pub fn is_stopped(&self) -> bool {
        *self.0.stop.borrow()
    }

    /// Waits until it is to end.
    pub async fn stopped(&self) {
        // The sender lives as long as this.
        let _ = self.0.stop.subscribe().wait_for(|stop| *stop).await;
    }

    pub(super) fn tell(&self, phase: Phase) {
        (self.0.tell)(phase);
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
