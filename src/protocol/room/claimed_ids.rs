//! The net ids of the members of a room that has many.

use std::collections::HashMap;

use crate::protocol::model::NetId;

/// A multiset of net ids, as several members can claim the same one.
#[derive(Debug, Default)]
pub(super) struct ClaimedIds {
    /// Hashed with a key, as clients choose their net ids.
    counts: HashMap<NetId, u32>,
}

impl ClaimedIds {
    pub(super) fn add(&mut self, id: NetId) {
        let count = self.counts.entry(id).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn remove(&mut self, id: NetId) {
        if let Some(count) = self.counts.get_mut(&id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&id);
            }
        }
    }

    pub(super) fn contains(&self, id: NetId) -> bool {
        self.counts.contains_key(&id)
    }
}

impl Extend<NetId> for ClaimedIds {
    fn extend<I: IntoIterator<Item = NetId>>(&mut self, ids: I) {
        ids.into_iter().for_each(|id| self.add(id));
    }
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
        ids.extend([a, a]);
        ids.remove(a);
        assert!(ids.contains(a));
        ids.remove(b);
        assert!(!ids.contains(b));
    }
}
