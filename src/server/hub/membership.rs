//! One connection's place among the rooms. Dropping it is how a peer leaves: on every path, and once.

use std::cell::RefCell;
use std::sync::Arc;

use super::{Hub, Outbox, RoomCell};
use crate::protocol::model::{Command, Event, LinkId, Open, PeerId, Recipient, RoomKey};
use crate::protocol::room::Room;

/// One connection's place among the rooms.
#[derive(Debug)]
pub struct Membership {
    hub: Arc<Hub>,
    peer: PeerId,
    outbox: Outbox,
    /// The room in which it asked to be a member last.
    opened: Option<Arc<RoomCell>>,
    /// The room it joined last. The same as `opened` in the dialects whose key is the path.
    joined: Option<Arc<RoomCell>>,
    /// Rooms it turned away from, where others may still be at the other end of its links, and where it may still
    /// be a member.
    #[allow(clippy::box_collection, reason = "most connections have none, and there are many")]
    earlier: Option<Box<Vec<Arc<RoomCell>>>>,
}

thread_local! {
    /// The lots of all rooms: one of its own would be 8 bytes more for each.
    static RNG: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::new());
}

/// How many rooms a connection can have turned away from before it leaves the oldest for good.
const MAX_EARLIER: usize = 16;

impl Membership {
    pub(super) fn new(hub: Arc<Hub>, peer: PeerId, outbox: Outbox) -> Self {
        Membership { hub, peer, outbox, opened: None, joined: None, earlier: None }
    }

    /// The peer that sits here.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where its events go.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Takes a command to the room `key`, and stays there. Opening a room gives up the membership of the one
    /// opened before, unless it is to be kept.
    pub fn enter(&mut self, key: &RoomKey, command: Command) {
        let keeps = matches!(command, Command::Open(Open { keep_other_rooms: true, .. }));
        let cell = loop {
            let cell = self.hub.room(key);
            let mut state = cell.state.lock();
            if state.retired {
                continue;
            }
            self.apply(&mut state.room, command);
            break Arc::clone(&cell);
        };
        self.settle_in(cell, keeps);
    }

    fn apply(&self, room: &mut Room<Outbox>, command: Command) {
        RNG.with_borrow_mut(|rng| room.apply(self.peer, &self.outbox, command, rng, &mut deliver));
    }

    fn settle_in(&mut self, cell: Arc<RoomCell>, keeps: bool) {
        let (inside, member) = {
            let state = cell.state.lock();
            (state.room.contains(self.peer), state.room.is_member(self.peer))
        };
        if !inside {
            return self.hub.retire(&cell);
        }
        if member
            && let Some(before) =
                self.opened.replace(Arc::clone(&cell)).filter(|old| !Arc::ptr_eq(old, &cell))
        {
            if !keeps {
                before.state.lock().room.drop_membership(self.peer);
            }
            self.turn_away(before);
        }
        if !member
            && let Some(before) =
                self.joined.replace(Arc::clone(&cell)).filter(|old| !Arc::ptr_eq(old, &cell))
        {
            self.turn_away(before);
        }
    }

    fn turn_away(&mut self, before: Arc<RoomCell>) {
        let still = [&self.opened, &self.joined].into_iter().flatten().any(|cell| Arc::ptr_eq(cell, &before));
        if still {
            return;
        }
        let earlier = self.earlier.get_or_insert_default();
        earlier.retain(|cell| !Arc::ptr_eq(cell, &before));
        earlier.push(before);
        if earlier.len() > MAX_EARLIER {
            let oldest = earlier.remove(0);
            self.quit(&oldest, false);
        }
    }

    /// Takes a command to the room it concerns, among those entered; without one, nothing happens and the answer
    /// is false.
    pub fn command(&mut self, command: Command) -> bool {
        let cell = match command {
            Command::Relay { to: Recipient::Joiner(link), .. } | Command::ReplyOnBehalf { link, .. } => {
                self.room_of(link)
            }
            _ => self.joined.as_ref().or(self.opened.as_ref()),
        };
        let Some(cell) = cell else {
            return false;
        };
        let settles = !matches!(command, Command::Relay { .. } | Command::ReplyOnBehalf { .. });
        {
            let mut state = cell.state.lock();
            if state.room.contains(self.peer) {
                self.apply(&mut state.room, command);
            }
        }
        if settles {
            let cell = Arc::clone(cell);
            self.settle_in(cell, false);
        }
        true
    }

    /// The room in which it has an end of a link: the one opened last, unless it is another.
    fn room_of(&self, link: LinkId) -> Option<&Arc<RoomCell>> {
        let others = self.joined.iter().chain(self.earlier.iter().flat_map(|earlier| earlier.iter().rev()));
        let mut elsewhere = None;
        if self.joined.is_some() || self.earlier.is_some() {
            let is_endpoint_of =
                |cell: &&Arc<RoomCell>| cell.state.lock().room.is_endpoint_of(self.peer, link);
            elsewhere = self.opened.iter().chain(others).find(is_endpoint_of);
        }
        elsewhere.or(self.opened.as_ref())
    }

    /// Notes that a link connects clients of different generations: whether it is the first in its room.
    pub fn mark_mixed(&mut self, link: LinkId) -> bool {
        let Some(cell) = self.room_of(link).or(self.joined.as_ref()) else { return false };
        !std::mem::replace(&mut cell.state.lock().mixed, true)
    }

    /// Leaves every room, in a `normal_closure` way or without a word.
    pub fn leave(&mut self, normal_closure: bool) {
        let cells = [self.opened.take(), self.joined.take()];
        for cell in
            cells.into_iter().flatten().chain(self.earlier.take().into_iter().flat_map(|earlier| *earlier))
        {
            self.quit(&cell, normal_closure);
        }
    }

    fn quit(&self, cell: &Arc<RoomCell>, normal_closure: bool) {
        let empty = {
            let mut state = cell.state.lock();
            state.room.leave(self.peer, normal_closure, &mut deliver);
            state.room.is_empty()
        };
        if empty {
            self.hub.retire(cell);
        }
    }
}

fn deliver(outbox: &Outbox, event: Event) {
    outbox.push(event);
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.leave(false);
    }
}
