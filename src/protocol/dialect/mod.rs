//! The dialects: bytes to meaning and back. Pure: no I/O, no clock, no task.
//!
//! [`Dialect`] and [`Release`] name what was ever published and hold the facts about it in one table; a
//! [`Session`] is one connection's codec. Facts are measured on the original servers.

mod candidates;
mod close_frame;
mod docs_table;
mod json;
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
pub use docs_table::markdown;
pub use json::{MessageShape, ParsedMessage, sse_codec as sse};
pub(crate) use keepalive::Keepalive;
pub(crate) use message_limit::MessageLimit;
pub use output::{Evidence, Output, OutputSink};
pub(crate) use protobuf::{PROBE, detect_v1_layout, detect_v2_layout};
pub(crate) use release::{Confirmation, JsonCodec, JsonFacts};
pub use release::{ContentLayout, Dialect, Family, PeerProtocol, Release, ReleaseSet, UnknownRelease};
pub use session::{Session, SessionOptions, UpgradeRequest};
pub(crate) use webrtc::receive_signal;
pub use webrtc::{ReceivedSignal, SessionDescription};
