//! The dialects of JSON text: three codecs for ten dialects, and the event streams in which two of them were
//! also sent.
//!
//! Within a codec, dialects differ by a set of releases: one release if the dialect is pinned, several while
//! it is being detected. Then one answer has the members that each of them looks for.

mod joiner_index;
mod js_semantics;
mod message_shape;
mod payload_forms;
pub mod sse_codec;
#[cfg(test)]
pub(super) mod test_json;
mod unanswered_joiners;
mod v1_to_5;
mod v6;
mod v7_to_14;

use bytestring::ByteString;

pub(super) use js_semantics::string_content;
pub(crate) use message_shape::{MessageShape, ParsedMessage};
pub(super) use v1_to_5::V1To5Codec;
pub(super) use v6::V6Codec;
pub(super) use v7_to_14::V7To14Codec;

use crate::protocol::frame::Message;

/// Longest key of sigver 1 to 7, in bytes. Those servers have no limit; the limit of the others is 512 UTF-16
/// units.
const MAX_KEY_BYTES: usize = 4096;

/// Most joiners that an opener can answer: the latest ones. The Node.js servers have no limit.
const MAX_JOINERS: usize = 65_536;

/// Properties of a client, besides the releases that it may speak.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::protocol::dialect) struct JsonClient {
    /// The client is a page in a browser.
    pub(in crate::protocol::dialect) from_page: bool,
    /// The release was configured, and not detected.
    pub(in crate::protocol::dialect) pinned: bool,
}

/// Returns the text of a message, text or binary; `None` if it is not UTF-8.
fn text_of(message: &Message) -> Option<ByteString> {
    match message {
        Message::Text(text) => Some(text.clone()),
        Message::Binary(bytes) => ByteString::try_from(bytes.clone()).ok(),
    }
}
