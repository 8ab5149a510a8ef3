//! What the operator allows: the releases a client may speak, and how long we wait for evidence.

use std::time::Duration;

use super::partition::RoomPolicy;
use crate::protocol::dialect::{Dialect, Release, ReleaseSet};

/// What the operator allows.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The candidates at the beginning: at most one release of each dialect.
    pub releases: ReleaseSet,
    /// How long we wait.
    pub windows: DetectionTimeouts,
    /// Whether what builds a data channel is translated between the generations.
    pub transcode: bool,
    /// Who meets under one key.
    pub rooms: RoomPolicy,
}

impl Policy {
    /// Clients may speak these releases; all else is as it is by default.
    pub fn of(releases: ReleaseSet) -> Self {
        Policy { releases, windows: DetectionTimeouts::default(), transcode: true, rooms: RoomPolicy::Shared }
    }
}

/// How long we wait for evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectionTimeouts {
    /// After the client answered a WebSocket ping, how much longer it may take to say its first word before it is
    /// taken for one that waits for ours. Longer: a slower page is not misjudged; shorter: clients of sigver 15 to
    /// 18 wait less.
    pub margin: Duration,
    /// The window when the ping is not answered. Four times this long without an answer, a silent client is spoken
    /// to all the same.
    pub silence: Duration,
    /// How long a client may be silent before it is closed, if speaking first is up to it.
    pub first_frame: Duration,
}

impl Default for DetectionTimeouts {
    fn default() -> Self {
        DetectionTimeouts {
            margin: Duration::from_millis(150),
            silence: Duration::from_millis(500),
            first_frame: Duration::from_secs(60),
        }
    }
}

/// Which of several candidates a client is taken for while nothing tells them apart: what most deployed clients
/// speak first, and dialects without a published client last.
const PRIORITY: [Dialect; 16] = [
    Dialect::Sigver20,
    Dialect::Sigver18,
    Dialect::Sigver15,
    Dialect::Sigver16,
    Dialect::Sigver19,
    Dialect::Sigver9,
    Dialect::Sigver7_6,
    Dialect::Sigver7,
    Dialect::Sigver13,
    Dialect::Sigver11,
    Dialect::Sigver5,
    Dialect::Sigver8,
    Dialect::Sigver6,
    Dialect::Sigver4,
    Dialect::Sigver1,
    Dialect::Sigver15_1,
];

/// The likeliest of the candidates; without candidates, the current release.
pub fn likeliest(candidates: ReleaseSet) -> Release {
    PRIORITY
        .into_iter()
        .find_map(|dialect| candidates.iter().find(|release| release.dialect() == dialect))
        .unwrap_or(Release::V20_1_0)
}
