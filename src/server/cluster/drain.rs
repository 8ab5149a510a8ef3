//! The end of a node: its rooms are closed one after the other, and then other nodes may have them at once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::node::ClusterNode;
use crate::protocol::model::{Reason, RoomKey};

/// Time between two steps of a drain.
const DRAIN_STEP: Duration = Duration::from_millis(20);
/// Names that are copied while the node is locked.
const NAMES_PER_LOCK: usize = 1_000;

impl ClusterNode {
    /// Takes no more rooms from now on, and closes those that it has one after the other in `time`, each at
    /// the moment at which it is free for other nodes.
    pub(crate) async fn drain(&self, time: Duration) {
        self.state.lock().ownership.drain();
        let rooms = self.own_names();
        let begin = Instant::now();
        let mut closed = 0;
        while closed < rooms.len() && self.state.lock().ownership.owned() > 0 {
            sleep(DRAIN_STEP.min(time)).await;
            let share = begin.elapsed().as_secs_f64() / time.as_secs_f64().max(f64::MIN_POSITIVE);
            let due = ((rooms.len() as f64 * share.min(1.0)) as usize).min(rooms.len());
            rooms.get(closed..due).into_iter().flatten().for_each(|room| self.close_room(room));
            closed = due.max(closed);
        }
        self.close_all_rooms();
    }

    /// Takes no more rooms from now on, and closes those that it has at once.
    pub(crate) fn close_all_rooms(&self) {
        self.state.lock().ownership.drain();
        self.own_names().iter().for_each(|room| self.close_room(room));
    }

    pub(super) fn close_room(&self, room: &RoomKey) {
        if let Some(hub) = self.hub.upgrade() {
            hub.close_room(room, &Reason::Moved);
            hub.release_if_absent(room);
        }
    }

    /// Frees names for which there is no room: the connection that wanted it had ended when the engine
    /// answered.
    pub(super) fn sweep(&self) {
        if let Some(hub) = self.hub.upgrade() {
            self.own_names().iter().for_each(|name| hub.release_if_absent(name));
        }
    }

    /// Ends the node in the engine, and notifies the other nodes. All its names are free then.
    pub(crate) async fn leave(&self) {
        self.has_left.store(true, Ordering::Release);
        let engine = self.state.lock().engine.clone();
        if let Some(engine) = engine
            && let Err(error) = engine.leave(self.id).await
        {
            tracing::warn!(%error, "cannot report to Redis that this node ends: its rooms are free in some seconds");
        }
        if let Some(links) = self.links.get() {
            links.announce_end();
        }
    }

    /// Returns the names of all rooms. Joins wait for the lock, so it is held for some names at a time: from
    /// the last one, as the place of one that is removed is taken by a name that was returned already.
    pub(super) fn own_names(&self) -> Vec<RoomKey> {
        let mut names = Vec::new();
        let mut rest = self.state.lock().ownership.owned();
        while rest > 0 {
            let state = self.state.lock();
            let end = rest.min(state.ownership.owned());
            rest = end.saturating_sub(NAMES_PER_LOCK);
            names.extend(state.ownership.names(rest..end).cloned());
        }
        names
    }
}
