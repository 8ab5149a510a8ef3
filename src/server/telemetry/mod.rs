//! Usage by dialect: how many connections are and were open, when the last one closed, and by which evidence
//! each was recognised. Numbers only: no payload or key is kept, and an address only of the last client that
//! reached a limit, until the log has it.
//!
//! The driver of a connection holds a `ConnectionGuard` and updates it. A [`Report`] is plain data, which
//! `render` turns into a [`Format`].

mod activity;
mod bridge_report;
mod callout_counts;
mod cluster_report;
mod counts;
mod json;
mod limit_counts;
mod limit_lines;
mod log_counts;
mod report;
mod text;
mod time;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tracing::Span;

pub(crate) use activity::Activity;
pub use bridge_report::BridgeReport;
pub(crate) use callout_counts::CalloutCounts;
pub use cluster_report::{
    ClaimCounts, ClusterReport, ClusterTimes, LinkCutCounts, LostRoomCounts, OtherNodeReport,
};
pub use counts::EvidenceCount;
pub(crate) use counts::{ConnectionCount, Counts};
use limit_counts::LimitCounts;
pub use limit_counts::{LimitKind, LimitsReport};
use limit_lines::LimitLines;
pub(in crate::server) use limit_lines::{LimitLine, LimitedClient};
pub use log_counts::{LogCounts, LogReport};
pub(crate) use report::ServerSummary;
pub use report::{
    ConnectionReport, CountReport, DialectReport, LinkCounts, OverallCount, Report, RoomSummary, RoomsReport,
    SignallerReport,
};
pub use time::UnixSeconds;

use crate::protocol::dialect::{Candidates, Dialect, Evidence, ReleaseSet};
use crate::protocol::model::PeerId;
use crate::server::client_endpoint::ClientEndpoint;
use crate::server::sharded::Sharded;

/// Number of shards over which the connections are spread.
const SHARDS: usize = 16;

/// Capacity up to which a table of connections is never shrunk.
const MIN_CAPACITY: usize = 64;

/// Form in which a report is rendered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Tables for people.
    #[default]
    Text,
    /// One JSON object, indented. docs/reference/status-json.md lists the names.
    Json,
}

/// Returns `report` in `format`, with a line end.
pub(crate) fn render(report: &Report, format: Format) -> String {
    match format {
        Format::Text => text::render(report),
        Format::Json => json::render(report),
    }
}

/// Counters of all connections.
#[derive(Debug)]
pub struct Telemetry {
    started: UnixSeconds,
    shards: Sharded<Shard>,
    signaller: Mutex<ConnectionCount>,
    mixed_rooms: AtomicU64,
    /// Connections that a panic ended.
    panics: AtomicU64,
    limits: LimitCounts,
    limit_lines: Mutex<LimitLines>,
    /// Questions to the program that decides about tokens.
    pub(crate) callout: Arc<CalloutCounts>,
}

/// Some of the connections, and their part of the counts.
#[derive(Debug, Default)]
struct Shard {
    connections: HashMap<PeerId, Entry>,
    counts: Counts,
}

/// Data of an open connection. Every idle connection pays for it, so it is kept small.
#[derive(Clone, Copy, Debug)]
struct Entry {
    since: UnixSeconds,
    recognition: Option<Recognition>,
}

/// Result of detection for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recognition {
    /// Releases that the client may still be of.
    pub(crate) releases: ReleaseSet,
    /// Dialect of the most likely of `releases`, which is spoken with the client.
    pub(crate) dialect: Dialect,
    /// Evidence that led to `releases`.
    pub(crate) evidence: Evidence,
}

/// An open connection, for a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionInfo {
    /// Number of the connection, which is also in the log.
    pub(crate) peer: PeerId,
    /// Time of the connection's start.
    pub(crate) since: UnixSeconds,
    /// Result of detection so far.
    pub(crate) recognition: Option<Recognition>,
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    telemetry: Arc<Telemetry>,
    peer: PeerId,
}

/// Counts a signaller connection as open until it is dropped.
#[derive(Debug)]
pub(crate) struct SignallerGuard(Arc<Telemetry>);

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry {
            started: UnixSeconds::now(),
            shards: Sharded::new(SHARDS),
            signaller: Mutex::default(),
            mixed_rooms: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            limits: LimitCounts::default(),
            limit_lines: Mutex::default(),
            callout: Arc::default(),
        }
    }
}

impl Telemetry {
    /// Returns counters that start at zero now.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Counts a new connection. Each `peer` may be registered only once.
    pub(crate) fn register(self: &Arc<Self>, peer: PeerId) -> ConnectionGuard {
        let mut shard = self.shard(peer).lock();
        shard.connections.insert(peer, Entry { since: UnixSeconds::now(), recognition: None });
        shard.counts.open(None);
        ConnectionGuard { telemetry: Arc::clone(self), peer }
    }

    /// Counts a new signaller connection.
    pub(crate) fn register_signaller(self: &Arc<Self>) -> SignallerGuard {
        self.signaller.lock().open();
        SignallerGuard(Arc::clone(self))
    }

    /// Counts a connection that a panic ended.
    pub(super) fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of connections so far that a panic ended.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Counts that a limit was reached, by the client whose connection has the current span.
    pub(super) fn count_limit(&self, kind: LimitKind) {
        self.count_limit_by(kind, LimitedClient::Connected(Span::current()));
    }

    /// Counts that a client whose connection has no span yet has reached a limit.
    pub(super) fn count_limit_of(&self, kind: LimitKind, endpoint: ClientEndpoint) {
        self.count_limit_by(kind, LimitedClient::Unadmitted(endpoint.remote));
    }

    fn count_limit_by(&self, kind: LimitKind, client: LimitedClient) {
        // Before the count, so that the line has the client.
        self.limit_lines.lock().set_last(kind, client);
        self.limits.count(kind);
    }

    /// Returns the number of times so far that a limit was reached.
    pub fn limit_count(&self, kind: LimitKind) -> u64 {
        self.limits.get(kind)
    }

    /// Returns the number of times so far that each limit was reached.
    pub(crate) fn limits(&self) -> LimitsReport {
        LimitsReport::new(&self.limits)
    }

    /// Returns the lines of the log about limits that are due.
    pub(super) fn due_limit_lines(&self, now: Instant) -> Vec<LimitLine> {
        self.limit_lines.lock().due(&self.limits, now)
    }

    /// Returns the number of rooms so far in which clients of different generations were connected to one
    /// another.
    pub(crate) fn mixed_rooms(&self) -> u64 {
        self.mixed_rooms.load(Ordering::Relaxed)
    }

    /// Returns the result of detection for an open connection, if it is recognised.
    pub(crate) fn recognition(&self, peer: PeerId) -> Option<Recognition> {
        self.shard(peer).lock().connections.get(&peer).and_then(|entry| entry.recognition)
    }

    /// Returns the time at which counting began.
    pub(crate) fn started(&self) -> UnixSeconds {
        self.started
    }

    /// Returns the counts of all connections but those of `signaller`.
    pub(crate) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.lock().counts));
        sum
    }

    /// Returns the count of signaller connections.
    pub(crate) fn signaller(&self) -> ConnectionCount {
        *self.signaller.lock()
    }

    /// Returns all open connections, oldest first.
    pub(crate) fn connections(&self) -> Vec<ConnectionInfo> {
        let mut all = Vec::new();
        for shard in self.shards.iter() {
            let shard = shard.lock();
            all.extend(shard.connections.iter().map(|(peer, entry)| ConnectionInfo {
                peer: *peer,
                since: entry.since,
                recognition: entry.recognition,
            }));
        }
        all.sort_unstable_by_key(|connection| connection.peer.0);
        all
    }

    fn shard(&self, peer: PeerId) -> &Mutex<Shard> {
        self.shards.get(peer.0)
    }
}

impl ConnectionGuard {
    /// Counts the room of this connection as mixed. To be called once for each room.
    pub(crate) fn count_mixed_room(&self) {
        self.telemetry.mixed_rooms.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the connection under a new result of detection, in place of the previous one. Returns its
    /// dialect.
    pub(crate) fn set_recognition(&self, releases: ReleaseSet, evidence: Evidence) -> Dialect {
        let dialect = Candidates::new(releases).dialect();
        let recognition = Recognition { releases, dialect, evidence };
        let shard = &mut *self.telemetry.shard(self.peer).lock();
        if let Some(entry) = shard.connections.get_mut(&self.peer) {
            shard.counts.revert(entry.recognition);
            entry.recognition = Some(recognition);
            shard.counts.open(entry.recognition);
        }
        dialect
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let shard = &mut *self.telemetry.shard(self.peer).lock();
        if let Some(entry) = shard.connections.remove(&self.peer) {
            shard.counts.close(entry.recognition, UnixSeconds::now());
        }
        let (len, capacity) = (shard.connections.len(), shard.connections.capacity());
        if capacity > MIN_CAPACITY && len < capacity / 4 {
            shard.connections.shrink_to(2 * len);
        }
    }
}

impl Drop for SignallerGuard {
    fn drop(&mut self) {
        self.0.signaller.lock().close(UnixSeconds::now());
    }
}

#[cfg(test)]
mod tests;
