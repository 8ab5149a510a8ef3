//! The names by which the model knows things. None of them is a dialect's own id.

use std::fmt;
use std::sync::Arc;

/// One connection, for as long as it lasts. Never sent to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// One joiner bound to one member.
///
/// Drawn at random from 1 to 2³¹ − 1, so that the dialects with numeric ids (an `i32` in the narrowest of their
/// clients) can show it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// The id that a client says it has in the peer-to-peer network it builds (sigver 19 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetId(pub u32);

/// An opaque mark of how the sender of a payload speaks. The model carries it and never looks inside; a codec
/// that does not yet know its own client's dialect takes it as a hint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SenderTag(pub u8);

/// The name under which peers meet.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RoomKey {
    text: Arc<str>,
    /// Which of the rooms under this text, if there are several.
    partition: u8,
}

impl RoomKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Another room under the same text.
    #[must_use]
    pub fn with_partition(self, partition: u8) -> Self {
        RoomKey { partition, ..self }
    }
}

impl From<&str> for RoomKey {
    fn from(key: &str) -> Self {
        RoomKey { text: key.into(), partition: 0 }
    }
}

/// Keys are the secret that lets a peer into a room: debug output, and so every log, shows only their length.
impl fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomKey({} bytes)", self.text.len())
    }
}
