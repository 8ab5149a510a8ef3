//! A value split into shards with a lock each, so that tasks on several cores rarely wait for one another.

use parking_lot::Mutex;

/// Values of type `T`, each behind its own lock.
#[derive(Debug)]
pub(crate) struct Sharded<T>(Box<[Mutex<T>]>);

impl<T: Default> Sharded<T> {
    /// Creates `count` shards, at least one.
    pub(crate) fn new(count: usize) -> Self {
        Sharded((0..count.max(1)).map(|_| Mutex::default()).collect())
    }
}

impl<T> Sharded<T> {
    /// Returns the shard of a number: of a hash, or of an id that is counted.
    pub(crate) fn get(&self, number: u64) -> &Mutex<T> {
        // The remainder is below the length, and so a valid index.
        &self.0[(number % self.0.len() as u64) as usize]
    }

    /// Returns all shards, to be locked one at a time.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mutex<T>> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_over_all_shards() {
        let sharded = Sharded::<u32>::new(4);
        (0..8).for_each(|number| *sharded.get(number).lock() += 1);
        assert_eq!(sharded.iter().map(|shard| *shard.lock()).collect::<Vec<_>>(), [2; 4]);
        assert_eq!(Sharded::<u32>::new(0).iter().count(), 1);
    }
}
