//! The time in which a node may decide, and the nodes from which it may take over.
//!
//! A node may decide while no other can have taken over its rooms: while its lease in the engine lasts, or
//! while every other node that it knows confirms that it receives pings of this one, as no node takes over
//! from one that it receives pings of. A moment without either begins a new period, and what was claimed in
//! an earlier one is lost. A node that starts may be unknown to others: it claims nothing while one of them
//! runs that does not know it, or does not know another node, which reports it.

use std::collections::{BTreeMap, BTreeSet};

use super::{EngineFailure, Generation, Millis, NodeId};

/// Time that a lease lasts in the engine.
pub(crate) const LEASE_TIMEOUT: Millis = 4_000;
/// Time by which the holder treats its lease as expired earlier, for clocks that drift.
pub(crate) const LEASE_MARGIN: Millis = 1_500;
/// Time for which another node's confirmation of a ping counts, from the sending of the ping.
pub(crate) const CONFIRMED_TIMEOUT: Millis = 3_000;
/// Time without a ping of a node after which its rooms may be taken over.
pub(crate) const PING_TIMEOUT: Millis = 4_500;
/// Time without a ping after which a node that the engine does not know no longer counts.
pub(crate) const FORGET_TIMEOUT: Millis = 600_000;
/// Time after which the engine forgets a claim that is not kept, and gives the name away. Claims that were
/// not freed, as of a node that failed or of an earlier generation, take memory for so long.
pub(crate) const CLAIM_TIMEOUT: Millis = 48 * 3_600_000;
/// Time after the last answer of the engine to a node for which that node decides by the confirmations of
/// others: the engine has its claims for longer.
pub(crate) const CONFIRMATIONS_TIMEOUT: Millis = 24 * 3_600_000;
/// Time in a new generation in which no free name is given away: until then, the nodes that had one have
/// claimed it again, or lost their leases.
pub(crate) const GENERATION_GRACE: Millis = LEASE_TIMEOUT;
/// Longest time for which a node decides after the last renewal or ping that counts for it.
const DECISION_TIMEOUT: Millis = if CONFIRMED_TIMEOUT > LEASE_TIMEOUT - LEASE_MARGIN {
    CONFIRMED_TIMEOUT
} else {
    LEASE_TIMEOUT - LEASE_MARGIN
};

/// Time between two pings of a node.
pub(crate) const PING_INTERVAL: Millis = 1_000;

// The times leave no gap in which two nodes may decide.
const _: () = assert!(CONFIRMED_TIMEOUT + PING_INTERVAL <= PING_TIMEOUT);
const _: () = assert!(CONFIRMATIONS_TIMEOUT + FORGET_TIMEOUT < CLAIM_TIMEOUT);
const _: () = assert!(GENERATION_GRACE >= LEASE_TIMEOUT && LEASE_MARGIN < LEASE_TIMEOUT);
const _: () = assert!(DECISION_TIMEOUT < PING_TIMEOUT && DECISION_TIMEOUT <= GENERATION_GRACE);

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
pub(crate) struct Lease {
    /// Time since which the engine knows the node in its data, and so notices by it that its clock has leapt.
    known_since: Millis,
    /// Time until which the node may decide as its lease in the engine lasts; 0 if it may not.
    leased_until: Millis,
    /// Time until which it may decide as the other nodes confirm its pings; 0 if it may not.
    confirmed_until: Millis,
    /// Time at which a process that this node does not know was last found at the address of another node, if
    /// no renewal that was sent later has been answered: the engine may serve that process alone.
    outdated_at: Option<Millis>,
    period: u32,
    /// Time at which the last successful renewal was sent.
    renewed: Option<Millis>,
    /// Time at which the engine was last found not to serve any node.
    refused: Option<Millis>,
    view: EngineView,
    /// Earliest time at which the generation can have begun.
    generation_began: Millis,
    peers: BTreeMap<NodeId, PeerNode>,
    pub(super) disabled: DisabledRules,
}

/// Another node, as far as pings of it were received.
#[derive(Clone, Copy, Debug, Default)]
struct PeerNode {
    /// Time of its last ping; 0 if there was none, as by a node that does not know this one.
    last_ping: Millis,
    /// Time at which its process was last known to run: it sent a ping, or proved its key.
    alive: Millis,
    /// Time at which another node last reported that this process runs, and does not know that node.
    reported: Millis,
    /// Time since which its process is known to run, by signs that follow one another closely.
    ran_since: Millis,
    /// Time at which the last ping that it confirms was sent.
    confirmed: Millis,
    /// The data of the engine that it knows.
    generation: Generation,
    /// Time at which it first confirmed a ping that named the data that this node knows.
    informed: Option<Millis>,
}

impl PeerNode {
    /// Returns the time at which its process was last known to run, by this node or by another.
    fn ran(&self) -> Millis {
        self.alive.max(self.reported)
    }

    /// Takes note that the process has shown this node that it runs.
    fn prove_alive(&mut self, now: Millis) {
        self.note_sign(now);
        self.alive = now;
    }

    /// Takes note that another node reports that the process runs, and does not know that node.
    fn report_running(&mut self, now: Millis) {
        self.note_sign(now);
        self.reported = now;
    }

    fn note_sign(&mut self, now: Millis) {
        if !is_recent(self.ran(), now) {
            self.ran_since = now;
        }
    }
}

impl Lease {
    /// Creates the lease of a node that starts now.
    pub(crate) fn new(now: Millis) -> Self {
        Lease {
            known_since: now,
            leased_until: 0,
            confirmed_until: 0,
            outdated_at: None,
            period: 0,
            renewed: None,
            refused: None,
            view: EngineView::default(),
            generation_began: 0,
            peers: BTreeMap::new(),
            disabled: DisabledRules::default(),
        }
    }

    /// Returns the data of the engine, as far as the node knows.
    pub(crate) fn generation(&self) -> Generation {
        self.view.generation
    }

    /// Returns the time until which a claim in the data before those of this generation is good.
    pub(crate) fn claims_kept_until(&self) -> Millis {
        if self.disabled.kept {
            return Millis::MAX;
        }
        self.generation_began.saturating_add(GENERATION_GRACE).saturating_sub(LEASE_MARGIN)
    }

    /// Returns the time since the sending of the last renewal that was answered, by which the engine notices
    /// that its clock has leapt.
    pub(crate) fn since_renewal(&self, now: Millis) -> Option<Millis> {
        self.renewed.map(|sent| now.saturating_sub(sent))
    }

    /// Returns the other nodes that the engine knows.
    pub(crate) fn others(&self) -> &[NodeId] {
        &self.view.others
    }

    /// Takes note of a renewal that was sent at `sent`. Returns true if the engine has other data than
    /// before.
    pub(crate) fn renew(&mut self, sent: Millis, view: EngineView, now: Millis) -> bool {
        self.lapse(now);
        let is_new = self.renewed.is_none() || self.view.generation != view.generation;
        self.renewed = self.renewed.max(Some(sent));
        if is_new {
            self.known_since = now;
            self.generation_began = sent.saturating_sub(view.age);
        }
        if is_new {
            self.peers.values_mut().for_each(|peer| peer.informed = None);
        }
        self.view = view;
        // An answer to a renewal that was on its way is none about the time after its sending.
        self.outdated_at.take_if(|at| *at < sent);
        let (others, limit) = (&self.view.others, now.saturating_sub(FORGET_TIMEOUT));
        let is_reported = |peer: &PeerNode| peer.reported > now.saturating_sub(PING_TIMEOUT);
        self.peers.retain(|node, peer| peer.alive > limit || is_reported(peer) || others.contains(node));
        if let Some(at) = self.renewed.filter(|_| !self.is_superseded(now)) {
            let until = at.saturating_add(LEASE_TIMEOUT).saturating_sub(LEASE_MARGIN);
            if until > now {
                self.leased_until = self.leased_until.max(until);
            }
        }
        is_new
    }

    /// Takes note that the engine does not answer.
    pub(crate) fn fail(&mut self, failure: EngineFailure, now: Millis) {
        self.lapse(now);
        if failure == EngineFailure::Refused || self.disabled.refused {
            self.refused = Some(now);
        }
        self.extend_by_peers(now);
    }

    /// Gives the lease up, as another node has the address of this one. Names that are claimed after the next
    /// renewal are in a new period.
    pub(crate) fn end(&mut self, now: Millis) {
        self.lapse(now);
        self.end_period();
        (self.renewed, self.refused) = (None, None);
    }

    /// Takes note of a ping of another node, which confirms the last of ours that it received, sent at
    /// `confirms`, and knows the data of `generation` and the nodes `others`. Those unknown here count as
    /// well: they may have started while this node does not reach the engine. Those that are there twice run,
    /// and do not know the sender: this node may be the one that does not reach them.
    pub(crate) fn on_ping(
        &mut self,
        node: NodeId,
        confirms: Millis,
        generation: Generation,
        others: impl IntoIterator<Item = NodeId>,
        now: Millis,
    ) {
        self.lapse(now);
        let disabled = self.disabled;
        let mut named = BTreeSet::new();
        for other in others {
            if !named.insert(other) {
                self.peers.entry(other).or_default().report_running(now);
            } else if !disabled.others {
                self.peers.entry(other).or_default();
            }
        }
        let is_current = generation == self.view.generation || self.disabled.generation;
        let peer = self.peers.entry(node).or_default();
        peer.prove_alive(now);
        (peer.last_ping, peer.generation) = (now, generation);
        if confirms > 0 && confirms >= self.known_since {
            peer.informed.get_or_insert(now);
        }
        if is_current {
            peer.confirmed = peer.confirmed.max(confirms);
        }
        self.extend_by_peers(now);
    }

    /// Takes note that the process of another node runs, as it has proved its key, whether it knows this node
    /// or not.
    pub(crate) fn prove_alive(&mut self, node: NodeId, now: Millis) {
        self.lapse(now);
        if !self.disabled.alive {
            self.peers.entry(node).or_default().prove_alive(now);
        }
    }

    /// Takes note that a process that this node does not know runs at the address of another node. The engine
    /// may have served it, and given it names of this node: confirmations of others count no more until the
    /// engine has answered a later renewal of this node as well.
    pub(crate) fn find_unknown(&mut self, now: Millis) {
        self.lapse(now);
        if self.disabled.unknown {
            return;
        }
        self.outdated_at = Some(now);
        if now < self.leased_until {
            self.confirmed_until = 0;
        } else {
            self.end_period();
        }
    }

    /// Returns true if pings of other nodes are to be confirmed: not by a node that found an unknown process,
    /// which others may not reach.
    pub(crate) fn confirms(&self) -> bool {
        self.outdated_at.is_none()
    }

    /// Takes note that another node has ended: it announced that, or another has its address.
    pub(crate) fn forget(&mut self, node: NodeId, now: Millis) {
        self.lapse(now);
        self.peers.remove(&node);
        self.view.others.retain(|other| *other != node);
    }

    /// Returns the period in which a claim made now is good; `None` if the node may not decide.
    pub(crate) fn period(&mut self, now: Millis) -> Option<u32> {
        self.lapse(now);
        (now < self.until()).then_some(self.period)
    }

    /// Returns the time for which the node may decide without another answer of the engine or of a node.
    pub(crate) fn time_left(&self, now: Millis) -> Millis {
        self.until().saturating_sub(now)
    }

    /// Returns true if names may be taken over from a node whose lease has expired.
    pub(crate) fn may_take_over(&self, from: NodeId, now: Millis) -> bool {
        let ran = self.peers.get(&from).map_or(0, PeerNode::ran);
        now >= ran.saturating_add(PING_TIMEOUT) || self.disabled.ping_timeout
    }

    /// Returns true if another node knows newer data of the engine: a replica was promoted, and the primary
    /// before it still answers this node. Its answers count for nothing then.
    pub(crate) fn is_superseded(&self, now: Millis) -> bool {
        let is_newer = |peer: &PeerNode| {
            peer.generation > self.view.generation && now < peer.last_ping.saturating_add(PING_TIMEOUT)
        };
        self.peers.values().any(is_newer) && !self.disabled.superseded
    }

    /// Returns true if no other node can have a name in other data of the engine than this node knows: each
    /// knows the same data, or has known for long enough that there are these, or does not run. One that runs
    /// and sends no pings does not know of this node, and so goes on without its confirmations.
    pub(crate) fn may_claim(&self, now: Millis) -> bool {
        let is_safe = |peer: &PeerNode| {
            let limit = peer.ran().max(self.known_since).saturating_add(PING_TIMEOUT);
            let has_lapsed = |informed: Millis| now >= informed.saturating_add(DECISION_TIMEOUT);
            let knows = peer.generation == 0 || peer.generation == self.view.generation;
            now >= limit
                || is_recent(peer.last_ping, now)
                    && (knows || peer.informed.is_some_and(has_lapsed) || self.disabled.informed)
        };
        let known = self.view.others.iter().map(|node| self.peers.get(node).copied().unwrap_or_default());
        let running = self.peers.values().filter(|peer| peer.ran() > 0).copied();
        known.chain(running).all(|peer| is_safe(&peer))
    }

    /// Returns the other nodes that run, and do not know this one, and for how long it has been so: they do
    /// not reach the engine, or reach another one.
    pub(crate) fn unaware(&self, now: Millis) -> impl Iterator<Item = (NodeId, Millis)> {
        self.silent(PeerNode::ran, now)
            .map(move |(node, peer)| (node, now.saturating_sub(peer.ran_since.max(peer.last_ping))))
    }

    /// Returns the other nodes that this node has found to run lately, whether they know it or not.
    pub(crate) fn running(&self, now: Millis) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(move |(_, peer)| is_recent(peer.alive, now)).map(|(node, _)| *node)
    }

    /// Returns the nodes that a ping of this node names: those that it knows from the engine, and then, once
    /// more, those that have proved to it that they run, and do not know it. What others reported is not
    /// passed on, as it would go round for ever.
    pub(crate) fn named(&self, now: Millis) -> Vec<NodeId> {
        let unaware: Vec<_> = self.silent(|peer| peer.alive, now).map(|(node, _)| node).collect();
        let unlisted = unaware.iter().filter(|node| !self.view.others.contains(node));
        self.view.others.iter().chain(unlisted).chain(&unaware).copied().collect()
    }

    /// Returns the nodes that ran lately, by the time that `ran` returns, and send no pings.
    fn silent(
        &self,
        ran: impl Fn(&PeerNode) -> Millis,
        now: Millis,
    ) -> impl Iterator<Item = (NodeId, &PeerNode)> {
        let is_silent = move |peer: &PeerNode| is_recent(ran(peer), now) && !is_recent(peer.last_ping, now);
        self.peers.iter().filter(move |(_, peer)| is_silent(peer)).map(|(node, peer)| (*node, peer))
    }

    fn until(&self) -> Millis {
        self.leased_until.max(self.confirmed_until)
    }

    fn lapse(&mut self, now: Millis) {
        if now >= self.until() && !self.disabled.period {
            self.end_period();
        }
    }

    fn end_period(&mut self) {
        if self.until() > 0 {
            self.period = self.period.saturating_add(1);
        }
        (self.leased_until, self.confirmed_until) = (0, 0);
    }

    fn confirm(&mut self, until: Millis, now: Millis) {
        if until > now {
            self.confirmed_until = self.confirmed_until.max(until);
        }
    }

    fn extend_by_peers(&mut self, now: Millis) {
        let is_kept = self.since_renewal(now).is_some_and(|time| time < CONFIRMATIONS_TIMEOUT);
        if !is_kept || self.outdated_at.is_some() {
            return;
        }
        if self.view.others.is_empty() && self.peers.is_empty() {
            // The only node goes on while the engine serves no node. An engine that it cannot reach may serve
            // one that has started since. Nor is silence a failure: a process that was stopped knows of none
            // when it continues, and may no longer be the only one.
            let is_settled = self.view.age >= GENERATION_GRACE;
            if let Some(refused) = self.refused.filter(|_| is_settled) {
                self.confirm(refused.saturating_add(CONFIRMED_TIMEOUT), now);
            }
            return;
        }
        if self.view.others.iter().any(|node| !self.peers.contains_key(node)) {
            return;
        }
        let confirmed = self.peers.values().map(|peer| peer.confirmed).min();
        if let Some(at) = confirmed.filter(|at| *at > 0) {
            self.confirm(at.saturating_add(CONFIRMED_TIMEOUT), now);
        }
    }
}

/// Rules that do not hold. Only tests disable any, to show that each is necessary.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DisabledRules {
    pub(super) generation: bool,
    pub(super) ping_timeout: bool,
    pub(super) period: bool,
    pub(super) superseded: bool,
    /// A node with other data lapses before names are claimed.
    pub(super) informed: bool,
    /// A node that proves its key runs.
    pub(super) alive: bool,
    /// A process that is not known, at the address of a node, ends the confirmations.
    pub(super) unknown: bool,
    /// Nodes that others name have to confirm pings as well.
    pub(super) others: bool,
    /// The only node goes on only while the engine serves no node.
    pub(super) refused: bool,
    /// Claims of an earlier generation are good only until the end of its grace.
    pub(super) kept: bool,
}

/// Returns true if a sign of a process at this time, or none at 0, still counts.
fn is_recent(at: Millis, now: Millis) -> bool {
    at > 0 && now < at.saturating_add(PING_TIMEOUT)
}
