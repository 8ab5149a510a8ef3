//! Tables by ids that we give out ourselves: counted, or drawn at random. Nobody can choose them so that they collide,
//! so they need no keyed hash: every look into one is a multiplication. And most have one entry or none, for which they
//! are a short list: no table to hash into, and 0.1 kB less for each room and each peer.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use indexmap::IndexMap;

/// The longest list, in entries: up to so many are compared as quickly as one is hashed.
const INLINE_MAX: usize = 8;

/// A map by such an id. Its order is that of insertion, until something is removed.
#[derive(Debug)]
pub(super) enum SmallMap<K, V> {
    Inline(Vec<(K, V)>),
    Hashed(Box<IndexMap<K, V, BuildHasherDefault<IdHasher>>>),
}

/// A set of such ids.
pub(super) type SmallSet<K> = SmallMap<K, ()>;

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        SmallMap::Inline(Vec::new())
    }
}

impl<K: Copy + Eq + Hash, V> SmallMap<K, V> {
    pub(super) fn len(&self) -> usize {
        match self {
            SmallMap::Inline(few) => few.len(),
            SmallMap::Hashed(many) => many.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn contains(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn get(&self, key: K) -> Option<&V> {
        match self {
            SmallMap::Inline(few) => few.iter().find(|entry| entry.0 == key).map(|entry| &entry.1),
            SmallMap::Hashed(many) => many.get(&key),
        }
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        match self {
            SmallMap::Inline(few) => few.iter_mut().find(|entry| entry.0 == key).map(|entry| &mut entry.1),
            SmallMap::Hashed(many) => many.get_mut(&key),
        }
    }

    /// The value of the key; if it has none, that which is made.
    pub(super) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if let SmallMap::Inline(few) = self
            && few.len() == INLINE_MAX
            && few.iter().all(|entry| entry.0 != key)
        {
            *self = SmallMap::Hashed(Box::new(std::mem::take(few).into_iter().collect()));
        }
        match self {
            SmallMap::Inline(few) => {
                let at = few.iter().position(|entry| entry.0 == key).unwrap_or_else(|| {
                    if few.is_empty() {
                        // Nearly always it stays alone.
                        few.reserve_exact(1);
                    }
                    few.push((key, make()));
                    few.len() - 1
                });
                &mut few[at].1
            }
            SmallMap::Hashed(many) => many.entry(key).or_insert_with(make),
        }
    }

    /// The last entry takes the place of the removed one.
    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        match self {
            SmallMap::Inline(few) => {
                let at = few.iter().position(|entry| entry.0 == key)?;
                let removed = few.swap_remove(at).1;
                if few.is_empty() {
                    *few = Vec::new();
                }
                Some(removed)
            }
            SmallMap::Hashed(many) => {
                let removed = many.swap_remove(&key);
                // Not as soon as it could: at the border, each coming and going would be a move.
                if many.len() <= INLINE_MAX / 2 {
                    *self = SmallMap::Inline(std::mem::take(&mut **many).into_iter().collect());
                }
                removed
            }
        }
    }

    /// The keys, in order.
    pub(super) fn keys(&self) -> impl DoubleEndedIterator<Item = K> {
        let (few, many) = match self {
            SmallMap::Inline(few) => (Some(few.iter().map(|entry| entry.0)), None),
            SmallMap::Hashed(many) => (None, Some(many.keys().copied())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }
}

/// Spreads a number over all bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The product's upper bits depend on all of the number's: the tables look at both ends.
        self.0.rotate_left(32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What it does is what a list does, whichever form it has.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u32..24, any::<bool>()), 0..200)) {
            let (mut table, mut list) = (SmallMap::default(), Vec::new());
            for (key, insert) in steps {
                let at = list.iter().position(|(other, _)| *other == key);
                if insert {
                    table.get_or_insert_with(key, || list.len());
                    if at.is_none() {
                        list.push((key, list.len()));
                    }
                } else {
                    prop_assert_eq!(table.remove(key), at.map(|at| list.swap_remove(at).1));
                }
                prop_assert_eq!(table.keys().collect::<Vec<_>>(), list.iter().map(|(key, _)| *key).collect::<Vec<_>>());
                prop_assert_eq!((table.len(), table.is_empty()), (list.len(), list.is_empty()));
                for (key, value) in &list {
                    prop_assert_eq!(table.get(*key), Some(value));
                    prop_assert_eq!(table.get_mut(*key).copied(), Some(*value));
                }
                prop_assert!(!table.contains(99));
                prop_assert!(matches!(table, SmallMap::Inline(_)) || list.len() > INLINE_MAX / 2);
            }
        }
    }
}
