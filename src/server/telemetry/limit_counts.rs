//! Counts of the clients that were refused, closed or not read because of a limit.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer};
use strum::VariantArray;

/// A limit that clients can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum LimitKind {
    /// Connections at the same time.
    Connections,
    /// Connections of one address.
    ConnectionsPerAddress,
    /// New connections of one address in a second.
    ConnectionRate,
    /// Event streams of one address.
    StreamsPerAddress,
    /// Requests that wait for one event stream.
    StreamRequests,
    /// Time of a TLS handshake.
    TlsTimeout,
    /// Time of a request head.
    HeadTimeout,
    /// Time of the first frame.
    FirstFrameTimeout,
    /// Length of a request head.
    HeadSize,
    /// Length of a message.
    MessageSize,
    /// Nesting of a message.
    MessageDepth,
    /// Length of a room key.
    KeyLength,
    /// Time of a message.
    MessageTimeout,
    /// Messages or bytes of one connection in a second: counted whenever it is not read for a while.
    MessageRate,
    /// Bytes that wait for a client that does not read them.
    SlowConsumer,
    /// Bytes that wait for the receiver of a client's messages.
    ReceiverFull,
    /// Rooms at the same time.
    Rooms,
    /// Rooms of one connection: counted whenever it leaves one for another.
    RoomsPerConnection,
    /// Members of one room.
    Members,
    /// Joiners of one room.
    Joiners,
    /// Clients that would have replaced the only member of their room.
    Replacements,
    /// Memory of all clients together.
    Memory,
    /// Keys whose rooms are bridged.
    BridgedKeys,
    /// Negotiations of the bridge at the same time.
    BridgeCalls,
    /// Bytes that wait for the bridge.
    BridgeQueue,
}

impl LimitKind {
    /// Returns all limits, in their order in reports.
    pub const fn all() -> &'static [LimitKind] {
        LimitKind::VARIANTS
    }

    /// Returns true if it is a limit of one address.
    pub(crate) const fn is_of_address(self) -> bool {
        matches!(
            self,
            LimitKind::ConnectionsPerAddress | LimitKind::ConnectionRate | LimitKind::StreamsPerAddress
        )
    }

    /// Returns the name used in reports.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Number of times that each limit was reached.
#[derive(Debug, Default)]
pub(crate) struct LimitCounts([AtomicU64; LimitKind::VARIANTS.len()]);

impl LimitCounts {
    pub(super) fn count(&self, kind: LimitKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self, kind: LimitKind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }
}

/// The counts of all limits at one time.
#[derive(Clone, Debug)]
pub struct LimitsReport(Vec<(LimitKind, u64)>);

impl LimitsReport {
    pub(super) fn new(counts: &LimitCounts) -> Self {
        LimitsReport(LimitKind::all().iter().map(|kind| (*kind, counts.get(*kind))).collect())
    }

    /// Returns the limits with the number of times that each was reached.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LimitKind, u64)> {
        self.0.iter().copied()
    }
}

impl Serialize for LimitsReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(kind, count)| (kind.name(), count)))
    }
}
