//! A user message between groups. Every chunk names the length of the whole message and channels are
//! ordered, so a message is divided into the receiver's chunks as it arrives, and never collected.

mod codec;
#[cfg(test)]
mod tests;
mod writer;

use bytes::Bytes;

use super::group::MeshGroup;

pub use writer::{ChunkError, ChunkWriter, ChunkedMessage, MAX_OPEN_MESSAGES};

/// Part of a user message, in no group's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageChunk {
    /// Number that the chunks of one message share. Messages in one chunk may all have 0.
    pub message: u32,
    /// True for text in UTF-8, false for bytes. Typed arrays of older clients are bytes.
    pub is_text: bool,
    /// True if the message was sent to all members.
    pub is_broadcast: bool,
    /// Length of the whole message, in bytes.
    pub total: u32,
    /// Place of the data in the whole message.
    pub offset: u32,
    /// The data.
    pub data: Bytes,
}

impl MessageChunk {
    /// Decodes a chunk of `group`: the part of a frame that [`ChunkWriter`] writes. In protobuf the frame's
    /// recipient shows if the message was sent to all. `None` if the bytes are no chunk, or if their length
    /// is not the one that their place in the message leaves for them.
    pub fn decode(group: MeshGroup, written: &Bytes, is_broadcast: bool) -> Option<Self> {
        if group.is_protobuf() {
            codec::decode_protobuf(group, written, is_broadcast)
        } else {
            codec::decode_json_era(group, written.clone())
        }
    }
}
