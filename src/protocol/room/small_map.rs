//! A small map keyed by ids that this process generates.

use std::hash::Hash;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

/// Largest number of entries that are searched one by one.
const INLINE_MAX: usize = 8;

/// A small map. Up to [`INLINE_MAX`] entries are a list; larger maps use a hash without a key, which is safe
/// because clients cannot choose the ids. Iteration is in order of insertion until an entry is removed.
#[derive(Debug)]
pub(super) enum SmallMap<K, V> {
    Inline(Vec<(K, V)>),
    Hashed(Box<IndexMap<K, V, FxBuildHasher>>),
}

/// A small set of such ids.
pub(super) type SmallSet<K> = SmallMap<K, ()>;

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        SmallMap::Inline(Vec::new())
    }
}

impl<K: Copy + Eq + Hash, V> SmallMap<K, V> {
    pub(super) fn len(&self) -> usize {
        match self {
            SmallMap::Inline(list) => list.len(),
            SmallMap::Hashed(map) => map.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    pub(super) fn get(&self, key: K) -> Option<&V> {
        match self {
            SmallMap::Inline(list) => list.iter().find(|entry| entry.0 == key).map(|entry| &entry.1),
            SmallMap::Hashed(map) => map.get(&key),
        }
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        match self {
            SmallMap::Inline(list) => list.iter_mut().find(|entry| entry.0 == key).map(|entry| &mut entry.1),
            SmallMap::Hashed(map) => map.get_mut(&key),
        }
    }

    /// Returns the value of the key, which is `make()` if it had none.
    #[allow(clippy::indexing_slicing, reason = "the index was found, or is that of the last entry")]
    pub(super) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if let SmallMap::Inline(list) = self
            && list.len() == INLINE_MAX
            && list.iter().all(|entry| entry.0 != key)
        {
            *self = SmallMap::Hashed(Box::new(std::mem::take(list).into_iter().collect()));
        }
        match self {
            SmallMap::Inline(list) => {
                let at = list.iter().position(|entry| entry.0 == key).unwrap_or_else(|| {
                    if list.is_empty() {
                        // Most lists never have a second entry.
                        list.reserve_exact(1);
                    }
                    list.push((key, make()));
                    list.len().saturating_sub(1)
                });
                &mut list[at].1
            }
            SmallMap::Hashed(map) => map.entry(key).or_insert_with(make),
        }
    }

    /// Removes an entry; the last one takes its place.
    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        match self {
            SmallMap::Inline(list) => {
                let at = list.iter().position(|entry| entry.0 == key)?;
                let removed = list.swap_remove(at).1;
                if list.is_empty() {
                    *list = Vec::new();
                }
                Some(removed)
            }
            SmallMap::Hashed(map) => {
                let removed = map.swap_remove(&key);
                // Half of the limit, so that a map at the limit is not converted by every change.
                if map.len() <= INLINE_MAX / 2 {
                    *self = SmallMap::Inline(std::mem::take(&mut **map).into_iter().collect());
                }
                removed
            }
        }
    }

    /// Returns the entries in order.
    fn iter(&self) -> impl DoubleEndedIterator<Item = (K, &V)> {
        let (list, map) = match self {
            SmallMap::Inline(list) => (Some(list.iter().map(|(key, value)| (*key, value))), None),
            SmallMap::Hashed(map) => (None, Some(map.iter().map(|(key, value)| (*key, value)))),
        };
        list.into_iter().flatten().chain(map.into_iter().flatten())
    }

    /// Returns the keys in order.
    pub(super) fn keys(&self) -> impl DoubleEndedIterator<Item = K> {
        self.iter().map(|(key, _)| key)
    }

    /// Returns the values in the order of their keys.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_forms_equal_an_association_list(steps in prop::collection::vec((0u32..24, any::<bool>()), 0..200)) {
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
                prop_assert_eq!(table.values().collect::<Vec<_>>(), list.iter().map(|(_, value)| value).collect::<Vec<_>>());
                prop_assert_eq!((table.len(), table.is_empty()), (list.len(), list.is_empty()));
                for (key, value) in &list {
                    prop_assert_eq!(table.get(*key), Some(value));
                    prop_assert_eq!(table.get_mut(*key).copied(), Some(*value));
                }
                prop_assert!(table.get(99).is_none());
                prop_assert!(matches!(table, SmallMap::Inline(_)) || list.len() > INLINE_MAX / 2);
            }
        }
    }
}
