//! The joiners that wait for the answer of an opener of sigver 6, which is for all of them.

use std::collections::{HashSet, VecDeque};

use super::MAX_JOINERS;
use crate::protocol::model::LinkId;

/// The joiners that wait for an answer, oldest first.
#[derive(Debug, Default)]
pub(super) struct UnansweredJoiners {
    /// All that were added, those that were removed included.
    order: VecDeque<LinkId>,
    waiting: HashSet<LinkId>,
}

impl UnansweredJoiners {
    /// Adds a joiner. The oldest one is dropped if there are too many.
    pub(super) fn add(&mut self, joiner: LinkId) {
        if self.order.len() == MAX_JOINERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.waiting.remove(&oldest);
        }
        if self.waiting.insert(joiner) {
            self.order.push_back(joiner);
        }
    }

    /// Removes a joiner.
    pub(super) fn remove(&mut self, joiner: LinkId) {
        self.waiting.remove(&joiner);
    }

    /// Removes all joiners and returns them.
    pub(super) fn take(&mut self) -> Vec<LinkId> {
        let UnansweredJoiners { order, mut waiting } = std::mem::take(self);
        order.into_iter().filter(|joiner| waiting.remove(joiner)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joiners_are_returned_once_in_their_order() {
        let mut joiners = UnansweredJoiners::default();
        [3, 1, 2, 1].into_iter().for_each(|joiner| joiners.add(LinkId(joiner)));
        joiners.remove(LinkId(1));
        assert_eq!(joiners.take(), [LinkId(3), LinkId(2)]);
        assert_eq!(joiners.take(), []);
    }

    #[test]
    fn oldest_joiner_is_dropped_at_the_limit() {
        let mut joiners = UnansweredJoiners::default();
        (0..=MAX_JOINERS as u32).for_each(|joiner| joiners.add(LinkId(joiner)));
        let taken = joiners.take();
        assert_eq!((taken.len(), taken.first()), (MAX_JOINERS, Some(&LinkId(1))));
    }
}
