//! The rooms of this process, each behind its own lock, and the queues between a room and its peers.
//!
//! Nothing here awaits. Events are pushed to their receivers' [`Outbox`]es while the room is locked, so that
//! the order of events in a room is their order on every connection; the receivers are woken after it is
//! unlocked. No two rooms are locked at once.

#![cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "only a cluster has rooms at other nodes"))]

mod bridged;
mod directory;
mod elsewhere;
mod membership;
mod outbox;
mod pressure;
mod rate;
mod room_cell;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

pub(in crate::server) use bridged::RoomBridge;
#[cfg(feature = "cluster")]
pub(in crate::server) use directory::PLACE_TIMEOUT;
pub(crate) use directory::{Directory, Hold, Location, RemoteRoom};
pub use membership::Membership;
pub(crate) use outbox::RemoteReader;
pub use outbox::{Outbox, Overflow};

use super::memory::MemoryBudget;
use super::sharded::Sharded;
use super::telemetry::Telemetry;
use crate::config::ServerLimits;
use crate::protocol::model::{PeerId, Reason, RoomKey};
use crate::protocol::room::RoomLimits;
use pressure::Deliveries;
use rate::ReadRates;
use room_cell::{RoomCell, RoomEntry, RoomState};

/// Number of maps over which the rooms are spread.
const SHARDS: usize = 64;

/// Number of this node in the ids of its connections.
const NODE: u16 = 0;

/// All rooms.
#[derive(Debug)]
pub struct Hub {
    shards: Sharded<HashSet<RoomEntry>>,
    hasher: RandomState,
    /// Hashes room keys for status output. Separate from the shard hasher, so that published hashes reveal
    /// nothing about it.
    report_hasher: RandomState,
    next_peer: AtomicU64,
    /// Number of rooms in all shards.
    room_count: AtomicU32,
    limits: HubLimits,
    memory: Arc<MemoryBudget>,
    telemetry: Arc<Telemetry>,
    /// Present if the server is a node of a cluster.
    directory: OnceLock<Box<dyn Directory>>,
    /// Present if rooms of one key are bridged.
    bridge: OnceLock<Arc<dyn RoomBridge>>,
}

/// Limits of rooms, and of what is read from one connection.
#[derive(Debug, Default)]
struct HubLimits {
    max_rooms: AtomicU32,
    max_rooms_per_connection: AtomicU32,
    max_members: AtomicU32,
    max_joiners: AtomicU32,
    /// A joiner may replace the only member of its room.
    replace_members: AtomicBool,
    /// Zero for no limit, as the next one.
    message_rate: AtomicU32,
    byte_rate: AtomicU32,
}

impl HubLimits {
    /// Returns the limits of a configuration.
    fn new(limits: &ServerLimits) -> Self {
        let new = HubLimits::default();
        new.set(limits);
        new
    }

    fn set(&self, limits: &ServerLimits) {
        for (limit, value) in [
            (&self.max_rooms, limits.max_rooms),
            (&self.max_rooms_per_connection, limits.max_rooms_per_connection),
            (&self.max_members, limits.max_members),
            (&self.max_joiners, limits.max_joiners),
            (&self.message_rate, limits.max_message_rate.unwrap_or_default()),
            (&self.byte_rate, limits.max_byte_rate.unwrap_or_default()),
        ] {
            limit.store(value, Ordering::Relaxed);
        }
        self.replace_members.store(limits.replace_members, Ordering::Relaxed);
    }

    /// Returns the maximum number of rooms that a connection is in apart from the current ones.
    fn max_previous(&self) -> usize {
        // One as a member and one as a joiner are current.
        self.max_rooms_per_connection.load(Ordering::Relaxed).saturating_sub(2) as usize
    }

    fn room(&self) -> RoomLimits {
        RoomLimits {
            max_members: self.max_members.load(Ordering::Relaxed),
            max_joiners: self.max_joiners.load(Ordering::Relaxed),
            replace_members: self.replace_members.load(Ordering::Relaxed),
        }
    }

    /// Returns the rates of a new connection.
    fn rates(&self) -> ReadRates {
        let rate = |limit: &AtomicU32| Some(limit.load(Ordering::Relaxed)).filter(|rate| *rate > 0);
        ReadRates { messages: rate(&self.message_rate), bytes: rate(&self.byte_rate) }
    }
}

impl Default for Hub {
    fn default() -> Self {
        Hub::with_memory(MemoryBudget::new(usize::MAX))
    }
}

impl Hub {
    /// Creates a hub without rooms and with the default limits, whose queues are counted in `memory`.
    pub(crate) fn with_memory(memory: Arc<MemoryBudget>) -> Self {
        Hub::with_limits(memory, &ServerLimits::default(), Telemetry::new())
    }

    /// Creates a hub without rooms, whose queues are counted in `memory`.
    pub(crate) fn with_limits(
        memory: Arc<MemoryBudget>,
        limits: &ServerLimits,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Hub {
            shards: Sharded::new(SHARDS),
            hasher: RandomState::new(),
            report_hasher: RandomState::new(),
            next_peer: AtomicU64::new(0),
            room_count: AtomicU32::new(0),
            limits: HubLimits::new(limits),
            memory,
            telemetry,
            directory: OnceLock::new(),
            bridge: OnceLock::new(),
        }
    }

    /// Makes the hub one of a cluster, whose rooms are where `directory` has them. Without an effect if it is
    /// one already.
    pub(crate) fn set_directory(&self, directory: Box<dyn Directory>) {
        // The first one stays.
        let _ = self.directory.set(directory);
    }

    /// Replaces the limits. Rooms that exceed them stay; the rates are those of connections to come.
    pub(in crate::server) fn set_limits(&self, limits: &ServerLimits) {
        self.limits.set(limits);
    }

    /// Creates a hub without rooms.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns the counts of limits that clients and nodes reach.
    pub(in crate::server) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Registers a connection whose events are pushed to `outbox`.
    pub fn register(self: &Arc<Self>, outbox: Outbox) -> Membership {
        Membership::new(Arc::clone(self), self.next_peer_id(), outbox)
    }

    /// Returns an id that no other connection of this server has.
    pub(in crate::server) fn next_peer_id(&self) -> PeerId {
        PeerId::new(NODE, self.next_peer.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the number of rooms.
    pub fn rooms(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Calls `visit` for every room with the peers in it and the joiner and member of each link, as they are
    /// at some moment during the walk. In place of its key, a room is shown by a hash that differs between
    /// hubs, so that keys cannot be found by trial.
    pub fn for_each_room(&self, mut visit: impl FnMut(u32, &[PeerId], &[(PeerId, PeerId)])) {
        let (mut peers, mut links) = (Vec::new(), Vec::new());
        for shard in self.shards.iter() {
            // No lock is held while another is taken, or during a visit.
            let cells: Vec<Arc<RoomCell>> = shard.lock().iter().map(|room| Arc::clone(&room.0)).collect();
            for cell in cells {
                peers.clear();
                links.clear();
                {
                    let mut state = cell.state.lock();
                    if let Some(room) = state.local() {
                        peers.extend(room.peers());
                        links.extend(room.links());
                    }
                }
                if !peers.is_empty() {
                    visit((self.report_hasher.hash_one(&cell.key) >> 32) as u32, &peers, &links);
                }
            }
        }
    }

    fn shard(&self, key: &RoomKey) -> &Mutex<HashSet<RoomEntry>> {
        self.shards.get(self.hasher.hash_one(key))
    }

    /// Returns the room with this key, which is created if there is none.
    ///
    /// # Errors
    /// There is none, and there must be no more rooms.
    fn room(&self, key: &RoomKey) -> Result<Arc<RoomCell>, Reason> {
        self.room_in(&mut self.shard(key).lock(), key)
    }

    /// Returns the room with this key in its shard, which is created if there is none.
    #[allow(clippy::mutable_key_type, reason = "the key by which an entry is hashed does not change")]
    fn room_in(&self, shard: &mut HashSet<RoomEntry>, key: &RoomKey) -> Result<Arc<RoomCell>, Reason> {
        if let Some(room) = shard.get(key) {
            return Ok(Arc::clone(&room.0));
        }
        // A room keeps its key, which is not counted in the budget.
        if self.memory.refuses_clients() {
            return Err(Reason::Overloaded);
        }
        let max_rooms = self.limits.max_rooms.load(Ordering::Relaxed);
        let more = |count: u32| count.checked_add(1).filter(|count| *count <= max_rooms);
        let counted = self.room_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.map_err(|_| Reason::TooManyRooms)?;
        let cell = RoomCell::here(key.clone());
        shard.insert(RoomEntry(Arc::clone(&cell)));
        Ok(cell)
    }

    /// Evicts every peer of a room of this process, and removes the room.
    pub(crate) fn close_room(&self, key: &RoomKey, reason: &Reason) {
        let found = self.shard(key).lock().get(key).map(|room| Arc::clone(&room.0));
        let Some(cell) = found else { return };
        {
            // The queue of the sender: there is none.
            let no_sender = Outbox::new(0);
            let mut deliveries = Deliveries::new(&no_sender, &self.memory, true);
            let mut state = cell.state.lock();
            if let Some(room) = state.local() {
                room.close(reason, &mut |outbox: &Outbox, event| deliveries.deliver(outbox, event));
            }
        }
        self.remove_if_empty(&cell);
    }

    /// Has the directory free a name for which there is no room here.
    pub(crate) fn release_if_absent(&self, key: &RoomKey) {
        let shard = self.shard(key).lock();
        if let Some(directory) = self.directory.get().filter(|_| !shard.contains(key)) {
            directory.removed(key);
        }
    }

    fn remove_if_empty(&self, cell: &Arc<RoomCell>) {
        let mut shard = self.shard(&cell.key).lock();
        let mut state = cell.state.lock();
        let Some(room) = state.local().filter(|room| room.is_empty()) else { return };
        *state = RoomState::Removed { mixed: room.is_mixed() };
        shard.remove(&cell.key);
        self.room_count.fetch_sub(1, Ordering::Relaxed);
        if let Some(directory) = self.directory.get() {
            directory.removed(&cell.key);
        }
    }
}
