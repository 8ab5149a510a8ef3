//! The messages of the simulation between nodes: the handshakes of links, pings over links, the last message
//! of a node, and the search for a name without the engine.

use super::super::{FORGET_TIMEOUT, Millis, NodeId};
use super::engine::Name;
use super::simulation::{ClusterSimulation, NODES, SimEvent, SimNode};

/// Time between two attempts of a node to open its links.
const DIAL_INTERVAL: Millis = 1_000;

/// An attempt to open a link, and its answer.
#[derive(Clone, Debug)]
pub(super) struct SimDial {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The process that dials, and the one that it means.
    id: NodeId,
    meant: NodeId,
    /// The process that runs at that address, in the answer.
    found: Option<NodeId>,
}

impl SimDial {
    pub(super) fn receiver(&self) -> usize {
        if self.found.is_some() { self.from } else { self.to }
    }
}

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

impl SimNode {
    /// Returns true if the node believes the key of another.
    fn knows(&self, other: NodeId) -> bool {
        self.entries.contains(&other) || self.departed.iter().any(|(departed, _)| *departed == other)
    }

    /// Takes note of a sign that the process of another node runs.
    fn ran(&mut self, other: NodeId, now: Millis) {
        self.departed.iter_mut().filter(|(departed, _)| *departed == other).for_each(|(_, at)| *at = now);
    }
}

impl ClusterSimulation {
    /// Has a node dial the nodes that it knows from the engine, and that it has no link to.
    pub(super) fn dial_others(&mut self, node: usize) {
        let own = &mut self.nodes[node];
        if self.now < own.dialled + DIAL_INTERVAL {
            return;
        }
        own.dialled = self.now;
        let id = own.ownership.node();
        let departed = own.departed.iter().map(|(departed, _)| departed);
        let meant_by_node: Vec<_> = own.entries.iter().chain(departed).copied().collect();
        for meant in meant_by_node {
            let to = self.homes[&meant];
            let is_linked = self.links.contains(&pair(id, meant)) && self.nodes[to].ownership.node() == meant;
            if !is_linked && self.is_connected(node, to) {
                self.send(SimEvent::Dial(SimDial { from: node, to, id, meant, found: None }));
            }
        }
    }

    /// Has the dialled process answer, which proves its key; or the dialling one take note of it. A link
    /// opens if each knows the other from the engine.
    pub(super) fn dial(&mut self, dial: SimDial) {
        let SimDial { from, to, id, meant, found } = dial;
        if !self.is_connected(from, to) || self.nodes[from].ownership.node() != id {
            return;
        }
        let Some(found) = found else {
            let found = Some(self.nodes[to].ownership.node());
            return self.send(SimEvent::Dial(SimDial { found, ..dial }));
        };
        let (now, disabled) = (self.now, self.disabled.departed);
        let own = &mut self.nodes[from];
        let is_known = |node: &SimNode, other| match disabled {
            true => node.entries.contains(&other),
            false => node.knows(other),
        };
        if found == meant {
            if is_known(own, meant) && !own.ended.contains(&meant) {
                own.ran(meant, now);
                own.ownership.proved_alive(meant, now);
            }
            if is_known(&self.nodes[to], id) && self.nodes[to].ownership.node() == meant {
                self.links.insert(pair(id, meant));
            }
        } else if !is_known(own, found) {
            own.ownership.found_unknown(now);
        }
        self.act(from);
    }

    /// Has a node report to the others that it ends.
    pub(super) fn announce_end(&mut self, node: usize) {
        let id = self.nodes[node].ownership.node();
        for to in 0..NODES {
            let other = self.nodes[to].ownership.node();
            if self.links.contains(&pair(id, other)) && self.is_connected(node, to) {
                self.send(SimEvent::Bye { to, id });
            }
        }
    }

    pub(super) fn bye(&mut self, to: usize, id: NodeId) {
        let now = self.now;
        self.nodes[to].ended.insert(id);
        self.nodes[to].ownership.ended(id, now);
        self.act(to);
    }

    /// Takes note of the nodes that the engine knows. One whose address another has by now has ended.
    pub(super) fn follow_nodes(&mut self, node: usize, others: &[NodeId]) {
        let now = self.now;
        let homes = &self.homes;
        let state = &mut self.nodes[node];
        let has_successor = |old: &NodeId| others.iter().any(|other| homes[other] == homes[old]);
        let before = std::mem::replace(&mut state.entries, others.to_vec());
        state.departed.extend(before.into_iter().map(|old| (old, now)));
        state.departed.retain(|(old, at)| {
            if others.contains(old) {
                return false;
            }
            let has_successor = has_successor(old);
            if has_successor {
                state.addresses.remove(old);
                state.ownership.ended(*old, now);
            }
            !has_successor && now < at + FORGET_TIMEOUT
        });
    }

    pub(super) fn send_pings(&mut self, node: usize) {
        let now = self.now;
        for to in 0..NODES {
            if to == node || !self.is_connected(node, to) {
                continue;
            }
            let (own, other) = (&self.nodes[node], self.nodes[to].ownership.node());
            if !self.links.contains(&pair(own.ownership.node(), other)) {
                continue;
            }
            let echo = own.received.get(&other).filter(|_| own.ownership.lease().confirms());
            let echo = echo.map(|at| (other, *at));
            let (id, generation) = (own.ownership.node(), own.ownership.lease().generation());
            let others = own.ownership.lease().named(now);
            let ping = SimPing { from: node, to, id, sent: now, echo, generation, others };
            self.send(SimEvent::Ping(ping));
        }
    }

    pub(super) fn ping(&mut self, ping: SimPing) {
        let SimPing { from, to, id, sent, echo, generation, others } = ping;
        let now = self.now;
        let state = &mut self.nodes[to];
        if state.ended.contains(&id) {
            return;
        }
        let others: Vec<_> = others.into_iter().filter(|other| !state.ended.contains(other)).collect();
        state.ran(id, now);
        if state.addresses.insert(id, from).is_none() {
            state.ownership.set_linked(id, true, now);
        }
        let last = state.received.entry(id).or_default();
        *last = sent.max(*last);
        let confirms = echo.filter(|(of, _)| *of == state.ownership.node()).map_or(0, |(_, at)| at);
        state.ownership.on_ping(id, confirms, generation, others, now);
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

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}
