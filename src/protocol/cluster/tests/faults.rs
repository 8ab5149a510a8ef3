//! The faults of the simulation: any of them, also several at once, but not
//!
//! - an engine without its data, or another one, with which a node starts at an address that is unknown to
//!   nodes which it does not serve;
//! - a replica that is promoted with data older than 0.3 s, or from before its primary lost them, or without
//!   a node that its primary goes on to serve;
//! - a replica that is promoted while nodes do not reach each other, or in the first seconds after another
//!   one was.
//!
//! [`ClusterSimulation::run_uncovered`] causes what the second point excludes.

use super::super::{FORGET_TIMEOUT, Millis};
use super::engine::EngineRequest;
use super::simulation::{ClusterSimulation, DURATION, Disabled, ENGINE, Healing, NODES, SimEvent};

impl ClusterSimulation {
    /// Runs for so long that the engine forgets two nodes that run, and that it does not answer. It answers
    /// one that has started meanwhile, at an address that they do not know.
    pub(super) fn run_until_forgotten(seed: u64, disabled: Disabled) -> Self {
        let mut simulation = ClusterSimulation::new(seed, disabled);
        (simulation.duration, simulation.slowness) = (DURATION + FORGET_TIMEOUT, 40);
        simulation.last_fault = 0;
        simulation.start_nodes();
        let (started, cut) = (simulation.now + 20_000, simulation.rng.u64(14_000..18_000));
        simulation.nodes[NODES - 1].paused_until = started;
        let time = FORGET_TIMEOUT + simulation.rng.u64(40_000..80_000);
        (0..NODES - 1).for_each(|node| simulation.after(cut, SimEvent::Sever(node, ENGINE, time)));
        // It does not reach one of them for a while, before or after they are forgotten.
        if simulation.rng.bool() {
            let (node, begin) = (simulation.rng.usize(..NODES - 1), simulation.rng.u64(25_000..time));
            simulation.after(begin, SimEvent::Sever(NODES - 1, node, 6_000));
        }
        // Or it is replaced by one that does not know them.
        if simulation.rng.bool() {
            simulation.after(FORGET_TIMEOUT + 25_000, SimEvent::Restart(NODES - 1));
        }
        simulation.run_to_the_end();
        simulation
    }

    /// Begins a fault, and plans the next.
    pub(super) fn fault(&mut self) {
        if self.now >= self.last_fault {
            return;
        }
        let (kind, node) = (self.rng.u8(..16), self.rng.usize(..NODES));
        // A node starts with an engine that has lost its data, and a replica has data from before.
        let kind = if self.is_uncovered { [12, 13][usize::from(kind % 2)] } else { kind };
        let time = if self.rng.bool() { self.rng.u64(200..6_000) } else { self.rng.u64(6_000..30_000) };
        self.faults.push(format!("{}: fault {kind} at node {node} for {time} ms", self.now));
        match kind {
            0 => self.sever(node, ENGINE, time),
            1 => self.sever(node, (node + 1) % NODES, time),
            2 => {
                self.nodes[node].paused_until = self.now + time;
                self.former = None;
            }
            3 => (0..=ENGINE).filter(|other| *other != node).for_each(|other| self.sever(node, other, time)),
            4 => self.stop_engine(time),
            5 => self.restart_engine(None, time / 4),
            6 => {
                let back = self.rng.u64(100..60_000);
                self.restart_engine(Some(back), time / 8);
            }
            7 => self.restart_node(node),
            8 => {
                let (back, away) = (self.rng.u64(1..300), self.rng.u64(0..4_000));
                self.restart_engine(Some(back), away);
            }
            9 => {
                self.end_node(node);
                self.restart_node(node);
            }
            10 | 12 => self.promote_replica(time),
            11 | 13 | 14 => self.strand_running_nodes(node, time),
            // A leap in the first seconds of a generation is unknown to nodes that the engine does not know.
            _ if !self.data.is_settled(self.now.saturating_add_signed(self.ahead)) => {}
            _ => {
                let leap = i64::try_from(time).unwrap();
                self.ahead += if self.rng.u8(..4) == 0 { -leap } else { leap };
            }
        }
        let pause = self.rng.u64(500..12_000);
        self.after(pause, SimEvent::Fault);
    }

    pub(super) fn restart_node(&mut self, node: usize) {
        let life = self.nodes[node].life + 1;
        self.nodes[node] = self.start_node(node, life);
        self.nodes[node].paused_until = self.now + self.rng.u64(50..15_000);
    }

    fn end_node(&mut self, node: usize) {
        self.ask(node, EngineRequest::Leave);
        self.announce_end(node);
    }

    /// Has a node start while the engine answers none of the others; perhaps without its data, if all of
    /// those know the address, as others could not notice it. Or while it does not answer one, which does not
    /// reach the node that starts either.
    fn strand_running_nodes(&mut self, node: usize, time: Millis) {
        if self.rng.bool() {
            self.end_node(node);
        }
        self.restart_node(node);
        if self.rng.bool() {
            let other = (node + 1) % NODES;
            self.sever(other, ENGINE, time);
            return self.sever(other, node, time);
        }
        let others = (0..NODES).filter(|other| *other != node);
        others.clone().for_each(|other| self.sever(other, ENGINE, time));
        let knows_address = |other: usize| {
            let other = &self.nodes[other];
            let departed = other.departed.iter().map(|(departed, _)| departed);
            other.entries.iter().chain(departed).any(|known| self.homes[known] == node)
        };
        if others.clone().all(knows_address) && self.rng.bool() {
            self.restart_engine(None, 0);
        }
    }

    fn stop_engine(&mut self, time: Millis) {
        self.away += 1;
        self.after(time, SimEvent::Heal(Healing::Engine));
    }

    /// Has a replica serve the nodes that connect from now on, one of them at once, while its former primary
    /// serves those that are connected. Nodes that do not reach each other for long could not notice it.
    fn promote_replica(&mut self, time: Millis) {
        let is_settled = self.data.is_settled(self.now.saturating_add_signed(self.ahead));
        if !self.are_nodes_connected() || !is_settled && !self.is_uncovered {
            return;
        }
        let limit = self.now.saturating_sub(self.rng.u64(0..300));
        // A copy is what the engine had since the one before: the next one has all up to the limit.
        let copy = match self.is_uncovered {
            true => self.copies.iter().rev().find(|(at, _)| *at <= limit),
            false => self.copies.iter().find(|(at, copy)| *at > limit && copy.knows_nodes_of(&self.data)),
        };
        let data = copy.map_or_else(|| self.data.clone(), |(_, data)| data.clone());
        self.former = Some((self.process, std::mem::replace(&mut self.data, data)));
        self.process += 1;
        self.after(time, SimEvent::Heal(Healing::Former(self.process - 1)));
        if self.rng.bool() {
            let (first, cut) = (self.rng.usize(..NODES), self.rng.u64(2_000..2_800));
            let last = (first + 1) % NODES;
            (0..NODES).filter(|other| *other != last).for_each(|other| self.cut(last, other, cut));
            self.disconnect(first);
            // It reaches the others again, and not the replica.
            self.after(cut, SimEvent::Sever(last, ENGINE, 4_000));
        }
    }

    /// Restarts the engine without data, or with a copy of that age. A node that starts then could not know
    /// those that a former primary serves.
    fn restart_engine(&mut self, back: Option<Millis>, away: Millis) {
        let copy = back.and_then(|back| {
            let limit = self.now.saturating_sub(back);
            self.copies.iter().rev().find(|(at, _)| *at <= limit)
        });
        self.data = copy.map(|(_, data)| data.clone()).unwrap_or_default();
        self.process += 1;
        self.former = None;
        self.stop_engine(away);
    }
}
