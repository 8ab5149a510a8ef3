//! The dialects of bytes: sigver 15 to 20. Messages in [`wire`], codecs in [`v1`] and [`v2`].

mod content_fast;
mod protobufjs_errors;
mod v1;
mod v2;
mod wire;

pub(super) use v1::V1;
pub use v1::pings;
pub(super) use v2::V2;
pub use wire::{ContentLayout, detect_v1_layout, detect_v2_layout};

use bytes::Bytes;

/// A frame that asks without speaking: sigver-15 clients answer it as a ping, sigver-16 to 18 clients take it as a
/// heartbeat, and sigver-19 and 20 clients cannot decode it and go on as if nothing had come (measured on netflux
/// 1.1.0-beta.7 to 4.3.1: `isFirst` and field 4 in one message, of which the last counts).
pub const PROBE: Bytes = Bytes::from_static(&[0x10, 0x01, 0x20, 0x01]);
