//! Bounds of peer connections.

use std::time::Duration;

/// Bounds of all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerConnectionLimits {
    /// Most connections. More are refused. Those of one client may be no more than are free for others.
    pub(crate) max_connections: usize,
    /// Most connections in one room. More are refused.
    pub(crate) max_connections_per_room: usize,
    /// Most bytes that wait for one channel. More close it.
    pub(crate) max_waiting: usize,
    /// Most bytes that wait for all channels. More close the channel that they are for.
    pub(crate) max_waiting_in_all: usize,
    /// Maximum duration without a check from a client before its connection is treated as lost.
    pub(crate) silence: Duration,
    /// Processor time that the packets of one client in one room may take, in microseconds per second. More
    /// close its connections.
    pub(crate) work_rate: u32,
    /// Processor time that they may take at once: that of the longest messages, from several members behind
    /// one address, on a slow processor.
    pub(crate) work_burst: Duration,
}

impl Default for PeerConnectionLimits {
    fn default() -> Self {
        PeerConnectionLimits {
            max_connections: 2_000,
            max_connections_per_room: 256,
            max_waiting: 8 << 20,
            max_waiting_in_all: 128 << 20,
            silence: Duration::from_secs(8),
            work_rate: 250_000,
            work_burst: Duration::from_secs(4),
        }
    }
}
