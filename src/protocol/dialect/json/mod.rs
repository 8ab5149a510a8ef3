//! The dialects of JSON text: three codecs for ten dialects, what they share, and how two of them
//! were written as events.
//!
//! Within a codec, dialects differ by a set of releases: pinned, the set has one; in negotiation it may have several,
//! and then one answer holds the attributes that each of them looks for.

mod envelope;
mod indexed;
mod joiners;
mod sent;
mod shape;
mod sigver6;
pub mod sse;
mod words;

use bytestring::ByteString;

pub(super) use envelope::Envelope;
pub(super) use indexed::Indexed;
pub use shape::Shape;
pub(super) use sigver6::Sigver6;
pub(super) use words::{Fault, close};

use crate::frame::Frame;

/// The longest key of the dialects whose originals have no limit (sigver 1 to 7), in bytes. The others' limit is 512
/// UTF-16 units.
const MAX_KEY: usize = 4096;

/// How many joiners an opener can answer: the latest ones. The originals have no limit.
const MAX_JOINERS: usize = 65_536;

/// The text of a frame, be it one of text or of bytes.
fn text_of(frame: &Frame) -> Option<ByteString> {
    match frame {
        Frame::Text(text) => Some(text.clone()),
        Frame::Binary(bytes) => ByteString::try_from(bytes.clone()).ok(),
        Frame::Close(_) | Frame::Headed(..) => None,
    }
}
