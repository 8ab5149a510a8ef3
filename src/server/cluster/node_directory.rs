//! The places of rooms, as the hub of a node asks for them.

use std::sync::Arc;
use std::time::Duration;

use super::node::ClusterNode;
use super::node_clock::now;
use crate::protocol::cluster::Place;
use crate::protocol::model::{Reason, RoomKey};
use crate::server::hub::{Directory, Location, Outbox, PLACE_TIMEOUT};

/// The directory of the hub of a node.
#[derive(Debug)]
pub(super) struct NodeDirectory(pub(super) Arc<ClusterNode>);

impl Directory for NodeDirectory {
    fn place_timeout(&self) -> Duration {
        self.0.lost_place_timeout().unwrap_or(PLACE_TIMEOUT)
    }

    fn locate(&self, key: &RoomKey, waiter: &Outbox) -> Location {
        if self.0.is_replaced() {
            return Location::Unavailable(Reason::Moved);
        }
        let now = now();
        self.0.with_state(|state| match state.ownership.locate(key, now) {
            Place::Here => {
                self.0.trace_decision(state, key, now);
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
        self.0.with_state(|state| {
            let may_decide = state.ownership.claim(key, now).is_some();
            if may_decide {
                self.0.trace_decision(state, key, now);
            }
            may_decide
        })
    }

    fn waited(&self, time: Duration) {
        self.0.counts.times.held.observe(time.as_secs_f64());
    }

    fn misplaced(&self, key: &RoomKey) {
        self.0.with_state(|state| state.ownership.forget_place(key, now()));
    }

    fn removed(&self, key: &RoomKey) {
        self.0.with_state(|state| state.ownership.release(key));
    }
}
