//! The dialects: bytes to meaning and back. Pure: no I/O, no clock, no task.
//!
//! [`Dialect`] and [`Release`] name what was ever published and hold the facts about it in one table; a
//! [`Session`] is one connection's codec. Facts are measured on the original servers.

mod candidates;
mod close_frame;
mod docs_table;
mod json;
mod json_errors;
mod json_text;
mod keepalive;
mod key_limit;
mod message_limit;
mod output;
mod protobuf;
mod release;
mod session;
mod webrtc;

pub use candidates::Candidates;
pub(crate) use close_frame::close_frame_for;
pub(crate) use docs_table::markdown;
pub use json::sse_codec as sse;
pub(crate) use json::{MessageShape, ParsedMessage};
pub(crate) use keepalive::Keepalive;
pub(crate) use message_limit::MessageLimit;
pub use output::{Evidence, Output, OutputSink};
pub(crate) use protobuf::{PROBE, detect_v1_layout, detect_v2_layout};
pub(crate) use release::{Confirmation, JsonCodec, JsonFacts, PeerProtocol};
pub use release::{ContentLayout, Dialect, Family, Release, ReleaseSet, UnknownRelease};
pub use session::{Session, SessionOptions, UpgradeRequest};
pub(crate) use webrtc::{ReceivedSignal, SessionDescription, receive_signal};
