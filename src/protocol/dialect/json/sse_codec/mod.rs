//! The event streams of sigver 8.1, 9 and 10: messages to a client are events of a stream, and messages from
//! it are in requests of their own.

mod request;
mod writer;

pub use request::{SseRequest, SseSender, parse_post, parse_query};
pub use writer::{EncodedEvent, EventWriter};

use crate::protocol::dialect::{Dialect, Release, ReleaseSet};

/// Id of the last event of a stream that the client must not request again. A browser whose stream ends
/// reconnects on its own, and sends this id.
pub(crate) const FINAL_EVENT_ID: &str = "last";

/// Body of the answer to a request that only sends a message. Its event has a name that no client listens to,
/// and data, without which polyfills ignore the id.
pub(crate) const SEND_ACK: &str = ":ok\n\nevent: sent\nid: last\ndata: ok\n\n";

/// Form of the requests by which a client of event streams sends messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SseVariant {
    /// In the query of a GET (sigver 8.1). The request for the stream has the first message.
    V8_1,
    /// In the body of a POST, after the id with which the stream began (sigver 9 and 10).
    V9,
}

impl SseVariant {
    /// Returns the releases with event streams of this variant.
    pub fn releases(self, all: ReleaseSet) -> ReleaseSet {
        let has: fn(Release) -> bool = match self {
            SseVariant::V8_1 => |release| release == Release::V8_1_0,
            SseVariant::V9 => |release| release.dialect() == Dialect::Sigver9,
        };
        all.filter(has)
    }
}
