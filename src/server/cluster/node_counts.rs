//! Counts of a node.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::cluster::{ClaimResult, Generation, LossCause};
use crate::server::telemetry::{ClaimCounts, ClusterTimes, LostRoomCounts};

/// Counts of a node.
#[derive(Debug, Default)]
pub(super) struct NodeCounts {
    granted: AtomicU64,
    held: AtomicU64,
    wait: AtomicU64,
    failed: AtomicU64,
    lapsed: AtomicU64,
    forgotten: AtomicU64,
    taken: AtomicU64,
    engine_loss: AtomicU64,
    generation: AtomicU64,
    generation_changes: AtomicU64,
    pub(super) times: ClusterTimes,
}

impl NodeCounts {
    /// Counts the answer to a claim; `None` if there was none.
    pub(super) fn count_claim(&self, result: Option<ClaimResult>) {
        let count = match result {
            Some(ClaimResult::Granted) => &self.granted,
            Some(ClaimResult::Held(..)) => &self.held,
            Some(ClaimResult::Wait(_) | ClaimResult::OtherGeneration) => &self.wait,
            None => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a room that the node lost.
    pub(super) fn count_lost_room(&self, cause: LossCause) {
        let count = match cause {
            LossCause::Lapsed => &self.lapsed,
            LossCause::Forgotten => &self.forgotten,
            LossCause::Taken => &self.taken,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a room that was closed as the engine was lost.
    pub(super) fn count_engine_loss(&self) {
        self.engine_loss.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note of the data that the engine has.
    pub(super) fn see_generation(&self, generation: Generation) {
        let before = self.generation.swap(generation, Ordering::Relaxed);
        if before != 0 && before != generation {
            self.generation_changes.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("Redis has lost its data, or may have: new rooms wait some seconds");
        }
    }

    pub(super) fn generation_changes(&self) -> u64 {
        self.generation_changes.load(Ordering::Relaxed)
    }

    pub(super) fn lost_rooms(&self) -> LostRoomCounts {
        LostRoomCounts {
            lapsed: self.lapsed.load(Ordering::Relaxed),
            forgotten: self.forgotten.load(Ordering::Relaxed),
            taken: self.taken.load(Ordering::Relaxed),
            engine_loss: self.engine_loss.load(Ordering::Relaxed),
        }
    }

    pub(super) fn claims(&self) -> ClaimCounts {
        ClaimCounts {
            granted: self.granted.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
            wait: self.wait.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}
