//! Rooms whose key has a room for each generation, joined by a bridge: its peers enter rooms as clients do,
//! but never become members.

use std::fmt;
use std::sync::Arc;

use super::pressure::Deliveries;
use super::room_cell::RoomCell;
use super::{Hub, Membership, Outbox};
use crate::protocol::model::{Command, PeerId, RoomKey, RoomRole};
use crate::protocol::room::Room;
use crate::server::scratch;

/// A bridge as rooms use it. No method waits or uses a room, as one may be locked.
pub(in crate::server) trait RoomBridge: fmt::Debug + Send + Sync {
    /// Records the members of a room, in order of arrival.
    fn set_members(&self, key: &RoomKey, members: &mut dyn Iterator<Item = PeerId>);

    /// Returns the number and the queue of a new peer of the bridge, to which a joiner of a room without a
    /// member can be linked; `None` if there must be none.
    fn open_entry(&self, key: &RoomKey) -> Option<(u32, Outbox)>;

    /// Hands over the peer of that number. It leaves the room when it is dropped.
    fn add_entry(&self, number: u32, key: &RoomKey, peer: Membership);
}

impl Hub {
    /// Makes the bridge that of all rooms. Without an effect if there is one already.
    pub(in crate::server) fn set_bridge(&self, bridge: Arc<dyn RoomBridge>) {
        // The first one stays.
        let _ = self.bridge.set(bridge);
    }

    /// Reports the members of a room, which is locked, to the bridge, if there is one.
    pub(super) fn report_members(&self, key: &RoomKey, room: &Room<Outbox>) {
        if let Some(bridge) = self.bridge.get() {
            bridge.set_members(key, &mut room.members());
        }
    }
}

impl Membership {
    /// Returns a peer of the bridge for a command that joins a room without a member. The room must not be
    /// locked.
    pub(super) fn entry(&self, cell: &Arc<RoomCell>, command: &Command) -> Option<(PeerId, Outbox)> {
        match (self.hub.bridge.get(), command) {
            (Some(bridge), Command::Join(join)) if join.needs_member() => self.open_entry(&**bridge, cell),
            _ => None,
        }
    }

    #[cold]
    fn open_entry(&self, bridge: &dyn RoomBridge, cell: &Arc<RoomCell>) -> Option<(PeerId, Outbox)> {
        if cell.state.lock().local().is_none_or(|room| room.has_members()) {
            return None;
        }
        let (number, outbox) = bridge.open_entry(&cell.key)?;
        let mut peer = self.hub.register(outbox.clone());
        peer.member_of = Some(Arc::clone(cell));
        let entry = (peer.peer(), outbox);
        bridge.add_entry(number, &cell.key, peer);
        Some(entry)
    }

    /// Links the peer to one of the bridge, unless the room has a member by now.
    pub(super) fn join_entry(
        &self,
        room: &mut Room<Outbox>,
        command: &Command,
        (entry, entry_outbox): &(PeerId, Outbox),
        deliveries: &mut Deliveries<'_>,
    ) -> Option<super::membership::Applied> {
        let Command::Join(join) = command else { return None };
        if room.has_members() {
            return None;
        }
        let mut deliver = |outbox: &Outbox, event| deliveries.deliver(outbox, event);
        let role = scratch::with(|scratch| {
            room.join_without_member(
                (self.peer(), &self.outbox),
                *join,
                (*entry, entry_outbox),
                self.hub.limits.room().max_joiners,
                &mut scratch.rng.borrow_mut(),
                &mut deliver,
            )
        })?;
        Some(super::membership::Applied { role, room_is_empty: false })
    }

    /// Joins the room `key` through a member that is named. Returns false if there is none by now.
    pub(in crate::server) fn join_through(&mut self, key: &RoomKey, member: PeerId) -> bool {
        let found = self.hub.shard(key).lock().get(key).map(|room| Arc::clone(&room.0));
        let Some(cell) = found else { return false };
        let mut deliveries = Deliveries::new(&self.outbox, &self.hub.memory, true);
        let role = {
            let mut state = cell.state.lock();
            let mut deliver = |outbox: &Outbox, event| deliveries.deliver(outbox, event);
            let Some(room) = state.local() else { return false };
            scratch::with(|scratch| {
                let rng = &mut scratch.rng.borrow_mut();
                room.join_through(self.peer(), &self.outbox, member, rng, &mut deliver)
            })
        };
        drop(deliveries);
        let is_linked = role == RoomRole::Joiner;
        if is_linked {
            self.joined = Some(cell);
        }
        is_linked
    }
}
