//! The rooms of this process, each behind its own short lock, and the queues between a room and its peers.
//!
//! Nothing here awaits. Events are pushed to their receivers' [`Outbox`]es while the room is still locked, so the
//! order of things in a room is the order on every wire. No two rooms are ever locked at once.

mod membership;
mod outbox;

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub use membership::Membership;
pub use outbox::{Outbox, Overflow};

use crate::protocol::model::{PeerId, RoomKey};
use crate::protocol::room::Room;

/// How many maps the rooms are spread over, so that opening rooms on several cores rarely waits.
const SHARDS: usize = 64;

/// All rooms.
#[derive(Debug)]
pub struct Hub {
    shards: Vec<Shard>,
    hasher: RandomState,
    /// Of keys that are told to nobody. Not that of the shards: what is told must tell nothing of these.
    aliases: RandomState,
    peers: AtomicU64,
}

type Shard = Mutex<HashSet<RoomEntry>>;

/// One room and its lock.
#[derive(Debug)]
struct RoomCell {
    key: RoomKey,
    state: Mutex<State>,
}

/// A room in its shard, found by its key. The key is the room's: a copy of it here would be 45 bytes more for each.
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

#[derive(Debug)]
struct State {
    room: Room<Outbox>,
    /// Clients of different generations were connected in it.
    mixed: bool,
    /// The room is no longer in its shard: whoever comes must look again.
    retired: bool,
}

impl Default for Hub {
    fn default() -> Self {
        Hub {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            aliases: RandomState::new(),
            peers: AtomicU64::new(0),
        }
    }
}

impl Hub {
    /// A hub without rooms.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A place for a new connection, whose events go to `outbox`.
    pub fn register(self: &Arc<Self>, outbox: Outbox) -> Membership {
        Membership::new(Arc::clone(self), PeerId(self.peers.fetch_add(1, Ordering::Relaxed)), outbox)
    }

    /// How many rooms there are.
    pub fn rooms(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Shows every room, and the peers in it, as they are at some moment during the walk. In place of its key a room
    /// has a hash of it, by a function that is chosen anew with every hub: who does not know a key cannot find it out
    /// by trying.
    pub fn for_each_room(&self, mut see: impl FnMut(u32, &[PeerId])) {
        let mut peers = Vec::new();
        for shard in &self.shards {
            // No lock is held while another is taken, or while the caller looks.
            let cells: Vec<Arc<RoomCell>> = shard.lock().iter().map(|room| Arc::clone(&room.0)).collect();
            for cell in cells {
                peers.clear();
                peers.extend(cell.state.lock().room.peers());
                if !peers.is_empty() {
                    see((self.aliases.hash_one(&cell.key) >> 32) as u32, &peers);
                }
            }
        }
    }

    fn shard(&self, key: &RoomKey) -> &Shard {
        // The remainder is below SHARDS, and so a valid index.
        &self.shards[(self.hasher.hash_one(key) % SHARDS as u64) as usize]
    }

    fn room(&self, key: &RoomKey) -> Arc<RoomCell> {
        let mut shard = self.shard(key).lock();
        if let Some(room) = shard.get(key) {
            return Arc::clone(&room.0);
        }
        let cell = Arc::new(RoomCell {
            key: key.clone(),
            state: Mutex::new(State { room: Room::default(), mixed: false, retired: false }),
        });
        shard.insert(RoomEntry(Arc::clone(&cell)));
        cell
    }

    /// Forgets the room if nobody is in it.
    fn retire(&self, cell: &Arc<RoomCell>) {
        let mut shard = self.shard(&cell.key).lock();
        let mut state = cell.state.lock();
        if state.room.is_empty() && !state.retired {
            state.retired = true;
            shard.remove(&cell.key);
        }
    }
}

#[cfg(test)]
mod tests;
