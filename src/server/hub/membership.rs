//! The rooms of one connection. Dropping the value is how a peer leaves: on every path, and once.

use std::cell::Cell;
use std::sync::Arc;

use super::outbox::WakeList;
use super::{Hub, Outbox, RoomCell, RoomState};
use crate::protocol::model::{Command, LinkId, Open, PeerId, Recipient, RoomKey, RoomRole};

/// The rooms of one connection.
#[derive(Debug)]
pub struct Membership {
    hub: Arc<Hub>,
    peer: PeerId,
    outbox: Outbox,
    /// The room in which it became a member last.
    member_of: Option<Arc<RoomCell>>,
    /// The room it joined last. The same as `member_of` in the dialects whose key is the path.
    joined: Option<Arc<RoomCell>>,
    /// Rooms replaced by others in the two fields above, in which it may still be a member or an endpoint of
    /// links.
    #[allow(clippy::box_collection, reason = "most connections have none, and there are many")]
    previous: Option<Box<Vec<Arc<RoomCell>>>>,
}

thread_local! {
    /// Source of randomness of all rooms.
    static RNG: Cell<Option<fastrand::Rng>> = const { Cell::new(None) };
}

/// Maximum number of previous rooms; beyond it, the peer leaves the oldest.
const MAX_PREVIOUS: usize = 16;

/// The outcome of a command.
#[derive(Clone, Copy, Debug)]
struct Applied {
    role: RoomRole,
    room_is_empty: bool,
}

impl Membership {
    pub(super) fn new(hub: Arc<Hub>, peer: PeerId, outbox: Outbox) -> Self {
        Membership { hub, peer, outbox, member_of: None, joined: None, previous: None }
    }

    /// Returns the id of the connection.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Returns the queue that receives the connection's events.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Applies a command in the room `key`, and stays in it. Opening a room ends the membership in the one
    /// opened before, unless the command keeps other rooms.
    pub fn enter(&mut self, key: &RoomKey, command: Command) {
        let keep_other_rooms = matches!(command, Command::Open(Open { keep_other_rooms: true, .. }));
        let mut wakes = WakeList::default();
        let (cell, applied) = loop {
            let cell = self.hub.room(key);
            let mut state = cell.state.lock();
            if state.removed {
                continue;
            }
            let applied = self.apply(&mut state, command, &mut wakes);
            drop(state);
            break (cell, applied);
        };
        drop(wakes);
        self.track(cell, applied, keep_other_rooms);
    }

    fn apply(&self, state: &mut RoomState, command: Command, wakes: &mut WakeList) -> Applied {
        let mut deliver = |outbox: &Outbox, event| wakes.deliver(outbox, event);
        let mut rng = RNG.take().unwrap_or_default();
        let role = state.room.apply(self.peer, &self.outbox, command, &mut rng, &mut deliver);
        RNG.set(Some(rng));
        Applied { role, room_is_empty: role == RoomRole::None && state.room.is_empty() }
    }

    /// Records the room under the role that the peer has in it now.
    fn track(&mut self, cell: Arc<RoomCell>, applied: Applied, keep_other_rooms: bool) {
        let current = match applied.role {
            RoomRole::None if applied.room_is_empty => return self.hub.remove_if_empty(&cell),
            RoomRole::None => return,
            RoomRole::Member => &mut self.member_of,
            RoomRole::Joiner => &mut self.joined,
        };
        let replaced = current.replace(Arc::clone(&cell));
        let Some(replaced) = replaced.filter(|replaced| !Arc::ptr_eq(replaced, &cell)) else { return };
        if applied.role == RoomRole::Member && !keep_other_rooms {
            replaced.state.lock().room.drop_membership(self.peer);
        }
        self.add_previous(replaced);
    }

    fn add_previous(&mut self, replaced: Arc<RoomCell>) {
        let is_current =
            [&self.member_of, &self.joined].into_iter().flatten().any(|cell| Arc::ptr_eq(cell, &replaced));
        if is_current {
            return;
        }
        let previous = self.previous.get_or_insert_default();
        previous.retain(|cell| !Arc::ptr_eq(cell, &replaced));
        previous.push(replaced);
        if previous.len() > MAX_PREVIOUS {
            let oldest = previous.remove(0);
            self.leave_room(&oldest, false);
        }
    }

    /// Applies a command in the room it concerns, among those entered. Returns false, without an effect, if
    /// there is none.
    pub fn command(&mut self, command: Command) -> bool {
        let (link, changes_role) = match &command {
            // Without an effect, if the peer is no longer in the room.
            Command::Relay { to: Recipient::Joiner(link), .. } | Command::ReplyOnBehalf { link, .. } => {
                (Some(*link), false)
            }
            Command::Relay { to: Recipient::Member | Recipient::JoinerOrMember(_), .. } => (None, false),
            Command::Open(_)
            | Command::Join(_)
            | Command::Connect(_)
            | Command::BecomeMember
            | Command::TryAnother
            | Command::RevertAssumption
            | Command::Unlink => (None, true),
        };
        let cell = match link {
            Some(link) => self.room_of_link(link),
            None => self.joined.as_ref().or(self.member_of.as_ref()),
        };
        let Some(cell) = cell else {
            return false;
        };
        let mut wakes = WakeList::default();
        let applied = {
            let mut state = cell.state.lock();
            if changes_role && state.room.role(self.peer) == RoomRole::None {
                Applied { role: RoomRole::None, room_is_empty: state.room.is_empty() }
            } else {
                self.apply(&mut state, command, &mut wakes)
            }
        };
        drop(wakes);
        if changes_role {
            let cell = Arc::clone(cell);
            self.track(cell, applied, false);
        }
        true
    }

    /// Returns the room in which the peer is an endpoint of the link, or else the one opened last.
    fn room_of_link(&self, link: LinkId) -> Option<&Arc<RoomCell>> {
        let others =
            self.joined.iter().chain(self.previous.iter().flat_map(|previous| previous.iter().rev()));
        let mut found = None;
        if self.joined.is_some() || self.previous.is_some() {
            let has_link = |cell: &&Arc<RoomCell>| cell.state.lock().room.is_endpoint_of(self.peer, link);
            found = self.member_of.iter().chain(others).find(has_link);
        }
        found.or(self.member_of.as_ref())
    }

    /// Marks the room of a link as one that connects clients of different generations. Returns true if it was
    /// not marked before.
    pub fn mark_mixed(&mut self, link: LinkId) -> bool {
        let Some(cell) = self.room_of_link(link).or(self.joined.as_ref()) else { return false };
        !std::mem::replace(&mut cell.state.lock().mixed, true)
    }

    /// Leaves every room. The other endpoints of its links are told whether the connection ended with a
    /// `normal_closure`.
    pub fn leave(&mut self, normal_closure: bool) {
        let current = [self.member_of.take(), self.joined.take()];
        let previous = self.previous.take();
        for cell in current.into_iter().flatten().chain(previous.into_iter().flat_map(|previous| *previous)) {
            self.leave_room(&cell, normal_closure);
        }
    }

    fn leave_room(&self, cell: &Arc<RoomCell>, normal_closure: bool) {
        let mut wakes = WakeList::default();
        let is_empty = {
            let mut state = cell.state.lock();
            let mut deliver = |outbox: &Outbox, event| wakes.deliver(outbox, event);
            state.room.leave(self.peer, normal_closure, &mut deliver);
            state.room.is_empty()
        };
        drop(wakes);
        if is_empty {
            self.hub.remove_if_empty(cell);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.leave(false);
    }
}
