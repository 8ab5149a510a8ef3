//! The two wire forms of a chunk: a binary header (netflux 0.10 to 1.0), and protobuf.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::MessageChunk;
use crate::protocol::mesh::group::MeshGroup;
use crate::protocol::mesh::protobuf::{Fields, ReadFields};

/// Length of the fields behind the header that all frames of netflux 0.10 to 1.0 have.
const HEADER_LENGTH: usize = 10;
/// Type of a text in netflux 0.10 to 1.0. All others are buffers and typed arrays.
const TEXT: u8 = 3;
/// Type `Uint8Array` in netflux 0.10 to 1.0.
const BYTES: u8 = 2;

/// A chunk's place in its message, as frames have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkPlace {
    pub(super) is_text: bool,
    pub(super) is_broadcast: bool,
    pub(super) total: u32,
    /// The message's number among those that are in chunks.
    pub(super) message: u16,
    /// The chunk's number in the message.
    pub(super) number: u32,
}

/// Returns the chunk if its data has exactly the length that its place leaves for it.
fn placed(group: MeshGroup, place: ChunkPlace, data: Bytes) -> Option<MessageChunk> {
    let ChunkPlace { is_text, is_broadcast, total, message, number } = place;
    let length = group.facts().chunk_length;
    let offset = number.checked_mul(length)?;
    let rest = total.checked_sub(offset)?;
    let is_exact = data.len() as u64 == u64::from(rest.min(length)) && (rest > 0 || total == 0);
    let message = message.into();
    is_exact.then_some(MessageChunk { message, is_text, is_broadcast, total, offset, data })
}

/// Decodes the part of a user frame behind code, sender and recipient (netflux 0.10 to 1.0).
pub(super) fn decode_json_era(group: MeshGroup, mut rest: Bytes) -> Option<MessageChunk> {
    if rest.len() < HEADER_LENGTH {
        return None;
    }
    let total = rest.get_u32();
    let is_text = rest.get_u8() == TEXT;
    let is_broadcast = rest.get_u8() != 0;
    let message = rest.get_u16();
    let number = rest.get_u16().into();
    placed(group, ChunkPlace { is_text, is_broadcast, total, message, number }, rest)
}

/// Decodes the content of a user message in protobuf.
pub(super) fn decode_protobuf(group: MeshGroup, content: &Bytes, is_broadcast: bool) -> Option<MessageChunk> {
    let fields = ReadFields::read(content)?;
    let (total, is_text) = (fields.number(1), fields.number(2) == 0);
    let (message, number, data) = match fields.message(4) {
        Some(chunk) => {
            (u16::try_from(chunk.number(1)).ok()?, chunk.number(2), chunk.bytes(4).unwrap_or_default())
        }
        None if fields.has(4) => return None,
        None => (0, 0, fields.bytes(3).unwrap_or_default()),
    };
    placed(group, ChunkPlace { is_text, is_broadcast, total, message, number }, data)
}

/// Encodes a chunk: for netflux 0.10 to 1.0 what follows code, sender and recipient, else the content.
pub(super) fn encode(group: MeshGroup, place: ChunkPlace, data: &[u8]) -> Bytes {
    let ChunkPlace { is_text, is_broadcast, total, message, number } = place;
    if !group.is_protobuf() {
        let mut out = BytesMut::with_capacity(data.len().saturating_add(HEADER_LENGTH));
        out.put_u32(total);
        out.put_u8(if is_text { TEXT } else { BYTES });
        out.put_u8(is_broadcast.into());
        out.put_u16(message);
        out.put_u16(u16::try_from(number).unwrap_or(u16::MAX));
        out.put_slice(data);
        return out.freeze();
    }
    let head = Fields::new().number(1, total).number(2, u32::from(!is_text));
    if total <= group.facts().chunk_length {
        head.bytes(3, data).into_bytes()
    } else {
        let chunk = Fields::new().number(1, message.into()).number(2, number).bytes(4, data);
        head.message(4, chunk).into_bytes()
    }
}
