//! The engine of the simulation: what the scripts in Redis do, on data that may be lost.

use std::collections::BTreeMap;

use super::super::{
    Claim, ClaimResult, EngineView, FORGET_TIMEOUT, GENERATION_GRACE, Generation, LEASE_TIMEOUT, Millis,
    NodeId,
};

/// A name in the simulation.
pub(super) type Name = u32;

/// A request of a node to the engine.
#[derive(Clone, Debug)]
pub(super) enum EngineRequest {
    Renew {
        sent: Millis,
        since_renewal: Option<Millis>,
        known: Generation,
    },
    Claim {
        name: Name,
        claim: Claim,
        over: Option<Claim>,
        generation: Generation,
        since_renewal: Option<Millis>,
    },
    Keep {
        claims: Vec<(Name, Claim)>,
        generation: Generation,
    },
    Release {
        name: Name,
        claim: Claim,
        generation: Generation,
    },
    Leave,
    /// Nodes that run, with their addresses.
    Found(Vec<(NodeId, usize)>),
}

/// An answer of the engine.
#[derive(Clone, Debug)]
pub(super) enum EngineReply {
    Renewed {
        sent: Millis,
        view: EngineView,
        /// Nodes of the view whose leases have ended.
        expired: Vec<NodeId>,
    },
    /// The node announced that it ends, or another has its address.
    Replaced,
    Claimed {
        name: Name,
        claim: Claim,
        result: ClaimResult,
    },
    Kept {
        claims: Vec<(Name, Claim, bool)>,
        generation: Generation,
    },
    /// The process that the connection led to is no more.
    Disconnected,
}

/// Rules of the scripts that do not hold, to show that each is necessary.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DisabledScripts {
    /// The generation is not that of one process.
    pub(super) process: bool,
    /// Free names are given away at once in a new generation.
    pub(super) grace: bool,
    /// No check looks for a leap of the clock.
    pub(super) clock: bool,
}

/// Most by which two clocks and the time of a request may differ.
const CLOCK_TOLERANCE: Millis = 1_000;

/// A generation of the data.
#[derive(Clone, Copy, Debug)]
struct SimGeneration {
    number: Generation,
    /// Time at which it began, by the engine's clock.
    began: Millis,
    /// The process that began it.
    process: u64,
}

/// The data of the engine.
#[derive(Clone, Debug, Default)]
pub(super) struct EngineData {
    generation: Option<SimGeneration>,
    /// Ends of the leases with the addresses of the nodes; a node that has ended has none.
    nodes: BTreeMap<NodeId, (Option<Millis>, usize)>,
    /// Nodes that others found to run, with the time of that and their addresses.
    found: BTreeMap<NodeId, (Millis, usize)>,
    /// By generation and process: the clock of a later process may show the same time once more.
    claims: BTreeMap<((Generation, u64), Name), Claim>,
}

impl EngineData {
    pub(super) fn apply(
        &mut self,
        (node, address): (NodeId, usize),
        request: EngineRequest,
        (process, now): (u64, Millis),
        disabled: DisabledScripts,
    ) -> Option<EngineReply> {
        let process = if disabled.process { 0 } else { process };
        let grace = if disabled.grace { 0 } else { GENERATION_GRACE };
        match request {
            EngineRequest::Renew { sent, since_renewal, known } => {
                let before = self.nodes.get(&node).copied();
                if matches!(before, Some((None, _))) {
                    return Some(EngineReply::Replaced);
                }
                let leapt = !disabled.clock && self.has_leapt(node, since_renewal, now);
                let current = self.generation.filter(|current| current.process == process && !leapt);
                let generation = current.unwrap_or_else(|| {
                    let before = self.generation.map_or(0, |before| before.number).max(known);
                    SimGeneration { number: now.max(before + 1), began: now, process }
                });
                self.generation = Some(generation);
                if before.is_none() {
                    for other in self.nodes.values_mut().filter(|other| other.1 == address) {
                        other.0 = None;
                    }
                }
                self.nodes.insert(node, (Some(now + LEASE_TIMEOUT), address));
                // The script forgets nodes that have ended as well, which no claim depends on.
                self.nodes.retain(|_, (expiry, _)| {
                    expiry.is_none_or(|expiry| now.saturating_sub(expiry) <= FORGET_TIMEOUT)
                });
                let nodes = &self.nodes;
                self.found.retain(|other, (at, home)| {
                    let has_ended =
                        nodes.values().any(|(expiry, other)| other == home && *expiry > Some(now));
                    let is_known =
                        nodes.get(other).is_some_and(|(expiry, _)| expiry.is_none_or(|expiry| expiry > now));
                    now.saturating_sub(*at) <= FORGET_TIMEOUT && !has_ended && !is_known
                });
                let others = nodes.iter().filter(|(other, state)| **other != node && state.0.is_some());
                let others = others.map(|(other, _)| *other);
                let found = self.found.keys().filter(|other| !nodes.contains_key(other)).copied();
                let others: Vec<_> = others.chain(found).collect();
                let lasts = |other: &NodeId| nodes.get(other).is_some_and(|state| state.0 > Some(now));
                let expired = others.iter().filter(|other| !lasts(other)).copied().collect();
                let age = now.saturating_sub(generation.began);
                let view = EngineView { generation: generation.number, age, others };
                Some(EngineReply::Renewed { sent, view, expired })
            }
            EngineRequest::Claim { name, claim, over, generation, since_renewal } => {
                let leapt = !disabled.clock && self.has_leapt(node, since_renewal, now);
                let result = match leapt {
                    true => ClaimResult::OtherGeneration,
                    false => self.claim(((generation, process), name), claim, over, grace, now),
                };
                Some(EngineReply::Claimed { name, claim, result })
            }
            EngineRequest::Keep { claims, generation } => {
                self.generation.filter(|current| current.number == generation)?;
                let generation_key = (generation, process);
                let mut kept = Vec::new();
                for (name, claim) in claims {
                    let held = self.claims.get(&(generation_key, name)).copied();
                    let is_kept = held.is_none_or(|held| held.node == node);
                    if is_kept && held.is_none_or(|held| held.number <= claim.number) {
                        self.claims.insert((generation_key, name), claim);
                    }
                    kept.push((name, claim, is_kept));
                }
                Some(EngineReply::Kept { claims: kept, generation })
            }
            EngineRequest::Release { name, claim, generation } => {
                let key = ((generation, process), name);
                if self.claims.get(&key) == Some(&claim) {
                    self.claims.remove(&key);
                }
                None
            }
            EngineRequest::Found(nodes) => {
                self.found.extend(nodes.into_iter().map(|(node, home)| (node, (now, home))));
                None
            }
            EngineRequest::Leave => {
                if let Some(state) = self.nodes.get_mut(&node) {
                    state.0 = None;
                }
                None
            }
        }
    }

    /// Returns true if all nodes of other data are in these.
    pub(super) fn knows_nodes_of(&self, other: &EngineData) -> bool {
        other.nodes.keys().all(|node| self.nodes.contains_key(node))
    }

    /// Returns true if the grace of the generation is over.
    pub(super) fn is_settled(&self, now: Millis) -> bool {
        self.generation.is_some_and(|generation| now >= generation.began + GENERATION_GRACE)
    }

    /// Returns true if the clock went much faster than that of the node since the node's last renewal, or
    /// back.
    fn has_leapt(&self, node: NodeId, since_renewal: Option<Millis>, now: Millis) -> bool {
        let before_generation =
            self.generation.is_some_and(|generation| now + CLOCK_TOLERANCE < generation.began);
        let expiry = self.nodes.get(&node).and_then(|node| node.0);
        let (Some(expiry), Some(since)) = (expiry, since_renewal) else { return before_generation };
        let renewed = expiry - LEASE_TIMEOUT;
        before_generation || now > renewed + since + CLOCK_TOLERANCE || now + CLOCK_TOLERANCE < renewed
    }

    fn claim(
        &mut self,
        key: ((Generation, u64), Name),
        claim: Claim,
        over: Option<Claim>,
        grace: Millis,
        now: Millis,
    ) -> ClaimResult {
        let current = self.generation.filter(|current| current.number == key.0.0);
        let Some(SimGeneration { began, .. }) = current else { return ClaimResult::OtherGeneration };
        match self.claims.get(&key).copied() {
            Some(held) if held.node == claim.node && held.number > claim.number => {
                return ClaimResult::Wait(0);
            }
            Some(held) if held.node == claim.node => {}
            Some(held) => {
                let has_ended = matches!(self.nodes.get(&held.node), Some((None, _)));
                let expiry = self.nodes.get(&held.node).and_then(|node| node.0).unwrap_or(0);
                if expiry > now || (!has_ended && over != Some(held)) {
                    return ClaimResult::Held(held, expiry.saturating_sub(now));
                }
            }
            None if now < began + grace => return ClaimResult::Wait(began + grace - now),
            None => {}
        }
        let has_lease =
            self.nodes.get(&claim.node).and_then(|node| node.0).is_some_and(|expiry| expiry > now);
        if !has_lease {
            return ClaimResult::Wait(0);
        }
        self.claims.insert(key, claim);
        ClaimResult::Granted
    }
}
