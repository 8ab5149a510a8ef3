//! The ids that the members of a room claim to have.

use std::collections::HashMap;

use crate::model::NetId;

/// How many members claim which id. Most rooms have one member for most of the time: a table for it alone would be
/// 0.1 kB a room.
#[derive(Debug, Default)]
pub(super) enum Claims {
    #[default]
    None,
    One(NetId),
    /// Clients choose these ids, so that their hash is a keyed one.
    #[allow(clippy::box_collection, reason = "few rooms have one, and it would be the size of all of them")]
    Many(Box<HashMap<NetId, u32>>),
}

impl Claims {
    pub(super) fn add(&mut self, id: NetId) {
        match self {
            Claims::None => *self = Claims::One(id),
            Claims::One(other) => {
                let mut many = HashMap::from([(*other, 1)]);
                *many.entry(id).or_default() += 1;
                *self = Claims::Many(Box::new(many));
            }
            Claims::Many(many) => *many.entry(id).or_default() += 1,
        }
    }

    pub(super) fn remove(&mut self, id: NetId) {
        match self {
            Claims::One(one) if *one == id => *self = Claims::None,
            Claims::None | Claims::One(_) => {}
            Claims::Many(many) => {
                if let Some(count) = many.get_mut(&id) {
                    *count -= 1;
                    if *count == 0 {
                        many.remove(&id);
                    }
                }
                if many.is_empty() {
                    *self = Claims::None;
                }
            }
        }
    }

    pub(super) fn contains(&self, id: NetId) -> bool {
        match self {
            Claims::None => false,
            Claims::One(one) => *one == id,
            Claims::Many(many) => many.contains_key(&id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_claimed_until_nobody_claims_it() {
        let (a, b) = (NetId(1), NetId(2));
        let mut claims = Claims::default();
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
        assert!(matches!(claims, Claims::None));
        claims.add(b);
        claims.remove(a);
        assert!(claims.contains(b) && !claims.contains(a));
        claims.remove(b);
        assert!(!claims.contains(b));
    }
}
