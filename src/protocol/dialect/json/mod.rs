//! The dialects of JSON text: three codecs for ten dialects, what they share, and how two of them
//! were written as events.
//!
//! Within a codec, dialects differ by a set of releases: pinned, the set has one; in negotiation it may have several,
//! and then one answer holds the attributes that each of them looks for.

mod errors;
mod joiner_index;
mod js_semantics;
mod message_shape;
pub mod sse_codec;
mod v1_to_5;
mod v6;
mod v7_to_14;

use bytestring::ByteString;

pub(super) use errors::{JsonError, close};
pub use message_shape::MessageShape;
pub(super) use v1_to_5::V1To5Codec;
pub(super) use v6::V6Codec;
pub(super) use v7_to_14::V7To14Codec;

use crate::protocol::frame::Message;

/// The longest key of the dialects whose originals have no limit (sigver 1 to 7), in bytes. The others' limit is 512
/// UTF-16 units.
const MAX_KEY: usize = 4096;

/// How many joiners an opener can answer: the latest ones. The originals have no limit.
const MAX_JOINERS: usize = 65_536;

/// Returns the text of a message, be it one of text or of bytes.
fn text_of(message: &Message) -> Option<ByteString> {
    match message {
        Message::Text(text) => Some(text.clone()),
        Message::Binary(bytes) => ByteString::try_from(bytes.clone()).ok(),
    }
}
