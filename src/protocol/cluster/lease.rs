//! The time in which a node may decide, and the nodes from which it may take over.
//!
//! A node may decide while no other can have taken over its rooms: while its lease in the engine lasts, or
//! while every other node confirms that it receives pings of this one, as no node takes over from one that it
//! receives pings of. A moment without either begins a new period, and what was claimed in an earlier one is
//! lost.

use std::collections::BTreeMap;

use super::{Generation, Millis, NodeId};

/// Time that a lease lasts in the engine.
pub const LEASE_TIMEOUT: Millis = 4_000;
/// Time by which the holder treats its lease as expired earlier, for clocks that drift.
pub const LEASE_MARGIN: Millis = 1_500;
/// Time for which another node's confirmation of a ping counts, from the sending of the ping.
pub const CONFIRMED_TIMEOUT: Millis = 3_000;
/// Time without a ping of a node after which its rooms may be taken over.
pub const UNHEARD_TIMEOUT: Millis = 4_500;
/// Time without a ping after which a node that the engine does not know no longer counts.
pub const FORGET_TIMEOUT: Millis = 600_000;
/// Time in a new generation in which no free name is given away: until then, the nodes that had one have
/// claimed it again, or lost their leases.
pub const GENERATION_GRACE: Millis = LEASE_TIMEOUT;

/// Time between two pings of a node.
pub const PING_INTERVAL: Millis = 1_000;

// The times leave no gap in which two nodes may decide.
const _: () = assert!(CONFIRMED_TIMEOUT + PING_INTERVAL <= UNHEARD_TIMEOUT);
const _: () = assert!(GENERATION_GRACE >= LEASE_TIMEOUT && LEASE_MARGIN < LEASE_TIMEOUT);

/// The answer of the engine to a renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineView {
    /// The data of the engine.
    pub generation: Generation,
    /// Time since the generation began.
    pub age: Millis,
    /// All other nodes, with a lease or for some minutes without.
    pub others: Vec<NodeId>,
}

/// The lease of one node.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Time since which the engine knows the node in its data, and so notices by it that its clock has leapt.
    known_since: Millis,
    /// Time until which the node may decide; 0 if it may not.
    until: Millis,
    period: u32,
    /// Time at which the last successful renewal was sent.
    renewed: Option<Millis>,
    failed: Option<Millis>,
    view: EngineView,
    /// Earliest time at which the generation can have begun.
    generation_began: Millis,
    peers: BTreeMap<NodeId, PeerNode>,
    pub(super) disabled: DisabledRules,
}

/// Another node, as far as pings of it were received.
#[derive(Clone, Copy, Debug, Default)]
struct PeerNode {
    heard: Millis,
    /// Time at which the last ping that it confirms was sent.
    confirmed: Millis,
    /// The data of the engine that it knows.
    generation: Generation,
    /// Time at which it first confirmed a ping that named the data that this node knows.
    told: Option<Millis>,
}

impl Lease {
    /// Creates the lease of a node that starts now.
    pub fn new(now: Millis) -> Self {
        Lease {
            known_since: now,
            until: 0,
            period: 0,
            renewed: None,
            failed: None,
            view: EngineView::default(),
            generation_began: 0,
            peers: BTreeMap::new(),
            disabled: DisabledRules::default(),
        }
    }

    /// Returns the data of the engine, as far as the node knows.
    pub fn generation(&self) -> Generation {
        self.view.generation
    }

    /// Returns the time until which a claim of an earlier generation is good.
    pub fn claims_kept_until(&self) -> Millis {
        self.generation_began.saturating_add(GENERATION_GRACE).saturating_sub(LEASE_MARGIN)
    }

    /// Returns the time since the sending of the last renewal that was answered, by which the engine notices
    /// that its clock has leapt.
    pub fn since_renewal(&self, now: Millis) -> Option<Millis> {
        self.renewed.map(|sent| now.saturating_sub(sent))
    }

    /// Returns the other nodes that the engine knows.
    pub fn others(&self) -> &[NodeId] {
        &self.view.others
    }

    /// Takes note of a renewal that was sent at `sent`. Returns true if the engine has other data than
    /// before.
    pub fn renew(&mut self, sent: Millis, view: EngineView, now: Millis) -> bool {
        self.lapse(now);
        let is_new = self.renewed.is_none() || self.view.generation != view.generation;
        self.renewed = self.renewed.max(Some(sent));
        if is_new {
            self.known_since = now;
            self.generation_began = sent.saturating_sub(view.age);
        }
        if is_new {
            self.peers.values_mut().for_each(|peer| peer.told = None);
        }
        self.view = view;
        let (others, limit) = (&self.view.others, now.saturating_sub(FORGET_TIMEOUT));
        self.peers.retain(|node, peer| peer.heard > limit || others.contains(node));
        if let Some(at) = self.renewed.filter(|_| !self.is_superseded(now)) {
            self.extend(at.saturating_add(LEASE_TIMEOUT).saturating_sub(LEASE_MARGIN), now);
        }
        is_new
    }

    /// Takes note that the engine does not answer.
    pub fn fail(&mut self, now: Millis) {
        self.lapse(now);
        self.failed = Some(now);
        self.extend_by_peers(now);
    }

    /// Gives the lease up, as another node has the address of this one. Names that are claimed after the next
    /// renewal are in a new period.
    pub fn end(&mut self, now: Millis) {
        self.lapse(now);
        if self.until > 0 {
            self.period = self.period.saturating_add(1);
        }
        (self.until, self.renewed, self.failed) = (0, None, None);
    }

    /// Takes note of a ping of another node, which confirms the last of ours that it received, sent at
    /// `confirms`, and knows the data of `generation` and the nodes `others`. Those unknown here count as
    /// well: they may have started while this node does not reach the engine.
    pub fn hear(
        &mut self,
        node: NodeId,
        confirms: Millis,
        generation: Generation,
        others: impl IntoIterator<Item = NodeId>,
        now: Millis,
    ) {
        self.lapse(now);
        for other in others {
            self.peers.entry(other).or_default();
        }
        let is_current = generation == self.view.generation || self.disabled.generation;
        let peer = self.peers.entry(node).or_default();
        (peer.heard, peer.generation) = (now, generation);
        if confirms > 0 && confirms >= self.known_since {
            peer.told.get_or_insert(now);
        }
        if is_current {
            peer.confirmed = peer.confirmed.max(confirms);
        }
        self.extend_by_peers(now);
    }

    /// Takes note that another node has ended: it said so, or another has its address.
    pub fn forget(&mut self, node: NodeId, now: Millis) {
        self.lapse(now);
        self.peers.remove(&node);
        self.view.others.retain(|other| *other != node);
    }

    /// Returns the period in which a claim made now is good; `None` if the node may not decide.
    pub fn period(&mut self, now: Millis) -> Option<u32> {
        self.lapse(now);
        (now < self.until).then_some(self.period)
    }

    /// Returns true if names may be taken over from a node whose lease has expired.
    pub fn may_take_over(&self, from: NodeId, now: Millis) -> bool {
        let heard = self.peers.get(&from).map_or(0, |peer| peer.heard);
        let is_unheard = now >= heard.saturating_add(UNHEARD_TIMEOUT) || self.disabled.unheard;
        // By then, all nodes that hear one that reaches the engine know of this one.
        is_unheard && now >= self.known_since.saturating_add(LEASE_TIMEOUT)
    }

    /// Returns true if another node knows newer data of the engine: a replica was promoted, and the primary
    /// before it still answers this node. Its answers count for nothing then.
    pub fn is_superseded(&self, now: Millis) -> bool {
        let is_newer = |peer: &PeerNode| {
            peer.generation > self.view.generation && now < peer.heard.saturating_add(UNHEARD_TIMEOUT)
        };
        self.peers.values().any(is_newer) && !self.disabled.superseded
    }

    /// Returns true if no other node can have a name in other data of the engine than this node knows: each
    /// knows the same data, or has known for the time of a lease that there are these, or is not heard.
    pub fn may_claim(&self, now: Millis) -> bool {
        let is_safe = |peer: &PeerNode| {
            let limit = peer.heard.max(self.known_since).saturating_add(UNHEARD_TIMEOUT);
            let has_lapsed = |told: Millis| now >= told.saturating_add(LEASE_TIMEOUT - LEASE_MARGIN);
            let has_none = peer.heard > 0 && peer.generation == 0;
            now >= limit
                || has_none
                || peer.generation == self.view.generation
                || peer.told.is_some_and(has_lapsed)
        };
        let known = self.view.others.iter().map(|node| self.peers.get(node).copied().unwrap_or_default());
        let heard = self.peers.values().filter(|peer| peer.heard > 0).copied();
        known.chain(heard).all(|peer| is_safe(&peer))
    }

    fn lapse(&mut self, now: Millis) {
        if now >= self.until && self.until > 0 && !self.disabled.period {
            self.period = self.period.saturating_add(1);
            self.until = 0;
        }
    }

    fn extend(&mut self, until: Millis, now: Millis) {
        if until > now {
            self.until = self.until.max(until);
        }
    }

    fn extend_by_peers(&mut self, now: Millis) {
        if self.renewed.is_none() {
            return;
        }
        if self.view.others.is_empty() && self.peers.is_empty() {
            // The only node goes on while the engine fails. Silence is not failure: a process that was
            // stopped knows of none when it continues, and may no longer be the only one.
            let is_settled = self.view.age >= GENERATION_GRACE;
            if let Some(failed) = self.failed.filter(|_| is_settled) {
                self.extend(failed.saturating_add(CONFIRMED_TIMEOUT), now);
            }
            return;
        }
        if self.view.others.iter().any(|node| !self.peers.contains_key(node)) {
            return;
        }
        let confirmed = self.peers.values().map(|peer| peer.confirmed).min();
        if let Some(at) = confirmed.filter(|at| *at > 0) {
            self.extend(at.saturating_add(CONFIRMED_TIMEOUT), now);
        }
    }
}

/// Rules that do not hold. Only tests disable any, to show that each is necessary.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DisabledRules {
    pub(super) generation: bool,
    pub(super) unheard: bool,
    pub(super) period: bool,
    pub(super) superseded: bool,
}
