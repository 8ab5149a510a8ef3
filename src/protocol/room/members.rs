//! Which member a joiner is bound to. Only the choice lives here; the binding is the room's.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroU64;

use smallvec::SmallVec;

use crate::protocol::model::{NetId, PeerId};

/// By what a joiner remembers a member it has tried: the id it claims, as a client that reconnects keeps it, or
/// else its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    Claimed(NetId),
    Connection(PeerId),
}

/// Where a member is in the order of arrival. Not zero: a peer that has none knows it without a byte more.
pub(super) type ArrivalSeq = NonZeroU64;

/// The members of a room in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// With their places, each after the one before. A list, as a tree has room for eleven where there is one (0.3 kB a
    /// room); of one member, as in most rooms, in place.
    by_arrival: SmallVec<[(ArrivalSeq, PeerId, Identity); 1]>,
    /// Boxed: in most rooms no member is marked.
    marks: Option<Box<MemberFlags>>,
}

/// Members that are not chosen like the others, by their places.
#[derive(Debug, Default)]
struct MemberFlags {
    /// Those to be preferred.
    preferred: BTreeSet<ArrivalSeq>,
    /// Those to be chosen only when there is no other.
    tentative: BTreeSet<ArrivalSeq>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_arrival.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_arrival.is_empty()
    }

    /// Whether none of the members is proven.
    pub(super) fn all_tentative(&self) -> bool {
        self.by_arrival.len() == self.tentative()
    }

    fn tentative(&self) -> usize {
        self.marks.as_ref().map_or(0, |marks| marks.tentative.len())
    }

    /// Whether there are members that are not proven.
    pub(super) fn any_tentative(&self) -> bool {
        self.tentative() > 0
    }

    /// The member is to be chosen only when there is no other.
    pub(super) fn mark_tentative(&mut self, place: ArrivalSeq) {
        self.marks.get_or_insert_default().tentative.insert(place);
    }

    /// The member is one like the others.
    pub(super) fn confirm(&mut self, place: ArrivalSeq) {
        if let Some(marks) = &mut self.marks {
            marks.tentative.remove(&place);
        }
    }

    /// Adds a member at the end; returns its place.
    pub(super) fn add(&mut self, peer: PeerId, identity: Identity, preferred: bool) -> ArrivalSeq {
        let place = self.by_arrival.last().map_or(ArrivalSeq::MIN, |last| last.0.saturating_add(1));
        self.by_arrival.push((place, peer, identity));
        if preferred {
            self.marks.get_or_insert_default().preferred.insert(place);
        }
        place
    }

    /// A member changes the id it claims, and keeps its place.
    pub(super) fn update_identity(&mut self, place: ArrivalSeq, identity: Identity, preferred: bool) {
        if let Ok(at) = self.find(place) {
            self.by_arrival[at].2 = identity;
        }
        if preferred {
            self.marks.get_or_insert_default().preferred.insert(place);
        }
    }

    /// Where in the list a place is.
    fn find(&self, place: ArrivalSeq) -> Result<usize, usize> {
        self.by_arrival.binary_search_by_key(&place, |(place, ..)| *place)
    }

    pub(super) fn remove(&mut self, place: ArrivalSeq) {
        if let Ok(at) = self.find(place) {
            self.by_arrival.remove(at);
        }
        if let Some(marks) = &mut self.marks {
            marks.preferred.remove(&place);
            marks.tentative.remove(&place);
        }
    }

    /// Forgets what is no member's: who tries again and again does not remember more than there is.
    pub(super) fn prune(&self, tried: &mut Vec<Identity>) {
        let here: HashSet<Identity> = self.by_arrival.iter().map(|(_, _, identity)| *identity).collect();
        tried.retain(|identity| here.contains(identity));
    }

    /// The members to choose from, in order of arrival: the proven ones, or all if there is none.
    fn candidates(&self) -> impl Iterator<Item = (PeerId, Identity)> {
        let all = self.all_tentative();
        let proven =
            move |place| all || self.marks.as_ref().is_none_or(|marks| !marks.tentative.contains(place));
        self.by_arrival
            .iter()
            .filter(move |(place, ..)| proven(place))
            .map(|(_, peer, identity)| (*peer, *identity))
    }

    /// The member that has been here the longest.
    pub(super) fn oldest(&self) -> Option<(PeerId, Identity)> {
        self.candidates().next()
    }

    /// Any member, each as likely as the other.
    pub(super) fn random(&self, rng: &mut fastrand::Rng) -> Option<(PeerId, Identity)> {
        let choice = if self.all_tentative() { self.len() } else { self.len() - self.tentative() };
        if choice == 0 {
            return None;
        }
        self.candidates().nth(rng.usize(..choice))
    }

    /// The first preferred, else the first, that is not among the tried.
    pub(super) fn next_untried(&self, tried: &[Identity]) -> Option<(PeerId, Identity)> {
        let preferred = self.marks.iter().flat_map(|marks| &marks.preferred).filter_map(|place| {
            let (_, peer, identity) = self.by_arrival.get(self.find(*place).ok()?)?;
            Some((*peer, *identity))
        });
        preferred.chain(self.candidates()).find(|(_, identity)| !tried.contains(identity))
    }
}
