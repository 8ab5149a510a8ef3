//! The requests of the nodes of the simulation to the engine, and its replies.

use super::super::{EngineFailure, NodeId};
use super::engine::{EngineReply, EngineRequest};
use super::simulation::{ClusterSimulation, ENGINE, SimEvent};

impl ClusterSimulation {
    pub(super) fn ask(&mut self, node: usize, request: EngineRequest) {
        let Some(process) = self.nodes[node].connection else { return };
        if self.is_connected(node, ENGINE) {
            let (life, id) = (self.nodes[node].life, self.nodes[node].ownership.node());
            self.send(SimEvent::Request { node, id, life, process, request });
        }
    }

    pub(super) fn renew(&mut self, node: usize) {
        let now = self.now;
        let state = &mut self.nodes[node];
        if state.connection.is_none() || state.renew_sent.is_some() {
            return;
        }
        (state.renew_sent, state.last_sent) = (Some(now), now);
        let has_no_lease = |node: &NodeId| {
            state.expired.contains(node) || state.departed.iter().any(|(departed, _)| departed == node)
        };
        let running: Vec<_> = state.ownership.lease().running(now).filter(has_no_lease).collect();
        if !running.is_empty() && !self.disabled.found {
            let running = running.into_iter().map(|node| (node, self.homes[&node])).collect();
            self.ask(node, EngineRequest::Found(running));
        }
        let state = &self.nodes[node];
        let lease = state.ownership.lease();
        let (since_renewal, known) = (lease.since_renewal(now), lease.generation());
        self.ask(node, EngineRequest::Renew { sent: now, since_renewal, known });
    }

    pub(super) fn request(
        &mut self,
        sender: (NodeId, usize),
        life: u32,
        process: u64,
        request: EngineRequest,
    ) {
        let node = sender.1;
        // A node that leaves has ended when the engine receives it.
        let is_current = self.nodes[node].life == life || matches!(request, EngineRequest::Leave);
        if !self.is_connected(node, ENGINE) || !is_current {
            return;
        }
        let is_former = self.former.as_ref().is_some_and(|former| former.0 == process);
        if process != self.process && !is_former {
            return self.send(SimEvent::Reply { node, life, process, reply: EngineReply::Disconnected });
        }
        if self.copies.last().is_none_or(|(at, _)| at + 20 < self.now) {
            self.copies.push((self.now, self.data.clone()));
        }
        let time = (process, self.now.saturating_add_signed(self.ahead));
        let data = match &mut self.former {
            Some((_, data)) if is_former => data,
            _ => &mut self.data,
        };
        if let Some(reply) = data.apply(sender, request, time, self.disabled.scripts) {
            self.send(SimEvent::Reply { node, life, process, reply });
        }
    }

    pub(super) fn reply(&mut self, node: usize, reply: EngineReply) {
        let now = self.now;
        let state = &mut self.nodes[node];
        match reply {
            EngineReply::Disconnected => self.disconnect(node),
            EngineReply::Replaced => {
                let life = self.nodes[node].life + 1;
                self.nodes[node] = self.start_node(node, life);
            }
            EngineReply::Renewed { sent, view, expired } => {
                (state.renew_sent, state.expired) = (None, expired);
                self.follow_nodes(node, &view.others);
                let state = &mut self.nodes[node];
                let must_keep = state.ownership.renewed(sent, view, now);
                if state.ownership.lease().is_superseded(now) {
                    self.disconnect(node);
                } else if must_keep && self.rng.u8(..4) > 0 {
                    // A request with many claims is lost more often than others.
                    let claims = state.ownership.claims().map(|(name, claim)| (*name, claim)).collect();
                    let generation = state.ownership.lease().generation();
                    self.ask(node, EngineRequest::Keep { claims, generation });
                }
            }
            EngineReply::Claimed { name, claim, result } => {
                state.ownership.claim_answered(&name, claim, result, now);
            }
            EngineReply::Kept { claims, generation } => {
                for (name, claim, is_kept) in claims {
                    state.ownership.kept(&name, claim, is_kept, generation);
                }
                state.ownership.engine_ready(generation, now);
            }
        }
        self.act(node);
    }

    pub(super) fn disconnect(&mut self, node: usize) {
        let now = self.now;
        let state = &mut self.nodes[node];
        (state.connection, state.renew_sent) = (None, None);
        state.ownership.engine_failed(EngineFailure::Unreachable, now);
        self.act(node);
    }

    pub(super) fn renew_tick(&mut self, node: usize) {
        let now = self.now;
        if self.nodes[node].renew_sent.is_some_and(|sent| now >= sent + 1_000) {
            self.disconnect(node);
        }
        let (is_connected, is_cut) = (self.is_connected(node, ENGINE), self.is_cut(node, ENGINE));
        let state = &mut self.nodes[node];
        if state.connection.is_none() {
            if is_connected {
                (state.connection, state.last_sent) = (Some(self.process), 0);
            } else {
                let failure = if is_cut { EngineFailure::Unreachable } else { EngineFailure::Refused };
                state.ownership.engine_failed(failure, now);
            }
        }
        if now >= self.nodes[node].last_sent + 1_000 {
            self.renew(node);
        }
        self.act(node);
    }
}
