//! The ids of the model. None of them is an id of a dialect.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One connection. Unique for the lifetime of the cluster, and never sent to a client.
///
/// The upper 16 bits are the number of the node, the lower 48 bits a sequence number on that node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PeerId(pub u64);

impl PeerId {
    const SEQUENCE_BITS: u32 = 48;

    /// Creates the id of a connection of a node. The upper 16 bits of `sequence` are ignored.
    pub const fn new(node: u16, sequence: u64) -> Self {
        let mask = (1 << Self::SEQUENCE_BITS) - 1;
        PeerId((node as u64) << Self::SEQUENCE_BITS | sequence & mask)
    }
}

/// One joiner linked to one member.
///
/// Drawn at random from 1 to 2³¹ − 1, so that dialects with numeric ids (an `i32` in the narrowest of their
/// clients) can use it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkId(pub u32);

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The end that joined.
    Joiner,
    /// The end that was in the room before.
    Member,
}

impl Side {
    /// Returns the other end.
    pub const fn opposite(self) -> Self {
        match self {
            Side::Joiner => Side::Member,
            Side::Member => Side::Joiner,
        }
    }
}

/// The id of a client in the peer-to-peer network it builds, chosen by the client (sigver 19 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetId(pub u32);

/// An opaque mark of the dialect in which a payload was sent. Rooms forward it; a codec that does not yet
/// know the dialect of its own client uses it as a hint.
///
/// The mark is the version in the name of the dialect. The default is that of no dialect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SenderTag {
    major: u8,
    minor: u8,
    /// The peer protocols that the sender may speak, one bit each; 0 for that of the dialect.
    peer_protocols: u8,
}

impl SenderTag {
    /// Creates the tag of the dialect `sigver-<major>.<minor>`.
    pub const fn new(major: u8, minor: u8) -> Self {
        SenderTag { major, minor, peer_protocols: 0 }
    }

    /// Returns the tag of a sender of unknown dialect that may speak these peer protocols, one bit each.
    #[must_use]
    pub(crate) const fn with_peer_protocols(self, peer_protocols: u8) -> Self {
        SenderTag { peer_protocols, ..self }
    }

    /// Returns the peer protocols that the sender may speak, one bit each; `None` for that of the dialect.
    pub(crate) const fn peer_protocols(self) -> Option<u8> {
        match self.peer_protocols {
            0 => None,
            set => Some(set),
        }
    }

    /// Returns the tag of the dialect alone.
    #[must_use]
    pub(crate) const fn of_dialect(self) -> Self {
        SenderTag { peer_protocols: 0, ..self }
    }
}

impl fmt::Display for SenderTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            0 => write!(f, "sigver-{}", self.major),
            minor => write!(f, "sigver-{}.{minor}", self.major),
        }
    }
}

/// The name under which peers meet.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoomKey {
    text: Arc<str>,
    /// Number of the room among those with this text.
    partition: u8,
}

impl RoomKey {
    /// Returns the text of the key.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the number of the room among those with this text.
    pub(crate) fn partition(&self) -> u8 {
        self.partition
    }

    /// Returns the key with another text, in the room of the same number.
    #[must_use]
    pub(crate) fn with_text(&self, text: &str) -> Self {
        RoomKey { text: text.into(), partition: self.partition }
    }

    /// Returns the key of another room with the same text.
    #[must_use]
    pub(crate) fn with_partition(self, partition: u8) -> Self {
        RoomKey { partition, ..self }
    }
}

impl From<&str> for RoomKey {
    fn from(key: &str) -> Self {
        RoomKey::from(Arc::from(key))
    }
}

impl From<Arc<str>> for RoomKey {
    fn from(text: Arc<str>) -> Self {
        RoomKey { text, partition: 0 }
    }
}

/// Shows the length only, as keys are the secrets that let peers into rooms, and debug output ends up in
/// logs.
impl fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomKey({} bytes)", self.text.len())
    }
}
