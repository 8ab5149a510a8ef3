//! Frames of netflux 1.1 to 3.0: protobuf with sender and recipient, and a number for the service.

use bytes::Bytes;

use crate::protocol::mesh::protobuf::{Fields, ReadFields};

/// Recipient of a peer whose id the sender does not know.
pub(super) const UNKNOWN_RECIPIENT: u32 = 1;

/// Returns a service frame.
pub(super) fn service_frame(sender: u32, recipient: u32, service: u32, content: Fields) -> Bytes {
    let service = Fields::new().number(1, service).message(2, content);
    Fields::new().number(1, sender).number(2, recipient).number(3, 1).message(4, service).into_bytes()
}

/// Returns a frame with a user message or part of one.
pub(super) fn user_frame(sender: u32, recipient: u32, message: &[u8]) -> Bytes {
    Fields::new().number(1, sender).number(2, recipient).number(3, 0).bytes(4, message).into_bytes()
}

/// A frame with its content.
#[derive(Clone, Debug)]
pub(super) struct ProtobufEraFrame {
    pub(super) sender: u32,
    pub(super) recipient: u32,
    /// The service's number and message; `None` for a user message.
    pub(super) service: Option<(u32, ReadFields)>,
    pub(super) content: Bytes,
}

impl ProtobufEraFrame {
    pub(super) fn read(frame: &Bytes) -> Option<Self> {
        let fields = ReadFields::read(frame)?;
        let content = fields.bytes(4)?;
        let service = match fields.number(3) {
            0 => None,
            _ => {
                let service = ReadFields::read(&content)?;
                Some((service.number(1), service.message(2)?))
            }
        };
        Some(ProtobufEraFrame { sender: fields.number(1), recipient: fields.number(2), service, content })
    }
}
