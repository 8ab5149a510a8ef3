//! The links of a room.

use super::entry::Link;
use super::small_map::SmallMap;
use crate::protocol::model::{LinkId, PeerId};

/// The links of a room. Boxed with all that only linked rooms have, as most rooms have an idle member and
/// never had a link.
#[derive(Debug, Default)]
pub(super) struct LinkTable(Option<Box<LinkedRoom>>);

/// Data of a room that has, or had, links.
#[derive(Debug, Default)]
struct LinkedRoom {
    links: SmallMap<LinkId, Link>,
    /// Number of links so far, modulo 2^32.
    joins: u32,
    /// Clients of different generations were linked.
    mixed: bool,
}

impl LinkTable {
    #[inline(always)]
    pub(super) fn get(&self, id: LinkId) -> Option<&Link> {
        self.0.as_ref()?.links.get(id)
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.0.as_mut()?.links.get_mut(id)
    }

    pub(super) fn contains(&self, id: LinkId) -> bool {
        self.get(id).is_some()
    }

    /// Returns all links.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter().flat_map(|room| room.links.values())
    }

    /// Adds a link whose directions are open.
    pub(super) fn insert(&mut self, id: LinkId, joiner: PeerId, member: PeerId) {
        let room = self.0.get_or_insert_default();
        let number = room.joins;
        room.joins = number.wrapping_add(1);
        let open = || Link { number, joiner, member, joiner_open: true, member_open: true };
        room.links.get_or_insert_with(id, open);
    }

    pub(super) fn remove(&mut self, id: LinkId) -> Option<Link> {
        self.0.as_mut()?.links.remove(id)
    }

    /// Removes all links.
    pub(super) fn clear(&mut self) {
        if let Some(room) = &mut self.0 {
            room.links = SmallMap::default();
        }
    }

    /// Returns the number of links that were added after the one before this.
    pub(super) fn age(&self, link: &Link) -> u32 {
        self.0.as_ref().map_or(0, |room| room.joins.wrapping_sub(link.number))
    }

    pub(super) fn is_mixed(&self) -> bool {
        self.0.as_ref().is_some_and(|room| room.mixed)
    }

    /// Returns true if the room was not marked before.
    pub(super) fn mark_mixed(&mut self) -> bool {
        !std::mem::replace(&mut self.0.get_or_insert_default().mixed, true)
    }
}
