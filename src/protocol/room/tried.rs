//! The members that a joiner has tried, and how far its search for another one got.

use std::collections::HashSet;

use super::member::{ArrivalSeq, Identity};

/// The members that a joiner has tried. Most joiners try one, which is stored in place.
#[derive(Debug, Default)]
pub(super) enum TriedMembers {
    #[default]
    None,
    One(Identity),
    Several(Box<TriedSet>),
}

#[derive(Debug)]
pub(super) struct TriedSet {
    /// Hashed with a key, as clients choose their net ids.
    identities: HashSet<Identity>,
    position: SearchPosition,
}

/// The position of a joiner in the two orders in which members are searched. All candidates up to it have
/// been tried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SearchPosition {
    /// The revision of the member list for which the position holds.
    pub(super) revision: u32,
    /// The last preferred member that was passed.
    pub(super) preferred: Option<ArrivalSeq>,
    /// The last member that was passed.
    pub(super) arrival: Option<ArrivalSeq>,
}

impl TriedMembers {
    pub(super) fn len(&self) -> usize {
        match self {
            TriedMembers::None => 0,
            TriedMembers::One(_) => 1,
            TriedMembers::Several(set) => set.identities.len(),
        }
    }

    pub(super) fn contains(&self, identity: Identity) -> bool {
        match self {
            TriedMembers::None => false,
            TriedMembers::One(one) => *one == identity,
            TriedMembers::Several(set) => set.identities.contains(&identity),
        }
    }

    pub(super) fn insert(&mut self, identity: Identity) {
        match self {
            TriedMembers::None => *self = TriedMembers::One(identity),
            TriedMembers::One(one) if *one == identity => {}
            TriedMembers::One(one) => {
                let identities = HashSet::from([*one, identity]);
                let set = TriedSet { identities, position: SearchPosition::default() };
                *self = TriedMembers::Several(Box::new(set));
            }
            TriedMembers::Several(set) => {
                set.identities.insert(identity);
            }
        }
    }

    pub(super) fn retain(&mut self, keep: impl Fn(Identity) -> bool) {
        match self {
            TriedMembers::One(one) if !keep(*one) => *self = TriedMembers::None,
            TriedMembers::None | TriedMembers::One(_) => {}
            TriedMembers::Several(set) => set.identities.retain(|identity| keep(*identity)),
        }
    }

    /// Returns where to continue the search in a member list of this revision.
    pub(super) fn position(&self, revision: u32) -> SearchPosition {
        let beginning = SearchPosition { revision, ..SearchPosition::default() };
        match self {
            TriedMembers::Several(set) if set.position.revision == revision => set.position,
            TriedMembers::None | TriedMembers::One(_) | TriedMembers::Several(_) => beginning,
        }
    }

    pub(super) fn set_position(&mut self, position: SearchPosition) {
        match self {
            TriedMembers::Several(set) => set.position = position,
            // There is at most one identity to pass again.
            TriedMembers::None | TriedMembers::One(_) => {}
        }
    }
}
