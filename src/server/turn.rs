//! Turns of a task: a connection works for a bounded number of frames and bytes, and then lets others work.
//! Without it, a client that never stops sending keeps a worker thread for itself.

use std::future::Future;
use std::pin::pin;
use std::task::Context;

/// Cost of one turn, in bytes.
const TURN: usize = 64 * 1024;

/// Cost of a frame or an event apart from its bytes, in bytes.
const FRAME: usize = 1024;

/// The rest of one turn.
#[derive(Debug)]
pub(crate) struct Turn {
    left: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Turn { left: TURN }
    }
}

impl Turn {
    /// Counts frames or events of `bytes` in all.
    pub(crate) fn spend(&mut self, frames: usize, bytes: usize) {
        let cost = frames.saturating_mul(FRAME).saturating_add(bytes);
        self.left = self.left.saturating_sub(cost);
    }

    /// Returns true if other tasks are to run before the next frame.
    pub(crate) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Lets others work if the turn is over, and begins the next one.
    pub(crate) async fn yield_if_over(&mut self) {
        if self.is_over() {
            *self = Turn::default();
            tokio::task::yield_now().await;
        }
    }
}

/// Has the task polled again once the other tasks of its thread, and what has arrived from the network, had
/// their turns. A task that only woke itself would be polled before anything else is received.
pub(crate) fn resume_later(context: &mut Context<'_>) {
    let mut others = pin!(tokio::task::yield_now());
    // Pending, and registered with the runtime.
    let _ = others.as_mut().poll(context);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turn_is_bounded_in_frames_and_bytes() {
        let turns = |bytes: usize| {
            let mut turn = Turn::default();
            let mut frames = 0;
            while !turn.is_over() {
                turn.spend(1, bytes);
                frames += 1;
            }
            frames
        };
        assert_eq!([0, 200, 64 * 1024, usize::MAX].map(turns), [64, 54, 1, 1]);
    }
}
