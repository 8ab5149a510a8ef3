//! The members of a room, and the choice of one for a joiner.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;

use super::claimed_ids::ClaimedIds;
use super::member::{ArrivalSeq, Identity, Member};
use super::member_list::MemberList;
use super::tried::{SearchPosition, TriedMembers};
use crate::protocol::model::{NetId, PeerId};

/// Largest number of members whose net ids are compared one by one.
const FEW: usize = 8;

/// The members of a room in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Sorted by place.
    by_arrival: MemberList,
    /// Number of members that were added. Places are not reused, as searches remember them.
    arrivals: u64,
    /// Boxed, as most rooms have none.
    index: Option<Box<MemberIndex>>,
    /// Changes when a member that a search has passed may have to be visited again.
    revision: u32,
    /// The oldest member is chosen only while it is the only one. No other member can be tentative, as peers
    /// become tentative members in empty rooms only.
    oldest_is_tentative: bool,
}

/// Members by what they are searched for. Most rooms need no index.
#[derive(Debug, Default)]
struct MemberIndex {
    /// Places of the preferred members.
    preferred: BTreeSet<ArrivalSeq>,
    /// The net ids of all members, if there are many.
    claimed_ids: Option<ClaimedIds>,
}

#[cfg(test)]
thread_local! {
    /// Number of members visited by searches.
    pub(super) static VISITED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
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
    pub(super) fn add(&mut self, peer: PeerId, net_id: Option<NetId>, preferred: bool) -> ArrivalSeq {
        let place = ArrivalSeq::MIN.saturating_add(self.arrivals);
        self.arrivals = self.arrivals.saturating_add(1);
        self.by_arrival.push(Member { place, peer, net_id });
        if preferred {
            self.index.get_or_insert_default().preferred.insert(place);
        }
        if let Some(claimed_ids) = self.claimed_ids() {
            claimed_ids.extend(net_id);
        } else if self.by_arrival.len() > FEW {
            let claimed_ids = self.index.get_or_insert_default().claimed_ids.insert(ClaimedIds::default());
            claimed_ids.extend(self.by_arrival.iter().filter_map(|member| member.net_id));
        }
        place
    }

    /// Changes the net id of a member, which keeps its place.
    pub(super) fn update_net_id(&mut self, place: ArrivalSeq, net_id: Option<NetId>, preferred: bool) {
        let Some(member) = self.index_of(place).and_then(|at| self.by_arrival.get_mut(at)) else { return };
        let previous = std::mem::replace(&mut member.net_id, net_id);
        let mut changed = previous != net_id;
        if let Some(claimed_ids) = self.claimed_ids().filter(|_| changed) {
            previous.into_iter().for_each(|id| claimed_ids.remove(id));
            claimed_ids.extend(net_id);
        }
        if preferred {
            changed |= self.index.get_or_insert_default().preferred.insert(place);
        }
        if changed {
            self.restart_searches();
        }
    }

    pub(super) fn remove(&mut self, place: ArrivalSeq) {
        let Some(at) = self.index_of(place) else { return };
        let removed = self.by_arrival.remove(at);
        if let Some(index) = &mut self.index {
            index.preferred.remove(&place);
            // Half of the limit, so that a room at the limit is not counted again by every change.
            index.claimed_ids.take_if(|_| self.by_arrival.len() <= FEW / 2);
            if let (Some(claimed_ids), Some(net_id)) =
                (&mut index.claimed_ids, removed.and_then(|member| member.net_id))
            {
                claimed_ids.remove(net_id);
            }
        }
        if at == 0 {
            self.oldest_is_tentative = false;
        } else if self.all_tentative() {
            self.restart_searches();
        }
    }

    /// Returns true if a member has this net id.
    pub(super) fn has_net_id(&self, id: NetId) -> bool {
        match self.index.as_ref().and_then(|index| index.claimed_ids.as_ref()) {
            Some(claimed_ids) => claimed_ids.contains(id),
            None => self.by_arrival.iter().any(|member| member.net_id == Some(id)),
        }
    }

    fn claimed_ids(&mut self) -> Option<&mut ClaimedIds> {
        self.index.as_mut()?.claimed_ids.as_mut()
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
        let current: HashSet<Identity> = self.by_arrival.iter().map(Member::identity).collect();
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
        if let Some(MemberIndex { preferred, .. }) = self.index.as_deref() {
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
        VISITED.set(VISITED.get() + 1);
        !tried.contains(member.identity())
    }
}
