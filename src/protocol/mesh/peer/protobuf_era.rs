//! Frames of netflux 1.1 to 3.0: protobuf with sender and recipient, and a number for the service.

use std::time::Instant;

use bytes::Bytes;

use super::{ChannelFrame, MeshChannel, MeshPeer};
use crate::protocol::mesh::protobuf::{Fields, ReadFields};
use crate::protocol::mesh::user_message::MessageChunk;

/// Recipient of a peer whose id the sender does not know.
const UNKNOWN_RECIPIENT: u32 = 1;

/// Returns a service frame.
pub(super) fn service_frame(sender: u32, recipient: u32, service: u32, content: Fields) -> Bytes {
    let service = Fields::new().number(1, service).message(2, content);
    Fields::new().number(1, sender).number(2, recipient).number(3, 1).message(4, service).into_bytes()
}

/// Returns a frame with a user message or part of one.
pub(super) fn user_frame(sender: u32, recipient: u32, message: &[u8]) -> Bytes {
    Fields::new().number(1, sender).number(2, recipient).number(3, 0).bytes(4, message).into_bytes()
}

/// A service message for this peer.
#[derive(Clone, Debug)]
pub(super) struct ServiceMessage {
    pub(super) sender: u32,
    /// Number of the service.
    pub(super) number: u32,
    pub(super) service: ReadFields,
}

impl ServiceMessage {
    /// Reads a frame that `peer` received over `via`. Forwards one for another peer, and reports a
    /// user message: `None` then, and for a frame that is not understood.
    pub(super) fn receive(
        peer: &mut MeshPeer,
        via: MeshChannel,
        frame: ChannelFrame,
        now: Instant,
    ) -> Option<Self> {
        let ChannelFrame::Binary(bytes) = frame else { return None };
        let fields = ReadFields::read(&bytes)?;
        let (sender, recipient, content) = (fields.number(1), fields.number(2), fields.bytes(4)?);
        let service = match fields.number(3) {
            0 => None,
            _ => {
                let service = ReadFields::read(&content)?;
                Some((service.number(1), service.message(2)?))
            }
        };
        // Where the member chooses this peer's id, it may not have arrived.
        let is_early = service.is_none() && peer.awaits_entry(via);
        if recipient > UNKNOWN_RECIPIENT && recipient != peer.id && !is_early {
            peer.forward(via, recipient, bytes);
            return None;
        }
        let Some((number, service)) = service else {
            let chunk = MessageChunk::decode(peer.group, &content, recipient == 0)?;
            peer.report_from(sender, via, chunk, now);
            return None;
        };
        Some(ServiceMessage { sender, number, service })
    }
}
