//! Messages between the gateway and the process that bridges its rooms: who is in which room, and session
//! descriptions. Signaling stays with the gateway, and so do keys: a room has a number.
//!
//! A message is a length of four bytes, big-endian, and a protobuf message of that length.
//!
//! The bridge connects, and both send their hello first. The gateway then sends the clients that are there.
//! When the connection ends, its negotiations are over, clients can be called no more, and entries are
//! closed: the bridge keeps its rooms and their channels, and on the next connection opens its entries again.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use strum::VariantArray;
use thiserror::Error;

use super::bridge_figures::BridgeFigures;
use super::group::MeshGroup;
use super::protobuf::{Fields, ReadFields};

/// Version of the messages. Both ends send theirs first, and part if they differ.
pub const BRIDGE_MESSAGE_VERSION: u32 = 1;
/// Longest message, in bytes. Session descriptions are the longest part.
pub(crate) const MAX_BRIDGE_MESSAGE: usize = 64 << 10;
/// Length of the length.
const PREFIX_LENGTH: usize = 4;

/// Number of a room, which stays the same while the bridge runs, also for another process of the gateway.
pub type RoomNumber = u32;

/// Number of a negotiation between a client and the bridge. The bridge numbers its own calls, the gateway
/// those of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeCall {
    /// True if a client called.
    pub is_from_client: bool,
    /// The number.
    pub number: u32,
}

/// A message in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeMessage {
    /// The version of the sender.
    Hello {
        /// See [`BRIDGE_MESSAGE_VERSION`].
        version: u32,
        /// Random number that the bridge drew when it started, from which the gateway derives numbers of
        /// rooms; zero from the gateway.
        instance: u32,
    },
    /// From the gateway: a client that can be called is in a room.
    Arrived {
        /// The room.
        room: RoomNumber,
        /// Group of the client.
        group: MeshGroup,
        /// Alias of the client.
        target: u32,
    },
    /// From the gateway: a client can be called no more.
    Departed {
        /// The room.
        room: RoomNumber,
        /// Group of the client.
        group: MeshGroup,
        /// Alias of the client.
        target: u32,
    },
    /// From the gateway: a client without a member of its group calls a stand-in.
    Caller {
        /// The negotiation.
        call: BridgeCall,
        /// The room.
        room: RoomNumber,
        /// Group of the client.
        group: MeshGroup,
        /// Session description of the client.
        offer: String,
    },
    /// From the bridge: a stand-in calls a client.
    Call {
        /// The negotiation.
        call: BridgeCall,
        /// The room.
        room: RoomNumber,
        /// Group of the client.
        group: MeshGroup,
        /// Alias of the client.
        target: u32,
        /// The session description.
        offer: String,
    },
    /// The other side of a negotiation answers.
    Answer {
        /// The negotiation.
        call: BridgeCall,
        /// The session description.
        answer: String,
    },
    /// A negotiation is over.
    End {
        /// The negotiation.
        call: BridgeCall,
    },
    /// From the bridge: joiners of this group that find no member are its callers, or no longer.
    Entry {
        /// The room.
        room: RoomNumber,
        /// The group.
        group: MeshGroup,
        /// True to open it.
        is_open: bool,
    },
    /// From the bridge: its figures.
    Figures(BridgeFigures),
}

/// Reason why the other process cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BridgeMessageError {
    /// A message is longer than `MAX_BRIDGE_MESSAGE`.
    #[error("message too long")]
    TooLong,
    /// The bytes are no message of this version.
    #[error("not a message of this version")]
    Malformed,
}

/// Numbers of the messages on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
enum Kind {
    Hello = 1,
    Arrived,
    Departed,
    Caller,
    Call,
    Answer,
    End,
    Entry,
    Figures,
}

const ROOM: u32 = 2;
const GROUP: u32 = 3;
const TARGET: u32 = 4;
const CALL: u32 = 5;
const IS_FROM_CLIENT: u32 = 6;
const SDP: u32 = 7;
const IS_OPEN: u32 = 8;
const VERSION: u32 = 9;
const INSTANCE: u32 = 10;
const FIGURES: u32 = 11;

fn head(kind: Kind) -> Fields {
    Fields::new().number(1, kind as u32)
}

fn in_room(kind: Kind, room: RoomNumber, group: MeshGroup) -> Fields {
    head(kind).number(ROOM, room).number(GROUP, group as u32)
}

fn with_call(fields: Fields, call: BridgeCall) -> Fields {
    fields.number(CALL, call.number).number(IS_FROM_CLIENT, call.is_from_client.into())
}

impl BridgeMessage {
    /// Appends the message with its length.
    pub fn write(&self, out: &mut BytesMut) {
        let fields = match self {
            BridgeMessage::Hello { version, instance } => {
                head(Kind::Hello).number(VERSION, *version).number(INSTANCE, *instance)
            }
            BridgeMessage::Arrived { room, group, target } => {
                in_room(Kind::Arrived, *room, *group).number(TARGET, *target)
            }
            BridgeMessage::Departed { room, group, target } => {
                in_room(Kind::Departed, *room, *group).number(TARGET, *target)
            }
            BridgeMessage::Caller { call, room, group, offer } => {
                with_call(in_room(Kind::Caller, *room, *group), *call).bytes(SDP, offer.as_bytes())
            }
            BridgeMessage::Call { call, room, group, target, offer } => {
                let fields = in_room(Kind::Call, *room, *group).number(TARGET, *target);
                with_call(fields, *call).bytes(SDP, offer.as_bytes())
            }
            BridgeMessage::Answer { call, answer } => {
                with_call(head(Kind::Answer), *call).bytes(SDP, answer.as_bytes())
            }
            BridgeMessage::End { call } => with_call(head(Kind::End), *call),
            BridgeMessage::Entry { room, group, is_open } => {
                in_room(Kind::Entry, *room, *group).number(IS_OPEN, (*is_open).into())
            }
            BridgeMessage::Figures(figures) => head(Kind::Figures).bytes(FIGURES, &figures.encode()),
        };
        let bytes = fields.into_bytes();
        out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        out.put_slice(&bytes);
    }

    /// Takes the next message from what was received; `None` if it is not complete.
    ///
    /// # Errors
    ///
    /// The other process has to be parted from: what follows cannot be understood either.
    pub fn take(received: &mut BytesMut) -> Result<Option<BridgeMessage>, BridgeMessageError> {
        let Some(length) = received.first_chunk::<PREFIX_LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_BRIDGE_MESSAGE {
            return Err(BridgeMessageError::TooLong);
        }
        if received.len() < length.saturating_add(PREFIX_LENGTH) {
            return Ok(None);
        }
        received.advance(PREFIX_LENGTH);
        let message = received.split_to(length).freeze();
        BridgeMessage::read(&message).map(Some).ok_or(BridgeMessageError::Malformed)
    }

    fn read(message: &Bytes) -> Option<BridgeMessage> {
        let fields = ReadFields::read(message)?;
        let kind = Kind::VARIANTS.iter().find(|kind| **kind as u32 == fields.number(1))?;
        let room = fields.number(ROOM);
        let group = || MeshGroup::ALL.iter().copied().find(|group| *group as u32 == fields.number(GROUP));
        let target = fields.number(TARGET);
        let call =
            BridgeCall { is_from_client: fields.number(IS_FROM_CLIENT) == 1, number: fields.number(CALL) };
        let sdp = || fields.text(SDP);
        Some(match kind {
            Kind::Hello => {
                BridgeMessage::Hello { version: fields.number(VERSION), instance: fields.number(INSTANCE) }
            }
            Kind::Arrived => BridgeMessage::Arrived { room, group: group()?, target },
            Kind::Departed => BridgeMessage::Departed { room, group: group()?, target },
            Kind::Caller => BridgeMessage::Caller { call, room, group: group()?, offer: sdp()? },
            Kind::Call => BridgeMessage::Call { call, room, group: group()?, target, offer: sdp()? },
            Kind::Answer => BridgeMessage::Answer { call, answer: sdp()? },
            Kind::End => BridgeMessage::End { call },
            Kind::Entry => {
                BridgeMessage::Entry { room, group: group()?, is_open: fields.number(IS_OPEN) == 1 }
            }
            Kind::Figures => BridgeMessage::Figures(BridgeFigures::decode(fields.bytes(FIGURES)?)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages() -> Vec<BridgeMessage> {
        let call = BridgeCall { is_from_client: true, number: 7 };
        let own = BridgeCall { is_from_client: false, number: u32::MAX };
        let (room, target) = (9, 300);
        let mut messages = vec![
            BridgeMessage::Hello { version: BRIDGE_MESSAGE_VERSION, instance: 7_000 },
            BridgeMessage::Answer { call, answer: "v=0\r\n".into() },
            BridgeMessage::End { call: own },
            BridgeMessage::Figures(BridgeFigures {
                channels: 3,
                message_bytes: u64::MAX,
                ..Default::default()
            }),
        ];
        for &group in MeshGroup::ALL {
            messages.extend([
                BridgeMessage::Arrived { room, group, target },
                BridgeMessage::Departed { room, group, target },
                BridgeMessage::Caller { call, room, group, offer: "v=0\r\n".into() },
                BridgeMessage::Call { call: own, room, group, target, offer: String::new() },
                BridgeMessage::Entry { room, group, is_open: true },
                BridgeMessage::Entry { room, group, is_open: false },
            ]);
        }
        messages
    }

    proptest! {
        #[test]
        fn messages_are_read_back_in_any_pieces(piece in 1usize..40) {
            let mut written = BytesMut::new();
            for message in messages() {
                message.write(&mut written);
            }
            let (mut received, mut read) = (BytesMut::new(), Vec::new());
            for piece in written.chunks(piece) {
                received.extend_from_slice(piece);
                while let Some(message) = BridgeMessage::take(&mut received).unwrap() {
                    read.push(message);
                }
            }
            prop_assert_eq!(read, messages());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..60), is_short in any::<bool>()) {
            let mut received = BytesMut::new();
            if is_short {
                received.put_u32(bytes.len() as u32);
            }
            received.extend_from_slice(&bytes);
            while let Ok(Some(_)) = BridgeMessage::take(&mut received) {}
        }
    }

    #[test]
    fn too_long_message_and_unknown_one_end_the_conversation() {
        let mut long = BytesMut::new();
        long.put_u32(MAX_BRIDGE_MESSAGE as u32 + 1);
        assert_eq!(BridgeMessage::take(&mut long), Err(BridgeMessageError::TooLong));
        let mut unknown = BytesMut::from(&b"\0\0\0\x02\x08\x63"[..]);
        assert_eq!(BridgeMessage::take(&mut unknown), Err(BridgeMessageError::Malformed));
        assert_eq!(BridgeMessage::take(&mut BytesMut::from(&b"\0\0"[..])), Ok(None));
    }
}
