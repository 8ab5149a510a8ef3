//! The names that a node has or looks for.

use std::hash::Hash;
use std::ops::Range;

use indexmap::IndexMap;
use indexmap::map::Entry;

use super::action::{Action, LossCause};
use super::lease::{EngineView, Lease};
use super::{Claim, EngineFailure, Generation, Millis, NodeId};

/// Time after which a claim without an answer is sent again, with another number.
const CLAIM_TIMEOUT: Millis = 1_000;
/// Time for which the answer counts that another node has a name.
const PLACE_TIMEOUT: Millis = 1_000;
/// Longest time between two claims to a name that is not free yet.
const RETRY_INTERVAL: Millis = 1_000;

/// The place of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// This node has it, and may decide.
    Here,
    /// That node has it.
    At(NodeId),
    /// The place is not known yet; [`Action::Found`] has the time to ask again.
    Unknown,
    /// This node takes no more names.
    Draining,
}

/// The answer of the engine to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimResult {
    /// The name belongs to the claim.
    Granted,
    /// The name belongs to another claim, whose node has a lease for that time.
    Held(Claim, Millis),
    /// The name is not given away for that time.
    Wait(Millis),
    /// The data of the engine are not those of the claim.
    OtherGeneration,
}

/// A name of this node.
#[derive(Clone, Copy, Debug)]
struct OwnedName {
    claim: Claim,
    period: u32,
    /// The data in which the claim is known to be.
    kept: Generation,
    /// Time until which the claim is good though the engine has other data.
    good_until: Millis,
    /// The data that the engine had in between did not have the claim either: another node may have claimed
    /// the name in them, so that it is not kept any more.
    missed: bool,
}

/// A name that this node does not have.
#[derive(Clone, Copy, Debug)]
struct SoughtName {
    state: Search,
    /// Time at which the state ends.
    until: Millis,
    /// The place was asked for, and was unknown.
    wanted: bool,
}

#[derive(Clone, Copy, Debug)]
enum Search {
    /// The claim of that number was sent.
    Claimed { number: u32, period: u32, generation: Generation },
    /// Another node has it.
    At(NodeId),
    /// The name is claimed again later.
    Paused,
}

/// The names of one node, and its lease.
#[derive(Clone, Debug)]
pub(crate) struct Ownership<N> {
    node: NodeId,
    lease: Lease,
    // In the order of their insertion, so that a simulation is the same each time.
    owned: IndexMap<N, OwnedName>,
    sought: IndexMap<N, SoughtName>,
    linked: Vec<NodeId>,
    /// Number of the last claim.
    last: u32,
    /// The engine has all claims of this node.
    ready: bool,
    draining: bool,
    /// Period and generation that [`tick`](Self::tick) has compared the owned names with.
    checked: (Option<u32>, Generation),
    /// Time at which the first of the names is lost that the engine does not have in its data.
    unkept_until: Millis,
    actions: Vec<Action<N>>,
}

impl<N: Clone + Eq + Hash> Ownership<N> {
    /// Creates the state of a node that starts now, with a new id.
    pub(crate) fn new(node: NodeId, now: Millis) -> Self {
        Ownership {
            node,
            lease: Lease::new(now),
            owned: IndexMap::new(),
            sought: IndexMap::new(),
            linked: Vec::new(),
            last: 0,
            ready: false,
            draining: false,
            checked: (None, 0),
            unkept_until: Millis::MAX,
            actions: Vec::new(),
        }
    }

    /// Disables rules, to show that each is necessary.
    #[cfg(test)]
    pub(super) fn disable(&mut self, rules: super::lease::DisabledRules) {
        self.lease.disabled = rules;
    }

    /// Returns the id of the node.
    #[cfg(test)]
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Returns the lease.
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Returns the number of names that the node has.
    pub(crate) fn owned(&self) -> usize {
        self.owned.len()
    }

    /// Returns the names at some places, of which there are [`owned`](Self::owned). The last name takes the
    /// place of one that is removed.
    pub(crate) fn names(&self, places: Range<usize>) -> impl Iterator<Item = &N> {
        self.owned.get_range(places).into_iter().flat_map(|names| names.keys())
    }

    /// Returns true if the engine has all claims of this node, so that new names can be claimed.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Returns the period in which the node may decide, if it may.
    pub(crate) fn period(&mut self, now: Millis) -> Option<u32> {
        self.lease.period(now)
    }

    /// Returns what is to be done since the last call.
    pub(crate) fn take_actions(&mut self) -> Vec<Action<N>> {
        std::mem::take(&mut self.actions)
    }

    /// Returns the claim to a name of this node, if it may decide about it.
    pub(crate) fn claim(&mut self, name: &N, now: Millis) -> Option<Claim> {
        let period = self.lease.period(now);
        let owned = self.owned.get(name)?;
        match self.loss(owned, period, now) {
            None => return Some(owned.claim),
            Some(cause) => self.lose(name, cause),
        }
        None
    }

    /// Returns the place of a name, which is claimed if it is not known.
    pub(crate) fn locate(&mut self, name: &N, now: Millis) -> Place {
        if self.claim(name, now).is_some() {
            return Place::Here;
        }
        match self.sought.get_mut(name) {
            Some(SoughtName { state: Search::At(node), until, .. })
                if now < *until && self.linked.contains(node) =>
            {
                return Place::At(*node);
            }
            Some(sought) if now < sought.until => {
                sought.wanted = true;
                return Place::Unknown;
            }
            Some(_) | None => {}
        }
        if self.draining {
            return Place::Draining;
        }
        self.send_claim(name, None, now);
        Place::Unknown
    }

    /// Forgets the place of a name: the node there does not have it.
    pub(crate) fn forget_place(&mut self, name: &N, now: Millis) {
        if let Some(sought) = self.sought.get_mut(name)
            && matches!(sought.state, Search::At(_))
        {
            sought.until = now;
        }
    }

    /// Frees a name of this node.
    pub(crate) fn release(&mut self, name: &N) {
        if let Some(owned) = self.owned.swap_remove(name) {
            let action = Action::Release { name: name.clone(), claim: owned.claim, generation: owned.kept };
            self.actions.push(action);
        }
    }

    /// Takes no more names from now on.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes note of the answer to a renewal that was sent at `sent`. Returns true if the engine has to be
    /// sent all claims of this node, before it is [ready](Self::engine_ready).
    pub(crate) fn renewed(&mut self, sent: Millis, view: EngineView, now: Millis) -> bool {
        let before = self.lease.generation();
        let is_new = self.lease.renew(sent, view, now);
        if is_new {
            self.ready = false;
            let good_until = self.lease.claims_kept_until();
            for owned in self.owned.values_mut() {
                if owned.kept == before {
                    owned.good_until = good_until;
                } else {
                    owned.missed = true;
                }
            }
            // Others may have them now.
            self.forget_places(|_| true, now);
        }
        self.check(now);
        !self.ready
    }

    /// Returns the names of this node and the claims to them that the engine is to keep.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (&N, Claim)> {
        self.owned.iter().filter(|(_, owned)| !owned.missed).map(|(name, owned)| (name, owned.claim))
    }

    /// Takes note that the engine has kept a claim in its data of `generation`, or that another node has the
    /// name.
    pub(crate) fn kept(&mut self, name: &N, claim: Claim, is_kept: bool, generation: Generation) {
        match self.owned.get_mut(name).filter(|owned| owned.claim == claim) {
            Some(_) if !is_kept => self.lose(name, LossCause::Taken),
            Some(owned) if !owned.missed => owned.kept = generation,
            Some(_) | None => {}
        }
    }

    /// Takes note that the engine has all claims of this node in its data of `generation`.
    pub(crate) fn engine_ready(&mut self, generation: Generation, now: Millis) {
        if self.lease.generation() != generation {
            return;
        }
        if !std::mem::replace(&mut self.ready, true) {
            self.find_all(now);
        }
    }

    /// Takes note that the engine does not answer, or that the connection to it ended.
    pub(crate) fn engine_failed(&mut self, failure: EngineFailure, now: Millis) {
        self.ready = false;
        self.lease.fail(failure, now);
        self.check(now);
    }

    /// Takes note that another node has the address of this one, and that its names are free: they are lost.
    /// A renewal begins again.
    pub(crate) fn replaced(&mut self, now: Millis) {
        self.ready = false;
        self.lease.end(now);
        self.check(now);
    }

    /// Takes note of the answer to a claim.
    pub(crate) fn claim_answered(&mut self, name: &N, claim: Claim, result: ClaimResult, now: Millis) {
        let Entry::Occupied(mut entry) = self.sought.entry(name.clone()) else { return };
        let Search::Claimed { number, period, generation } = entry.get().state else { return };
        // An answer that is late counts for nothing: the claim may have been released since.
        if number != claim.number || now >= entry.get().until {
            return;
        }
        let wanted = entry.get().wanted;
        match result {
            ClaimResult::Granted => {
                entry.swap_remove();
                if self.lease.period(now) == Some(period) && self.lease.generation() == generation {
                    self.owned.insert(
                        name.clone(),
                        OwnedName { claim, period, kept: generation, good_until: 0, missed: false },
                    );
                }
                self.actions.push(Action::Found(name.clone()));
            }
            ClaimResult::Held(holder, 0)
                if holder.node != self.node && self.lease.may_take_over(holder.node, now) =>
            {
                self.send_claim(name, Some(holder), now);
                if let Some(sought) = self.sought.get_mut(name) {
                    sought.wanted = wanted;
                }
            }
            ClaimResult::Held(holder, _) => {
                *entry.get_mut() = SoughtName {
                    state: Search::At(holder.node),
                    until: now.saturating_add(PLACE_TIMEOUT),
                    wanted,
                };
                if self.linked.contains(&holder.node) {
                    self.actions.push(Action::Found(name.clone()));
                }
            }
            ClaimResult::Wait(time) => {
                let until = now.saturating_add(time.clamp(1, RETRY_INTERVAL));
                *entry.get_mut() = SoughtName { state: Search::Paused, until, wanted };
            }
            ClaimResult::OtherGeneration => {
                let until = now.saturating_add(RETRY_INTERVAL);
                *entry.get_mut() = SoughtName { state: Search::Paused, until, wanted };
                self.actions.push(Action::Renew);
            }
        }
    }

    /// Takes note that another node answered that it has a name, while the engine did not answer. That node
    /// decides by itself what it may: this is but the way to it.
    pub(crate) fn found_at(&mut self, name: &N, node: NodeId, now: Millis) {
        let Some(sought) = self.sought.get_mut(name) else { return };
        if matches!(sought.state, Search::Paused) && self.linked.contains(&node) {
            let until = now.saturating_add(PLACE_TIMEOUT);
            *sought = SoughtName { state: Search::At(node), until, wanted: sought.wanted };
            self.actions.push(Action::Found(name.clone()));
        }
    }

    /// Takes note of a ping of another node: see [`Lease::on_ping`].
    pub(crate) fn on_ping(
        &mut self,
        node: NodeId,
        confirms: Millis,
        generation: Generation,
        others: impl IntoIterator<Item = NodeId>,
        now: Millis,
    ) {
        let own = self.node;
        let (was_superseded, could_claim) = (self.lease.is_superseded(now), self.lease.may_claim(now));
        self.lease.on_ping(node, confirms, generation, others.into_iter().filter(|other| *other != own), now);
        if !was_superseded && self.lease.is_superseded(now) {
            self.actions.push(Action::Renew);
        }
        if !could_claim && self.ready && self.lease.may_claim(now) {
            self.find_all(now);
        }
    }

    /// Takes note that the process of another node runs: see [`Lease::prove_alive`].
    pub(crate) fn proved_alive(&mut self, node: NodeId, now: Millis) {
        self.lease.prove_alive(node, now);
    }

    /// Takes note that a process that this node does not know runs at the address of another: see
    /// [`Lease::find_unknown`].
    pub(crate) fn found_unknown(&mut self, now: Millis) {
        self.lease.find_unknown(now);
        self.check(now);
    }

    /// Takes note that commands can be sent to another node, or no longer.
    pub(crate) fn set_linked(&mut self, node: NodeId, is_linked: bool, now: Millis) {
        self.linked.retain(|linked| *linked != node);
        if is_linked {
            self.linked.push(node);
            let at_node = |state: &Search| matches!(state, Search::At(at) if *at == node);
            let found = self.sought.iter().filter(|(_, sought)| sought.wanted && at_node(&sought.state));
            self.actions.extend(found.map(|(name, _)| Action::Found(name.clone())));
        } else {
            self.forget_places(|at| at == node, now);
        }
    }

    /// Takes note that another node has ended: it announced that, or another has its address.
    pub(crate) fn ended(&mut self, node: NodeId, now: Millis) {
        self.lease.forget(node, now);
        self.set_linked(node, false, now);
    }

    /// Handles what is due. To be called several times a second.
    pub(crate) fn tick(&mut self, now: Millis) {
        self.check(now);
        let actions = &mut self.actions;
        self.sought.retain(|name, sought| {
            let is_over = now >= sought.until;
            if is_over && sought.wanted {
                actions.push(Action::Found(name.clone()));
            }
            !is_over
        });
    }

    /// Returns the cause for which this node may no longer decide about a name; `None` if it may.
    fn loss(&self, owned: &OwnedName, period: Option<u32>, now: Millis) -> Option<LossCause> {
        let is_kept = owned.kept == self.lease.generation() || now < owned.good_until;
        if Some(owned.period) != period {
            return Some(LossCause::Lapsed);
        }
        (!is_kept).then_some(LossCause::Forgotten)
    }

    /// Loses the names that this node may no longer decide about.
    fn check(&mut self, now: Millis) {
        let period = self.lease.period(now);
        let state = (period, self.lease.generation());
        if std::mem::replace(&mut self.checked, state) == state && now < self.unkept_until {
            return;
        }
        let owned = self.owned.iter();
        let lost: Vec<(N, LossCause)> =
            owned.filter_map(|(name, owned)| Some((name.clone(), self.loss(owned, period, now)?))).collect();
        lost.iter().for_each(|(name, cause)| self.lose(name, *cause));
        let unkept = self.owned.values().filter(|owned| owned.kept != self.lease.generation());
        self.unkept_until = unkept.map(|owned| owned.good_until).min().unwrap_or(Millis::MAX);
    }

    fn lose(&mut self, name: &N, cause: LossCause) {
        if self.owned.swap_remove(name).is_some() {
            self.actions.push(Action::Close(name.clone(), cause));
        }
    }

    fn send_claim(&mut self, name: &N, over: Option<Claim>, now: Millis) {
        let may_claim = self.ready && self.lease.may_claim(now);
        let period = self.lease.period(now).filter(|_| may_claim);
        let Some(period) = period else {
            let until = now.saturating_add(RETRY_INTERVAL);
            self.sought.insert(name.clone(), SoughtName { state: Search::Paused, until, wanted: true });
            // A room that exists stays open for those who reach a node that the engine does not.
            self.actions.push(Action::Ask(name.clone()));
            return;
        };
        self.last = self.last.saturating_add(1);
        let (number, generation) = (self.last, self.lease.generation());
        let state = Search::Claimed { number, period, generation };
        self.sought.insert(
            name.clone(),
            SoughtName { state, until: now.saturating_add(CLAIM_TIMEOUT), wanted: true },
        );
        let claim = Claim { node: self.node, number };
        self.actions.push(Action::Claim { name: name.clone(), claim, over, generation });
    }

    /// Forgets the names at nodes for which `matches` is true.
    fn forget_places(&mut self, matches: impl Fn(NodeId) -> bool, now: Millis) {
        for sought in self.sought.values_mut() {
            if let Search::At(node) = sought.state
                && matches(node)
            {
                sought.until = now;
            }
        }
    }

    /// Has the names claimed that could not be.
    fn find_all(&mut self, now: Millis) {
        for (name, sought) in &mut self.sought {
            if matches!(sought.state, Search::Paused) {
                sought.until = now;
            }
            if sought.wanted {
                self.actions.push(Action::Found(name.clone()));
            }
        }
    }
}
