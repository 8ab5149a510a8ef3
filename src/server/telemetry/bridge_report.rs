//! The bridge between generations in reports.

use serde::Serialize;

use crate::protocol::mesh::BridgeFigures;

/// Figures of the bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BridgeReport {
    /// True if a bridge is connected.
    pub connected: bool,
    /// Connections of a bridge since the start.
    pub connections: u64,
    /// Keys that the bridge knows of.
    pub keys: u64,
    /// Members in the rooms of these keys.
    pub members: u64,
    /// Negotiations that the bridge began, since the start.
    pub calls: u64,
    /// Negotiations of joiners without a member of their generation, since the start.
    pub callers: u64,
    /// Negotiations that ended before both sides had sent their session descriptions, since the start.
    pub failed_calls: u64,
    /// Figures of the process, since it started.
    pub process: BridgeFigures,
}
