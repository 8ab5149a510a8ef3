//! An opener's joiners by index, which counts them in the order of arrival and is never reused (sigver 1 to
//! 7.1).

use std::collections::{HashMap, VecDeque};

use super::MAX_JOINERS;
use crate::protocol::model::LinkId;

/// An opener's joiners by index.
#[derive(Debug, Default)]
pub(super) struct JoinerIndex {
    latest: VecDeque<LinkId>,
    index: HashMap<LinkId, usize>,
    /// Number of joiners before the latest ones.
    forgotten: usize,
}

impl JoinerIndex {
    /// Returns the index of a joiner, and gives it one if it has none.
    pub(super) fn index_or_insert(&mut self, link: LinkId) -> usize {
        if let Some(index) = self.index.get(&link) {
            return *index;
        }
        if self.latest.len() == MAX_JOINERS
            && let Some(oldest) = self.latest.pop_front()
        {
            self.index.remove(&oldest);
            self.forgotten = self.forgotten.saturating_add(1);
        }
        let index = self.forgotten.saturating_add(self.latest.len());
        self.latest.push_back(link);
        self.index.insert(link, index);
        index
    }

    /// Returns the joiner of an index.
    pub(super) fn get(&self, index: usize) -> Option<LinkId> {
        self.latest.get(index.checked_sub(self.forgotten)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_joiner_is_forgotten_at_the_limit() {
        let mut joiners = JoinerIndex::default();
        for link in 1..=MAX_JOINERS as u32 + 2 {
            joiners.index_or_insert(LinkId(link));
        }
        assert_eq!((joiners.get(0), joiners.get(1)), (None, None));
        assert_eq!(joiners.get(2), Some(LinkId(3)));
        assert_eq!(joiners.get(MAX_JOINERS + 1), Some(LinkId(MAX_JOINERS as u32 + 2)));
        assert_eq!(joiners.get(MAX_JOINERS + 2), None);
    }
}
