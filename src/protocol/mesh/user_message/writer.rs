//! Division of messages into the chunks of another group.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::MessageChunk;
use super::codec::{ChunkPlace, encode};
use crate::protocol::mesh::group::MeshGroup;

/// Most messages that may be unfinished at once on one channel. Clients send the chunks of a message one
/// after the other.
pub const MAX_OPEN_MESSAGES: usize = 8;

/// Reason why a chunk is not carried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// The message is longer than allowed. Nothing of it was written.
    #[error("message too long")]
    TooLong,
    /// More than [`MAX_OPEN_MESSAGES`] are unfinished. Nothing of this one was written.
    #[error("too many unfinished messages")]
    TooManyOpen,
    /// The chunk does not follow the one before it. The rest of the message is dropped.
    #[error("chunk out of order")]
    OutOfOrder,
    /// The chunk belongs to a message that was dropped before.
    #[error("chunk of a dropped message")]
    Dropped,
}

/// A message or part of one, as [`ChunkWriter::push`] returns it: for netflux 0.10 to 1.0 what follows code,
/// sender and recipient in the frame, for the others the frame's content.
pub type ChunkedMessage = Bytes;

/// A message that is not complete yet.
#[derive(Debug)]
struct OpenMessage {
    /// Number that the sender gave it.
    from: u32,
    place: ChunkPlace,
    received: u32,
    /// Data not written yet: less than a chunk.
    rest: BytesMut,
}

/// Writes the messages from one channel in the form of another group.
#[derive(Debug)]
pub struct ChunkWriter {
    group: MeshGroup,
    max_message: u32,
    last_number: u16,
    open: Vec<OpenMessage>,
}

impl ChunkWriter {
    /// Creates a writer for receivers of `group`, for messages of at most `max_message` bytes. The first one
    /// in chunks has the number behind `last_number`.
    pub fn new(group: MeshGroup, max_message: u32, last_number: u16) -> Self {
        ChunkWriter { group, max_message, last_number, open: Vec::new() }
    }

    /// Returns the number of bytes that wait for more of their message.
    pub fn buffered(&self) -> usize {
        self.open.iter().map(|message| message.rest.len()).fold(0, usize::saturating_add)
    }

    /// Appends to `out` what can be written with this chunk.
    ///
    /// # Errors
    ///
    /// The chunk is not carried on, and neither is what follows of its message.
    pub fn push(&mut self, chunk: &MessageChunk, out: &mut Vec<ChunkedMessage>) -> Result<(), ChunkError> {
        let at = self.open.iter().position(|open| open.from == chunk.message);
        let mut message = match at {
            // The sender has begun another message under this number, or a first chunk was repeated.
            _ if chunk.offset == 0 => {
                if let Some(at) = at {
                    self.open.swap_remove(at);
                }
                self.begin(chunk)?
            }
            Some(at) => self.open.swap_remove(at),
            None => return Err(ChunkError::Dropped),
        };
        let end = u32::try_from(chunk.data.len()).ok().and_then(|length| chunk.offset.checked_add(length));
        let follows = message.received == chunk.offset && message.place.total == chunk.total;
        let Some(end) = end.filter(|end| follows && *end <= chunk.total) else {
            return Err(ChunkError::OutOfOrder);
        };
        message.received = end;
        self.write(&mut message, &chunk.data, out);
        if message.received < message.place.total {
            self.open.push(message);
        }
        Ok(())
    }

    fn begin(&mut self, chunk: &MessageChunk) -> Result<OpenMessage, ChunkError> {
        if chunk.total > self.max_message {
            return Err(ChunkError::TooLong);
        }
        if self.open.len() >= MAX_OPEN_MESSAGES {
            return Err(ChunkError::TooManyOpen);
        }
        let is_whole = chunk.total <= self.group.facts().chunk_length;
        if !is_whole {
            self.last_number = self.last_number.checked_add(1).unwrap_or(1);
        }
        let place = ChunkPlace {
            is_text: chunk.is_text,
            is_broadcast: chunk.is_broadcast,
            total: chunk.total,
            message: if is_whole { 0 } else { self.last_number },
            number: 0,
        };
        Ok(OpenMessage { from: chunk.message, place, received: 0, rest: BytesMut::new() })
    }

    /// Writes the chunks that are complete.
    fn write(&self, message: &mut OpenMessage, data: &[u8], out: &mut Vec<ChunkedMessage>) {
        let length = self.group.facts().chunk_length as usize;
        let mut data = data;
        let is_end = message.received == message.place.total;
        while message.rest.len().saturating_add(data.len()) >= length {
            let (now, later) =
                data.split_at_checked(length.saturating_sub(message.rest.len())).unwrap_or((data, &[]));
            if message.rest.is_empty() {
                out.push(encode(self.group, message.place, now));
            } else {
                message.rest.extend_from_slice(now);
                out.push(encode(self.group, message.place, &message.rest));
                message.rest.clear();
            }
            message.place.number = message.place.number.saturating_add(1);
            data = later;
        }
        if !is_end {
            message.rest.extend_from_slice(data);
        } else if !message.rest.is_empty() || !data.is_empty() || message.place.total == 0 {
            message.rest.extend_from_slice(data);
            out.push(encode(self.group, message.place, &message.rest));
            message.rest.clear();
        }
    }
}
