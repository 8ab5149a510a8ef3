//! The members of a room, and the choice of one for a joiner.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;

use smallvec::SmallVec;

use super::member::{ArrivalSeq, Identity, Member};
use super::tried::{SearchPosition, TriedMembers};
use crate::protocol::model::PeerId;

/// The members of a room in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Sorted by place. Most rooms have one member, which is stored in place.
    by_arrival: SmallVec<[Member; 1]>,
    /// Number of members that were added. Places are not reused, as searches remember them.
    arrivals: u64,
    /// Places of the preferred members.
    #[allow(clippy::box_collection, reason = "most rooms have none, and there are many")]
    preferred: Option<Box<BTreeSet<ArrivalSeq>>>,
    /// Changes when a member that a search has passed may have to be visited again.
    revision: u32,
    /// The oldest member is chosen only while it is the only one. No other member can be tentative, as peers
    /// become tentative members in empty rooms only.
    oldest_is_tentative: bool,
    /// Number of members visited by searches.
    #[cfg(test)]
    pub(super) visited: std::cell::Cell<usize>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_arrival.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_arrival.is_empty()
    }

    /// Returns the members in order of arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_arrival.iter()
    }

    /// Returns true if no member is a confirmed one.
    pub(super) fn all_tentative(&self) -> bool {
        self.len() == usize::from(self.oldest_is_tentative)
    }

    pub(super) fn any_tentative(&self) -> bool {
        self.oldest_is_tentative
    }

    /// Marks the only member as tentative.
    pub(super) fn mark_tentative(&mut self) {
        self.oldest_is_tentative = self.len() == 1;
    }

    /// Removes the tentative mark of a member, if it has it.
    pub(super) fn confirm(&mut self, place: ArrivalSeq) {
        if self.oldest_is_tentative && self.by_arrival.first().is_some_and(|oldest| oldest.place == place) {
            self.oldest_is_tentative = false;
            self.restart_searches();
        }
    }

    /// Appends a member and returns its place.
    pub(super) fn add(&mut self, peer: PeerId, identity: Identity, preferred: bool) -> ArrivalSeq {
        let place = ArrivalSeq::MIN.saturating_add(self.arrivals);
        self.arrivals = self.arrivals.saturating_add(1);
        self.by_arrival.push(Member { place, peer, identity });
        if preferred {
            self.preferred.get_or_insert_default().insert(place);
        }
        place
    }

    /// Changes the identity of a member, which keeps its place.
    pub(super) fn update_identity(&mut self, place: ArrivalSeq, identity: Identity, preferred: bool) {
        let Some(member) = self.index_of(place).and_then(|at| self.by_arrival.get_mut(at)) else { return };
        let mut changed = std::mem::replace(&mut member.identity, identity) != identity;
        if preferred {
            changed |= self.preferred.get_or_insert_default().insert(place);
        }
        if changed {
            self.restart_searches();
        }
    }

    pub(super) fn remove(&mut self, place: ArrivalSeq) {
        let Some(at) = self.index_of(place) else { return };
        self.by_arrival.remove(at);
        if let Some(preferred) = &mut self.preferred {
            preferred.remove(&place);
        }
        if at == 0 {
            self.oldest_is_tentative = false;
        } else if self.all_tentative() {
            self.restart_searches();
        }
    }

    fn restart_searches(&mut self) {
        self.revision = self.revision.wrapping_add(1);
    }

    fn index_of(&self, place: ArrivalSeq) -> Option<usize> {
        self.by_arrival.binary_search_by_key(&place, |member| member.place).ok()
    }

    /// Removes the identities that no member has, so that a joiner remembers no more of them than there are
    /// members.
    pub(super) fn prune(&self, tried: &mut TriedMembers) {
        let current: HashSet<Identity> = self.by_arrival.iter().map(|member| member.identity).collect();
        tried.retain(|identity| current.contains(&identity));
    }

    /// Returns the members to choose from in order of arrival: the confirmed ones, or all if there is none.
    fn candidates(&self) -> &[Member] {
        match self.by_arrival.split_first() {
            Some((_, confirmed)) if self.oldest_is_tentative && !confirmed.is_empty() => confirmed,
            Some(_) | None => &self.by_arrival,
        }
    }

    /// Returns the candidate that has been a member the longest.
    pub(super) fn oldest(&self) -> Option<Member> {
        self.candidates().first().copied()
    }

    /// Returns a candidate, each with the same probability.
    pub(super) fn random(&self, rng: &mut fastrand::Rng) -> Option<Member> {
        rng.choice(self.candidates()).copied()
    }

    /// Returns the first preferred member that is not among the tried, else the first such candidate.
    ///
    /// The search continues where the last one of the joiner ended, so that repeated searches do not visit
    /// all members that were tried before.
    pub(super) fn next_untried(&self, tried: &mut TriedMembers) -> Option<Member> {
        let mut position = tried.position(self.revision);
        let found = self.search(&mut position, tried);
        tried.set_position(position);
        found
    }

    fn search(&self, position: &mut SearchPosition, tried: &TriedMembers) -> Option<Member> {
        if let Some(preferred) = &self.preferred {
            let begin = position.preferred.map_or(Bound::Unbounded, Bound::Excluded);
            for place in preferred.range((begin, Bound::Unbounded)) {
                let member = self.index_of(*place).and_then(|at| self.by_arrival.get(at));
                if let Some(member) = member.filter(|member| self.is_untried(member, tried)) {
                    return Some(*member);
                }
                position.preferred = Some(*place);
            }
        }
        let candidates = self.candidates();
        let begin = candidates.partition_point(|member| Some(member.place) <= position.arrival);
        for member in candidates.iter().skip(begin) {
            if self.is_untried(member, tried) {
                return Some(*member);
            }
            position.arrival = Some(member.place);
        }
        None
    }

    fn is_untried(&self, member: &Member, tried: &TriedMembers) -> bool {
        #[cfg(test)]
        self.visited.set(self.visited.get() + 1);
        !tried.contains(member.identity)
    }
}
