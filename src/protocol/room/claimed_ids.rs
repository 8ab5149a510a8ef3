//! The net ids of the members of a room.

use std::collections::HashMap;

use crate::protocol::model::NetId;

/// A multiset of net ids, as several members can claim the same one. The only id of most rooms is stored in
/// place.
#[derive(Debug, Default)]
pub(super) enum ClaimedIds {
    #[default]
    None,
    One(NetId),
    /// Hashed with a key, as clients choose their net ids.
    #[allow(clippy::box_collection, reason = "few rooms have one, and it would be the size of all of them")]
    Several(Box<HashMap<NetId, u32>>),
}

impl ClaimedIds {
    pub(super) fn add(&mut self, id: NetId) {
        match self {
            ClaimedIds::None => *self = ClaimedIds::One(id),
            ClaimedIds::One(other) => {
                let mut counts = HashMap::from([(*other, 1)]);
                increment(&mut counts, id);
                *self = ClaimedIds::Several(Box::new(counts));
            }
            ClaimedIds::Several(counts) => increment(counts, id),
        }
    }

    pub(super) fn remove(&mut self, id: NetId) {
        match self {
            ClaimedIds::One(one) if *one == id => *self = ClaimedIds::None,
            ClaimedIds::None | ClaimedIds::One(_) => {}
            ClaimedIds::Several(counts) => {
                if let Some(count) = counts.get_mut(&id) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        counts.remove(&id);
                    }
                }
                if counts.is_empty() {
                    *self = ClaimedIds::None;
                }
            }
        }
    }

    pub(super) fn contains(&self, id: NetId) -> bool {
        match self {
            ClaimedIds::None => false,
            ClaimedIds::One(one) => *one == id,
            ClaimedIds::Several(counts) => counts.contains_key(&id),
        }
    }
}

fn increment(counts: &mut HashMap<NetId, u32>, id: NetId) {
    let count = counts.entry(id).or_default();
    *count = count.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_claimed_until_its_last_claim_is_removed() {
        let (a, b) = (NetId(1), NetId(2));
        let mut ids = ClaimedIds::default();
        ids.remove(a);
        for id in [a, a, b] {
            ids.add(id);
            assert!(ids.contains(id));
        }
        ids.remove(a);
        assert!(ids.contains(a) && ids.contains(b));
        ids.remove(a);
        assert!(!ids.contains(a) && ids.contains(b));
        ids.remove(b);
        assert!(matches!(ids, ClaimedIds::None));
        ids.add(b);
        ids.remove(a);
        assert!(ids.contains(b) && !ids.contains(a));
        ids.remove(b);
        assert!(!ids.contains(b));
    }
}
