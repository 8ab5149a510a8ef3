//! An opener's joiners by index: their places in the order in which they came, never reused (sigver 1 to 7.1).

use std::collections::{HashMap, VecDeque};

use super::MAX_JOINERS;
use crate::protocol::model::LinkId;

/// An opener's joiners by index.
#[derive(Debug, Default)]
pub(super) struct JoinerIndex {
    latest: VecDeque<LinkId>,
    index: HashMap<LinkId, usize>,
    /// How many came before the latest.
    forgotten: usize,
}

impl JoinerIndex {
    /// The index of a joiner, which is a new one if it is not known.
    pub(super) fn index_of(&mut self, link: LinkId) -> usize {
        if let Some(index) = self.index.get(&link) {
            return *index;
        }
        if self.latest.len() == MAX_JOINERS
            && let Some(oldest) = self.latest.pop_front()
        {
            self.index.remove(&oldest);
            self.forgotten += 1;
        }
        let index = self.forgotten + self.latest.len();
        self.latest.push_back(link);
        self.index.insert(link, index);
        index
    }

    /// The joiner of an index.
    pub(super) fn at(&self, index: usize) -> Option<LinkId> {
        self.latest.get(index.checked_sub(self.forgotten)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_too_many_joiners_is_forgotten() {
        let mut joiners = JoinerIndex::default();
        for link in 1..=MAX_JOINERS as u32 + 2 {
            joiners.index_of(LinkId(link));
        }
        assert_eq!((joiners.at(0), joiners.at(1)), (None, None));
        assert_eq!(joiners.at(2), Some(LinkId(3)));
        assert_eq!(joiners.at(MAX_JOINERS + 1), Some(LinkId(MAX_JOINERS as u32 + 2)));
        assert_eq!(joiners.at(MAX_JOINERS + 2), None);
    }
}
