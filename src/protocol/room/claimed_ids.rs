//! The ids that the members of a room claim to have.

use std::collections::HashMap;

use crate::protocol::model::NetId;

/// How many members claim which id. Most rooms have one member for most of the time: a table for it alone would be
/// 0.1 kB a room.
#[derive(Debug, Default)]
pub(super) enum ClaimedIds {
    #[default]
    None,
    One(NetId),
    /// Clients choose these ids, so that their hash is a keyed one.
    #[allow(clippy::box_collection, reason = "few rooms have one, and it would be the size of all of them")]
    Many(Box<HashMap<NetId, u32>>),
}

impl ClaimedIds {
    pub(super) fn add(&mut self, id: NetId) {
        match self {
            ClaimedIds::None => *self = ClaimedIds::One(id),
            ClaimedIds::One(other) => {
                let mut many = HashMap::from([(*other, 1)]);
                *many.entry(id).or_default() += 1;
                *self = ClaimedIds::Many(Box::new(many));
            }
            ClaimedIds::Many(many) => *many.entry(id).or_default() += 1,
        }
    }

    pub(super) fn remove(&mut self, id: NetId) {
        match self {
            ClaimedIds::One(one) if *one == id => *self = ClaimedIds::None,
            ClaimedIds::None | ClaimedIds::One(_) => {}
            ClaimedIds::Many(many) => {
                if let Some(count) = many.get_mut(&id) {
                    *count -= 1;
                    if *count == 0 {
                        many.remove(&id);
                    }
                }
                if many.is_empty() {
                    *self = ClaimedIds::None;
                }
            }
        }
    }

    pub(super) fn contains(&self, id: NetId) -> bool {
        match self {
            ClaimedIds::None => false,
            ClaimedIds::One(one) => *one == id,
            ClaimedIds::Many(many) => many.contains_key(&id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_claimed_until_nobody_claims_it() {
        let (a, b) = (NetId(1), NetId(2));
        let mut claims = ClaimedIds::default();
        claims.remove(a);
        for id in [a, a, b] {
            claims.add(id);
            assert!(claims.contains(id));
        }
        claims.remove(a);
        assert!(claims.contains(a) && claims.contains(b));
        claims.remove(a);
        assert!(!claims.contains(a) && claims.contains(b));
        claims.remove(b);
        assert!(matches!(claims, ClaimedIds::None));
        claims.add(b);
        claims.remove(a);
        assert!(claims.contains(b) && !claims.contains(a));
        claims.remove(b);
        assert!(!claims.contains(b));
    }
}
