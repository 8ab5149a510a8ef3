//! The messages between nodes, and their frames: the length of the rest and the number of a session, in four
//! bytes each, least significant first, and the message in the form of `postcard`.
//!
//! A variant is its number: a new one comes last, and is sent only to nodes whose [`Hello`] has a version
//! that knows it.

use std::io;

use bytestring::ByteString;
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::question::Question;
use crate::protocol::model::{Command, Event, LinkId, RoomKey, RoomRole};
use crate::server::hub::Hold;

/// The version of these messages.
pub(super) const VERSION: u16 = 2;
/// The lowest version of another node that this one works with.
pub(super) const OLDEST_VERSION: u16 = 1;
/// The version from which on nodes know handles of signaller.
pub(super) const WITH_HANDLES: u16 = 2;

/// Bytes of the length of a frame, which are not counted in it.
pub(super) const LENGTH: usize = 4;

/// The session of messages that concern the link.
pub(super) const LINK_SESSION: u32 = 0;

/// The session of the first message of a [`Call`], and of the answer, `true` or `false`.
pub(super) const CALL_SESSION: u32 = u32::MAX;

/// The first message in both directions of a link. A later version may append fields, which this one does
/// not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The highest version that the sender knows. Both use the lower of the two.
    pub(super) version: u16,
    /// The lowest version that the sender works with.
    pub(super) oldest: u16,
}

impl Hello {
    /// Returns the greeting of this node.
    pub(super) fn own() -> Self {
        Hello { version: VERSION, oldest: OLDEST_VERSION }
    }

    /// Returns the version of the other node.
    ///
    /// # Errors
    /// The two have no version in common.
    pub(super) fn check(self) -> io::Result<u16> {
        if self.version < OLDEST_VERSION || self.oldest > VERSION || self.oldest > self.version {
            return Err(invalid(OtherVersions(self)));
        }
        Ok(self.version)
    }
}

/// Another node works with no version that this one knows.
#[derive(Clone, Copy, Debug, Error)]
#[error(
    "the other node speaks versions {} to {} to other nodes, and this one {OLDEST_VERSION} to {VERSION}",
    .0.oldest, .0.version
)]
pub(super) struct OtherVersions(Hello);

/// The first message over a connection that is no link, but that of one client: if the answer is `true`, all
/// that follows is what the client sends and receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames))]
pub(crate) enum Call {
    /// Connects to the listener under a handle of signaller.
    Connect(ByteString),
}

impl Question {
    /// Returns the version from which on nodes know the question.
    pub(super) fn version(&self) -> u16 {
        match self {
            Question::HasStream(_) | Question::Post(..) => 1,
            Question::HasListener(_) | Question::KeepsHandle(..) => WITH_HANDLES,
        }
    }
}

/// A message from the node of a connection to the node of its room. A session is one connection in one room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames))]
pub(super) enum EdgeMessage {
    /// Enter a room with a command.
    Enter(RoomKey, Command),
    /// A command of a peer that has entered.
    Command(Command),
    /// End the membership, but not the links.
    DropMembership,
    /// The link connects clients of different generations.
    MarkMixed(LinkId),
    /// Leave the room, after a normal closure or not.
    Leave(bool),
    /// Close the joiner whose full queue is the cause of the hold.
    CloseJoiner,
    /// The queue of the connection is full, or no longer.
    Full(bool),
    /// Sent at a time of the sender's clock, by a node that knows the engine's data of a generation, and
    /// these other nodes. Those that run, and do not know the sender, are there twice.
    Ping { sent: u64, generation: u64, others: Vec<u64> },
    /// The sender ends, and has no rooms any more.
    Bye,
    /// Asks whether the receiver has a room; answered only if it has.
    Find(RoomKey),
    /// A question, which is answered with its number.
    Ask { ticket: u32, question: Question },
}

/// A message from the node of a room to the node of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames))]
pub(super) enum OwnerMessage {
    /// An event for the connection.
    Event(Event),
    /// The role of the peer after its last command that may change it.
    Role(RoomRole),
    /// The peer is to be held.
    Hold(Hold),
    /// The hold is over.
    Relieved,
    /// Too much waits for the connection: it is to be closed.
    Overflow,
    /// Answer to a ping, with its time.
    Pong { sent: u64, generation: u64, others: Vec<u64> },
    /// The sender ends, and has no rooms any more.
    Bye,
    /// The sender has a room.
    Has(RoomKey),
    /// The answer to the question with that number.
    Answer { ticket: u32, yes: bool },
}

/// The first variant of [`OwnerMessage`] by reference.
#[derive(Serialize)]
pub(super) enum EventMessage<'a> {
    Event(&'a Event),
}

/// The buffer to which a message is serialized. `postcard::to_extend` would take and return it, which costs
/// as much as the copy of a message.
struct FrameBuffer<'a>(&'a mut Vec<u8>);

impl Flavor for FrameBuffer<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends a frame.
pub(super) fn append(buffer: &mut Vec<u8>, session: u32, message: &impl Serialize) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; LENGTH]);
    buffer.extend_from_slice(&session.to_le_bytes());
    postcard::serialize_with_flavor(message, FrameBuffer(buffer)).map_err(invalid)?;
    let length = u32::try_from(buffer.len().saturating_sub(start + LENGTH)).map_err(invalid)?;
    if let Some(head) = buffer.get_mut(start..start + LENGTH) {
        head.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

/// Returns the length of the frame that begins with `bytes`; `None` if it is not there yet.
pub(super) fn frame_length(bytes: &[u8], max_frame: usize) -> io::Result<Option<usize>> {
    let Some(length) = bytes.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > max_frame || length < 4 {
        return Err(invalid("a frame of invalid length"));
    }
    Ok(Some(length + LENGTH))
}

/// Returns the session and the message of the frame at the beginning of `bytes`, and the length of the frame;
/// `None` if it is not complete.
pub(super) fn split(bytes: &[u8], max_frame: usize) -> io::Result<Option<(u32, &[u8], usize)>> {
    let Some(length) = frame_length(bytes, max_frame)? else { return Ok(None) };
    let Some(frame) = bytes.get(LENGTH..length) else { return Ok(None) };
    let Some((session, message)) = frame.split_first_chunk::<4>() else { return Ok(None) };
    Ok(Some((u32::from_le_bytes(*session), message, length)))
}

/// Decodes a message.
pub(super) fn decode<'a, M: Deserialize<'a>>(bytes: &'a [u8]) -> io::Result<M> {
    postcard::from_bytes(bytes).map_err(invalid)
}

/// Returns an error about what another node sent.
pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Returns the error about another node that is silent.
pub(super) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other node did not answer in time")
}
