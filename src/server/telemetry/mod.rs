//! Who speaks what: for every dialect how many connections there are and were, when the last was seen, and by what it
//! was recognised. Numbers only: no payload, no key and no address is kept, and nothing here changes what anyone is
//! told.
//!
//! The driver of a connection holds a [`ConnectionGuard`] and reports to it; `report` says it all to people and programs.

mod counts;
mod report;
mod text;
mod time;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub use counts::{ByEvidence, ConnectionCount, Counts, DialectUsage};
pub use report::{Report, RoomsReport, StatusQuery};
pub use time::UnixSeconds;

use crate::protocol::dialect::{Candidates, Evidence};
use crate::protocol::dialect::{Dialect, ReleaseSet};
use crate::protocol::model::PeerId;
use crate::server::sharded::Sharded;

/// Number of shards over which the connections are spread.
const SHARDS: usize = 16;

/// A table of live connections that once was longer gives its memory back when most of it is empty.
const KEEP_CAPACITY: usize = 64;

/// What is known of all connections.
#[derive(Debug)]
pub struct Telemetry {
    started: UnixSeconds,
    shards: Sharded<Shard>,
    relay: Mutex<ConnectionCount>,
    /// How many rooms had clients of different generations bound to one another.
    mixtures: AtomicU64,
    /// Connections that a panic ended.
    panics: AtomicU64,
}

/// Some of the connections, and what they add to the counts.
#[derive(Debug, Default)]
struct Shard {
    live: HashMap<PeerId, Entry>,
    counts: Counts,
}

/// What is known of a live connection. Every idle one pays for it: 24 bytes with its key, and what the table leaves
/// free.
#[derive(Clone, Copy, Debug)]
struct Entry {
    since: UnixSeconds,
    known: Option<Recognition>,
}

/// What a connection was recognised as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognition {
    /// The releases that are left.
    pub releases: ReleaseSet,
    /// That of the likeliest of them: it is spoken with the client.
    pub dialect: Dialect,
    /// By what.
    pub evidence: Evidence,
}

/// A live connection, for a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The number that the log has for it.
    pub peer: PeerId,
    /// When it came.
    pub since: UnixSeconds,
    /// What it is recognised as, if it is.
    pub known: Option<Recognition>,
}

/// A connection that is counted as long as this lives.
#[derive(Debug)]
pub struct ConnectionGuard {
    telemetry: Arc<Telemetry>,
    peer: PeerId,
}

/// A connection of the path relay that is counted as long as this lives.
#[derive(Debug)]
pub struct SignallerGuard(Arc<Telemetry>);

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry {
            started: UnixSeconds::now(),
            shards: Sharded::new(SHARDS),
            relay: Mutex::default(),
            mixtures: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }
}

impl Telemetry {
    /// Counts that begin now.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Counts a new connection. There is at most one of a peer.
    pub fn connection(self: &Arc<Self>, peer: PeerId) -> ConnectionGuard {
        let mut shard = self.shard(peer).lock();
        shard.live.insert(peer, Entry { since: UnixSeconds::now(), known: None });
        shard.counts.enter(None);
        ConnectionGuard { telemetry: Arc::clone(self), peer }
    }

    /// How many rooms there were in which clients of different generations were bound to one another.
    pub fn mixtures(&self) -> u64 {
        self.mixtures.load(Ordering::Relaxed)
    }

    /// Counts a connection that a panic ended.
    pub fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many connections a panic ended.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Counts a new connection of the path relay.
    pub fn relayed(self: &Arc<Self>) -> SignallerGuard {
        self.relay.lock().enter();
        SignallerGuard(Arc::clone(self))
    }

    /// What a live connection speaks, if that is known.
    pub fn dialect(&self, peer: PeerId) -> Option<Dialect> {
        let shard = self.shard(peer).lock();
        shard.live.get(&peer).and_then(|entry| entry.known).map(|known| known.dialect)
    }

    /// All counts, and when they began.
    pub fn counts(&self) -> (Counts, UnixSeconds) {
        let mut sum = Counts::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.lock().counts));
        (sum, self.started)
    }

    /// The counts of the path relay.
    pub fn relay(&self) -> ConnectionCount {
        *self.relay.lock()
    }

    /// All live connections, oldest first.
    pub fn live(&self) -> Vec<ConnectionInfo> {
        let mut all = Vec::new();
        for shard in self.shards.iter() {
            let shard = shard.lock();
            let list = shard.live.iter();
            all.extend(list.map(|(peer, entry)| ConnectionInfo {
                peer: *peer,
                since: entry.since,
                known: entry.known,
            }));
        }
        all.sort_unstable_by_key(|live| live.peer.0);
        all
    }

    fn shard(&self, peer: PeerId) -> &Mutex<Shard> {
        self.shards.get(peer.0)
    }
}

impl ConnectionGuard {
    /// It is the first in its room to be bound to a client of another generation.
    pub fn mixed(&self) {
        self.telemetry.mixtures.fetch_add(1, Ordering::Relaxed);
    }

    /// It was recognised, or is now known better. What it was counted as before is taken back.
    pub fn recognised(&self, releases: ReleaseSet, evidence: Evidence) {
        let known = Recognition { releases, dialect: Candidates::new(releases).dialect(), evidence };
        let shard = &mut *self.telemetry.shard(self.peer).lock();
        if let Some(entry) = shard.live.get_mut(&self.peer) {
            shard.counts.take_back(entry.known);
            entry.known = Some(known);
            shard.counts.enter(entry.known);
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let shard = &mut *self.telemetry.shard(self.peer).lock();
        if let Some(entry) = shard.live.remove(&self.peer) {
            shard.counts.leave(entry.known, UnixSeconds::now());
        }
        let (length, capacity) = (shard.live.len(), shard.live.capacity());
        if capacity > KEEP_CAPACITY && length < capacity / 4 {
            shard.live.shrink_to(2 * length);
        }
    }
}

impl Drop for SignallerGuard {
    fn drop(&mut self) {
        self.0.relay.lock().leave(UnixSeconds::now());
    }
}

#[cfg(test)]
mod tests;
