//! Times at which something is due, by key: a heap whose outdated entries are skipped.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Instant;

/// Entries of the heap per key above which outdated ones are removed.
const MAX_ENTRIES_PER_KEY: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    /// The earliest entry in the heap, which is not later.
    entry: Instant,
}

/// A time per key.
#[derive(Debug)]
pub(super) struct Deadlines<K> {
    due: BTreeMap<K, Due>,
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Copy + Ord> Deadlines<K> {
    pub(super) fn new() -> Self {
        Deadlines { due: BTreeMap::new(), heap: BinaryHeap::new() }
    }

    /// Sets the time of a key; `None` removes it.
    pub(super) fn set(&mut self, key: K, at: Option<Instant>) {
        let Some(at) = at else {
            self.due.remove(&key);
            return;
        };
        let due = self.due.entry(key).or_insert_with(|| {
            self.heap.push(Reverse((at, key)));
            Due { at, entry: at }
        });
        due.at = at;
        // A later time is found when the entry is due: most times are moved on before that.
        if at < due.entry {
            due.entry = at;
            self.heap.push(Reverse((at, key)));
        }
        if self.heap.len() > self.due.len().saturating_mul(MAX_ENTRIES_PER_KEY).saturating_add(64) {
            self.heap = self.due.iter().map(|(key, due)| Reverse((due.at, *key))).collect();
            self.due.values_mut().for_each(|due| due.entry = due.at);
        }
    }

    /// Returns the earliest time, or an earlier one.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Removes and returns a key that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<K> {
        while let Some(Reverse((entry, key))) = self.heap.peek().copied() {
            if entry > now {
                return None;
            }
            self.heap.pop();
            let Some(due) = self.due.get_mut(&key).filter(|due| due.entry == entry) else { continue };
            if due.at <= now {
                self.due.remove(&key);
                return Some(key);
            }
            due.entry = due.at;
            self.heap.push(Reverse((due.at, key)));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_due_as_last_set(steps in prop::collection::vec((0u8..6, prop::option::of(0u64..50), 0u64..5), 0..400)) {
            let start = Instant::now();
            let (mut deadlines, mut expected) = (Deadlines::new(), BTreeMap::new());
            let mut now = start;
            for (key, at, pause) in steps {
                let at = at.map(|at| now + Duration::from_millis(at));
                deadlines.set(key, at);
                expected.remove(&key);
                if let Some(at) = at {
                    expected.insert(key, at);
                }
                now += Duration::from_millis(pause);
                let mut due = Vec::new();
                while let Some(key) = deadlines.take_due(now) {
                    due.push(key);
                }
                due.sort_unstable();
                let late: Vec<u8> = expected.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
                prop_assert_eq!(due, late);
                expected.retain(|_, at| *at > now);
                if let Some(earliest) = expected.values().min() {
                    prop_assert!(deadlines.next().is_some_and(|next| next <= *earliest));
                }
            }
        }
    }
}
