//! The state of a node for people, and the loss of the engine.

use std::time::Duration;

use super::node::{ClusterNode, NodeState};
use super::node_clock::now;
use super::unlinked::{REPORT_AFTER, Unlinked};
use crate::config::EngineLoss;
use crate::protocol::cluster::{Millis, NodeId};
use crate::server::readiness::{NodeFault, NotReady, Ready};
use crate::server::telemetry::{ClusterReport, OtherNodeReport};

/// Time for which the engine may be away without a consequence: a restart or a failover of it.
const LOSS_TIMEOUT: Millis = 8_000;
/// Longest wait of a connection for a room while the engine is lost: other nodes have answered by then.
const LOST_PLACE_TIMEOUT: Duration = Duration::from_secs(1);
/// Number of ticks over which rooms are closed when the engine is lost.
const CLOSE_TICKS: usize = 30;

impl ClusterNode {
    /// Sets the consequence of a lost engine. By default, new rooms are refused.
    pub(crate) fn set_engine_loss(&self, loss: EngineLoss) {
        // The first one stays.
        let _ = self.engine_loss.set(loss);
    }

    fn engine_loss(&self) -> EngineLoss {
        self.engine_loss.get().copied().unwrap_or_default()
    }

    /// Returns the time since which the engine does not answer, or has not all claims.
    fn lost_for(&self) -> Option<Millis> {
        self.state.lock().lost_since.map(|since| now().saturating_sub(since))
    }

    fn is_lost(&self) -> bool {
        self.lost_for().is_some_and(|time| time >= LOSS_TIMEOUT)
    }

    /// Returns the longest time that a connection waits for a room whose place is unknown, if it is another
    /// one than usual.
    pub(super) fn lost_place_timeout(&self) -> Option<Duration> {
        let refuses = self.engine_loss() != EngineLoss::Continue && self.is_lost();
        (refuses || lasting_unaware(&self.state.lock()).is_some()).then_some(LOST_PLACE_TIMEOUT)
    }

    /// Closes rooms while the engine is lost, if it is to be so. To be called at each tick.
    pub(super) fn close_if_lost(&self) {
        if self.engine_loss() != EngineLoss::Close || !self.is_lost() {
            return;
        }
        let rooms = self.own_names();
        for room in rooms.iter().take(rooms.len().div_ceil(CLOSE_TICKS)) {
            self.close_room(room);
            self.counts.count_engine_loss();
        }
    }

    /// Returns what is wrong with the node.
    fn fault(&self) -> Option<NodeFault> {
        let engine_fault = self.engine_fault.lock().text().to_owned();
        let url = self.settings.engine.describe();
        if self.is_replaced() {
            return Some(NodeFault::Replaced { engine_fault });
        }
        if self.lost_for().is_none() {
            let (node, unlinked) = self.unaware_node()?;
            return Some(match unlinked.has_other_versions {
                true => NodeFault::OtherVersions { node, link_fault: unlinked.fault },
                false => NodeFault::Unaware { node, url },
            });
        }
        let (takes_clients, consequence) = self.loss_consequence();
        Some(NodeFault::EngineLost { takes_clients, consequence, url, engine_fault })
    }

    /// Returns whether the node takes connections while the engine is lost, and the text for the
    /// consequence.
    pub(super) fn loss_consequence(&self) -> (bool, &'static str) {
        let time = self.lost_for().unwrap_or_default();
        let may_decide = self.report().may_decide;
        let has_begun = self.state.lock().ownership.lease().generation() != 0;
        match self.engine_loss() {
            _ if !has_begun => (false, "rooms are possible once it has answered"),
            _ if !may_decide => (false, "this node may not decide about rooms, and closes them"),
            EngineLoss::Close if time >= LOSS_TIMEOUT => (false, "rooms are closed (--engine-loss close)"),
            EngineLoss::RefuseNew if time >= LOSS_TIMEOUT => (true, "rooms go on, new ones are refused"),
            // Not an error: all nodes at once would be taken out of the load balancer, and with them the
            // rooms that go on.
            EngineLoss::RefuseNew | EngineLoss::Continue | EngineLoss::Close => {
                (true, "rooms go on, new ones have to wait")
            }
        }
    }

    /// Returns another node that has run for some seconds without knowing this one, for people, and why there
    /// is no link to it: it does not reach the engine, or reaches another one, and may have any room.
    fn unaware_node(&self) -> Option<(String, Unlinked)> {
        let (node, unlinked) = {
            let state = self.state.lock();
            let (node, unlinked) = lasting_unaware(&state)?;
            (node, unlinked.clone())
        };
        Some((self.describe_node(node), unlinked))
    }

    /// Returns the state of a node that takes connections.
    ///
    /// # Errors
    /// It takes none, as it cannot open rooms.
    pub(in crate::server) fn readiness(&self) -> Result<Ready, NotReady> {
        match self.fault() {
            None => Ok(Ready::Sound),
            Some(fault) if fault.takes_clients() => Ok(Ready::Faulty(fault)),
            Some(fault) => Err(NotReady::Faulty(fault)),
        }
    }

    /// Returns the state of the node, for people.
    pub(crate) fn status(&self) -> ClusterReport {
        let report = self.report();
        let readiness = self.readiness().map_or_else(|cause| cause.to_string(), |ready| ready.to_string());
        let state = self.state.lock();
        let others = report.others.into_iter().map(|(id, node_name, linked)| {
            let (entry, link) = (state.entries.get(&id), state.links.get(&id));
            let unlinked = state.unlinked.get(&id).filter(|_| link.is_none());
            OtherNodeReport {
                node: format!("{:016x}", id.0),
                node_name,
                address: entry.map(|entry| entry.address.clone()).unwrap_or_default(),
                unaware: !unlinked.is_some_and(|unlinked| unlinked.has_other_versions)
                    && state.ownership.lease().unaware(now()).any(|(node, _)| node == id),
                failed_seconds: entry.and_then(|entry| entry.expired).map(|time| time / 1_000),
                unlinked_seconds: unlinked.map(|unlinked| unlinked.since.elapsed().as_secs()),
                link_fault: unlinked.map(|unlinked| unlinked.fault.clone()),
                version: entry.map(|entry| entry.version.clone()).unwrap_or_default(),
                linked,
                rooms: entry.map_or(0, |entry| entry.rooms as u64),
                far: link.map_or(0, |link| link.sessions() as u64),
                queue_bytes: link.map_or(0, |link| link.queue.len() as u64),
            }
        });
        let mut nodes: Vec<_> = others.collect();
        nodes.sort_by(|one, other| (&one.node_name, &one.node).cmp(&(&other.node_name, &other.node)));
        let lost_for = state.lost_since.map(|since| now().saturating_sub(since));
        ClusterReport {
            readiness,
            name: self.cluster_name().to_owned(),
            node: format!("{:016x}", self.id.0),
            node_name: self.node_name().to_owned(),
            engine_up: lost_for.is_none(),
            engine_lost_seconds: lost_for.map(|time| time / 1_000),
            engine_loss: self.engine_loss().name(),
            generation_changes: self.counts.generation_changes(),
            may_decide: report.may_decide,
            lease_seconds: Duration::from_millis(state.ownership.lease().time_left(now())).as_secs_f64(),
            rooms: report.rooms as u64,
            rooms_lost: self.counts.lost_rooms(),
            claims: self.counts.claims(),
            far: report.far as u64,
            guests: report.guests as u64,
            waiting: state.waiters.values().map(|waiters| waiters.len() as u64).sum(),
            link_cuts: self.links.get().map(|links| links.cuts()).unwrap_or_default(),
            times: self.counts.times.clone(),
            nodes,
        }
    }
}

/// Returns a node that has run for some seconds without knowing this one, and the lack of a link to it.
fn lasting_unaware(state: &NodeState) -> Option<(NodeId, &Unlinked)> {
    let mut unaware = state.ownership.lease().unaware(now());
    unaware.find_map(|(node, time)| {
        let unlinked = state.unlinked.get(&node).filter(|_| u128::from(time) >= REPORT_AFTER.as_millis())?;
        Some((node, unlinked))
    })
}
