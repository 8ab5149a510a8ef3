//! The configuration of detection: the releases that a client may speak, how long to wait for evidence, and
//! the rooms.

use std::time::Duration;

use regex_lite::Regex;

use super::canonical_key;
use crate::protocol::dialect::{Family, ReleaseSet, SessionOptions};
use crate::protocol::model::RoomKey;

/// The configuration of detection.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The releases that a client may speak: at most one of each dialect.
    pub releases: ReleaseSet,
    /// Times to wait for evidence.
    pub timeouts: DetectionTimeouts,
    /// Session descriptions and candidates are translated between the generations.
    pub transcode: bool,
    /// The clients that meet under one key.
    pub rooms: RoomPolicy,
    /// The keys whose rooms a bridge joins: they have a room for each peer protocol as well.
    pub bridged: RoomPolicy,
    /// Keys that differ only in their spelling name the same room.
    pub canonical_keys: bool,
}

impl Policy {
    /// Returns the default policy for these releases.
    pub fn new(releases: ReleaseSet) -> Self {
        Policy {
            releases,
            timeouts: DetectionTimeouts::default(),
            transcode: true,
            rooms: RoomPolicy::Shared,
            bridged: RoomPolicy::Shared,
            canonical_keys: releases.has_both_kinds_of_key(),
        }
    }

    /// Returns the options of a connection's codec.
    pub(super) fn session_options(&self) -> SessionOptions {
        SessionOptions { transcode: self.transcode, pinned: self.releases.len() == 1 }
    }

    /// Returns the key of the room that a client means by `key`.
    pub fn room_key(&self, key: RoomKey) -> RoomKey {
        if self.canonical_keys { canonical_key::canonical(key) } else { key }
    }

    /// Returns true if no key stands for several rooms.
    pub(super) fn has_shared_rooms_only(&self) -> bool {
        matches!((&self.rooms, &self.bridged), (RoomPolicy::Shared, RoomPolicy::Shared))
    }

    /// Returns true if the key stands for several rooms.
    pub(super) fn is_partitioned(&self, key: &str) -> bool {
        self.rooms.is_partitioned(key) || self.is_bridged(key)
    }

    /// Returns true if the rooms of the key are bridged.
    pub(crate) fn is_bridged(&self, key: &str) -> bool {
        self.bridged.is_partitioned(key)
    }

    /// Returns true if the path of a WebSocket may be a room key.
    pub(crate) fn has_keys_in_paths(&self) -> bool {
        let families = [Family::ProtobufV1, Family::ProtobufV2];
        families.into_iter().any(|family| !self.releases.of_family(family).is_empty())
    }

    /// Returns true if a client may be sent a message before it has sent one, and without a wait for
    /// evidence: nothing is to be detected, and clients of these releases await the first message.
    pub(crate) fn sends_first(&self) -> bool {
        let all = self.releases;
        match all.len() {
            1 => all.of_family(Family::ProtobufV2).is_empty(),
            _ => all.of_family(Family::ProtobufV1) == all,
        }
    }
}

/// The clients that meet under one key.
#[derive(Clone, Debug, Default)]
pub enum RoomPolicy {
    /// All of them.
    #[default]
    Shared,
    /// Clients meet those of their peer protocol only.
    Partitioned,
    /// Clients meet those of their peer protocol only, in rooms whose keys match.
    PartitionedFor(Regex),
}

/// Expressions are equal if their texts are.
impl PartialEq for RoomPolicy {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (RoomPolicy::Shared, RoomPolicy::Shared) => true,
            (RoomPolicy::Partitioned, RoomPolicy::Partitioned) => true,
            (RoomPolicy::PartitionedFor(a), RoomPolicy::PartitionedFor(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl RoomPolicy {
    /// Returns true if the key stands for several rooms.
    pub(crate) fn is_partitioned(&self, key: &str) -> bool {
        match self {
            RoomPolicy::Shared => false,
            RoomPolicy::Partitioned => true,
            RoomPolicy::PartitionedFor(keys) => keys.is_match(key),
        }
    }
}

/// Times to wait for evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectionTimeouts {
    /// Time after the pong in which a client has to send its first frame, or is treated as one that waits for
    /// the server's. Longer: a slower page is not misjudged; shorter: clients of sigver 15 to 18 wait less.
    pub margin: Duration,
    /// Longest such time after the upgrade on a fast link. Without a pong, a silent client is sent the first
    /// frame after four times as long.
    pub silence: Duration,
    /// Time in which a client that has to send the first frame must do so, before it is closed.
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
