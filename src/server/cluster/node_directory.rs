//! The places of rooms, as the hub of a node asks for them.

use std::sync::Arc;
use std::time::Duration;

use super::node::ClusterNode;
use super::node_clock::now;
use crate::protocol::cluster::Place;
use crate::protocol::model::{Reason, RoomKey};
use crate::server::hub::{Directory, Location, Outbox, PLACE_TIMEOUT};

impl Directory for Arc<ClusterNode> {
    fn place_timeout(&self) -> Duration {
        self.lost_place_timeout().unwrap_or(PLACE_TIMEOUT)
    }

    fn locate(&self, key: &RoomKey, waiter: &Outbox) -> Location {
        if self.is_replaced() {
            return Location::Unavailable(Reason::Moved);
        }
        let now = now();
        self.with_state(|state| match state.ownership.locate(key, now) {
            Place::Here => {
                self.trace_decision(state, key, now);
                Location::Here
            }
            Place::At(node) => match state.links.get(&node) {
                Some(link) => Location::Elsewhere(link.room(waiter)),
                None => Location::Unavailable(Reason::Unreachable),
            },
            Place::Unknown => {
                state.waiters.entry(key.clone()).or_default().insert(waiter.clone());
                Location::Unknown
            }
            Place::Draining => Location::Unavailable(Reason::Moved),
        })
    }

    fn may_decide(&self, key: &RoomKey) -> bool {
        let now = now();
        self.with_state(|state| {
            let may_decide = state.ownership.claim(key, now).is_some();
            if may_decide {
                self.trace_decision(state, key, now);
            }
            may_decide
        })
    }

    fn waited(&self, time: Duration) {
        self.counts.times.held.observe(time.as_secs_f64());
    }

    fn misplaced(&self, key: &RoomKey) {
        self.with_state(|state| state.ownership.forget_place(key, now()));
    }

    fn removed(&self, key: &RoomKey) {
        self.with_state(|state| state.ownership.release(key));
    }
}
