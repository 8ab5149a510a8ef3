//! The list of the members of a room.

use std::ops::{Deref, DerefMut};

use super::member::Member;

/// Members in order of arrival. Most rooms have one, which is stored in place.
#[derive(Debug, Default)]
pub(super) enum MemberList {
    #[default]
    None,
    One(Member),
    #[allow(clippy::box_collection, reason = "few rooms have one, and it would be the size of all of them")]
    Several(Box<Vec<Member>>),
}

impl MemberList {
    pub(super) fn push(&mut self, member: Member) {
        match self {
            MemberList::None => *self = MemberList::One(member),
            MemberList::One(first) => *self = MemberList::Several(Box::new(vec![*first, member])),
            MemberList::Several(members) => members.push(member),
        }
    }

    /// Removes the member at this position, if there is one.
    pub(super) fn remove(&mut self, at: usize) -> Option<Member> {
        let removed = self.get(at).copied()?;
        match self {
            MemberList::None | MemberList::One(_) => *self = MemberList::None,
            MemberList::Several(members) => {
                members.remove(at);
                if let [only] = members[..] {
                    *self = MemberList::One(only);
                }
            }
        }
        Some(removed)
    }
}

impl Deref for MemberList {
    type Target = [Member];

    fn deref(&self) -> &[Member] {
        match self {
            MemberList::None => &[],
            MemberList::One(member) => std::slice::from_ref(member),
            MemberList::Several(members) => members,
        }
    }
}

impl DerefMut for MemberList {
    fn deref_mut(&mut self) -> &mut [Member] {
        match self {
            MemberList::None => &mut [],
            MemberList::One(member) => std::slice::from_mut(member),
            MemberList::Several(members) => members,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::member::ArrivalSeq;
    use super::*;
    use crate::protocol::model::PeerId;

    /// A list takes no more than a member.
    #[test]
    fn list_is_small() {
        assert_eq!((size_of::<MemberList>(), size_of::<Member>()), (24, 24));
    }

    proptest! {
        #[test]
        fn list_equals_a_vector(steps in prop::collection::vec(prop::option::of(0..4usize), 0..40)) {
            let (mut list, mut vector) = (MemberList::default(), Vec::new());
            for (peer, step) in (0..).map(PeerId).zip(steps) {
                match step {
                    None => {
                        let member = Member { place: ArrivalSeq::MIN, peer, net_id: None };
                        list.push(member);
                        vector.push(member);
                    }
                    Some(at) => {
                        let expected = (at < vector.len()).then(|| vector.remove(at));
                        prop_assert_eq!(list.remove(at), expected);
                    }
                }
                prop_assert_eq!(&list[..], &vector[..]);
                prop_assert_eq!(list.get_mut(0).copied(), vector.first().copied());
                prop_assert_eq!(matches!(list, MemberList::Several(_)), vector.len() > 1);
            }
        }
    }
}
