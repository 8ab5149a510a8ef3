//! The rooms of this process, each behind its own lock, and the queues between a room and its peers.
//!
//! Nothing here awaits. Events are pushed to their receivers' [`Outbox`]es while the room is locked, so that
//! the order of events in a room is their order on every connection; the receivers are woken after it is
//! unlocked. No two rooms are locked at once.

mod membership;
mod outbox;
mod pressure;
mod rate;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

pub use membership::Membership;
pub use outbox::{Outbox, Overflow};

use super::memory::MemoryBudget;
use super::sharded::Sharded;
use super::telemetry::Telemetry;
use crate::config::ServerLimits;
use crate::protocol::model::{PeerId, Reason, RoomKey};
use crate::protocol::room::{Room, RoomLimits};
use rate::ReadRates;

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
}

/// Limits of rooms, and of what is read from one connection.
#[derive(Clone, Copy, Debug)]
struct HubLimits {
    max_rooms: u32,
    /// Maximum number of rooms that a connection is in apart from the current ones.
    max_previous: usize,
    room: RoomLimits,
    rates: ReadRates,
}

impl HubLimits {
    /// Returns the limits of a configuration.
    fn new(limits: &ServerLimits) -> Self {
        HubLimits {
            max_rooms: limits.max_rooms,
            // One as a member and one as a joiner are current.
            max_previous: limits.max_rooms_per_connection.saturating_sub(2) as usize,
            room: RoomLimits { max_members: limits.max_members, max_joiners: limits.max_joiners },
            rates: ReadRates { messages: limits.max_message_rate, bytes: limits.max_byte_rate },
        }
    }
}

/// One room and its lock.
#[derive(Debug)]
struct RoomCell {
    key: RoomKey,
    state: Mutex<RoomState>,
}

/// A room in its shard, found by the key that the room stores.
#[derive(Debug)]
struct RoomEntry(Arc<RoomCell>);

impl Borrow<RoomKey> for RoomEntry {
    fn borrow(&self) -> &RoomKey {
        &self.0.key
    }
}

impl PartialEq for RoomEntry {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for RoomEntry {}

impl Hash for RoomEntry {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.key.hash(hasher);
    }
}

#[derive(Debug, Default)]
struct RoomState {
    room: Room<Outbox>,
    /// Clients of different generations were linked in it.
    mixed: bool,
    /// The room is no longer in its shard; a peer that wants to enter must look it up again.
    removed: bool,
}

impl Default for Hub {
    fn default() -> Self {
        Hub::with_memory(MemoryBudget::new(usize::MAX))
    }
}

impl Hub {
    /// Creates a hub without rooms and with the default limits, whose queues are counted in `memory`.
    pub fn with_memory(memory: Arc<MemoryBudget>) -> Self {
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
        }
    }

    /// Creates a hub without rooms.
    pub fn new() -> Arc<Self> {
        Arc::default()
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
                    let state = cell.state.lock();
                    peers.extend(state.room.peers());
                    links.extend(state.room.links());
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
        let mut shard = self.shard(key).lock();
        if let Some(room) = shard.get(key) {
            return Ok(Arc::clone(&room.0));
        }
        let more = |count: u32| count.checked_add(1).filter(|count| *count <= self.limits.max_rooms);
        let counted = self.room_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.map_err(|_| Reason::TooManyRooms)?;
        let cell = Arc::new(RoomCell { key: key.clone(), state: Mutex::default() });
        shard.insert(RoomEntry(Arc::clone(&cell)));
        Ok(cell)
    }

    fn remove_if_empty(&self, cell: &Arc<RoomCell>) {
        let mut shard = self.shard(&cell.key).lock();
        let mut state = cell.state.lock();
        if state.room.is_empty() && !state.removed {
            state.removed = true;
            shard.remove(&cell.key);
            self.room_count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
