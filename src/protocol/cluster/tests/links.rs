//! The messages of the simulation between nodes: pings, and the search for a name without the engine.

use super::super::{Millis, NodeId};
use super::engine::Name;
use super::simulation::{ClusterSimulation, NODES, SimEvent};

#[derive(Clone, Debug)]
pub(super) struct SimPing {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) id: NodeId,
    sent: Millis,
    echo: Option<(NodeId, Millis)>,
    generation: u64,
    others: Vec<NodeId>,
}

/// A question for the node that has a name, and its answer.
#[derive(Clone, Debug)]
pub(super) struct SimSearch {
    from: usize,
    pub(super) to: usize,
    /// The process that sends.
    id: NodeId,
    name: Name,
    is_answer: bool,
}

impl ClusterSimulation {
    pub(super) fn send_pings(&mut self, node: usize) {
        let now = self.now;
        for to in 0..NODES {
            if to == node || !self.is_connected(node, to) {
                continue;
            }
            let (own, other) = (&self.nodes[node], self.nodes[to].ownership.node());
            let echo = own.received.get(&other).map(|at| (other, *at));
            let (id, generation) = (own.ownership.node(), own.ownership.lease().generation());
            let others = own.ownership.lease().others().to_vec();
            let ping = SimPing { from: node, to, id, sent: now, echo, generation, others };
            self.send(SimEvent::Ping(ping));
        }
    }

    pub(super) fn ping(&mut self, ping: SimPing) {
        let SimPing { from, to, id, sent, echo, generation, others } = ping;
        let now = self.now;
        let state = &mut self.nodes[to];
        let replaced: Vec<_> =
            state.addresses.iter().filter(|(old, at)| **at == from && **old != id).collect();
        for old in replaced.into_iter().map(|(old, _)| *old).collect::<Vec<_>>() {
            state.addresses.remove(&old);
            state.ownership.ended(old, now);
        }
        if state.addresses.insert(id, from).is_none() {
            state.ownership.set_linked(id, true, now);
        }
        let last = state.received.entry(id).or_default();
        *last = sent.max(*last);
        let confirms = echo.filter(|(of, _)| *of == state.ownership.node()).map_or(0, |(_, at)| at);
        state.ownership.heard(id, confirms, generation, others, now);
        self.act(to);
    }

    pub(super) fn ask_others(&mut self, node: usize, name: Name) {
        let id = self.nodes[node].ownership.node();
        for to in (0..NODES).filter(|to| *to != node).collect::<Vec<_>>() {
            if self.is_connected(node, to) {
                self.send(SimEvent::Search(SimSearch { from: node, to, id, name, is_answer: false }));
            }
        }
    }

    pub(super) fn search(&mut self, search: SimSearch) {
        let SimSearch { from, to, id, name, is_answer } = search;
        if !self.is_connected(from, to) || self.nodes[from].ownership.node() != id {
            return;
        }
        let now = self.now;
        if is_answer {
            self.nodes[to].ownership.found_at(&name, id, now);
        } else if self.nodes[to].ownership.claim(&name, now).is_some() {
            let id = self.nodes[to].ownership.node();
            self.send(SimEvent::Search(SimSearch { from: to, to: from, id, name, is_answer: true }));
        }
        self.act(to);
    }
}
