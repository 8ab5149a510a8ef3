//! The protobuf dialects, sigver 15 to 20: detection of the layout of contents in [`layout`], messages in
//! [`wire`], codecs in [`v1`] and [`v2`].

mod content_fast;
mod layout;
mod protobufjs_errors;
mod v1;
mod v2;
mod wire;

pub(crate) use layout::{detect_v1_layout, detect_v2_layout};
pub(super) use protobufjs_errors::TOO_DEEP as GROUPS_TOO_DEEP;
pub(super) use v1::V1;
pub(super) use v2::V2;

use bytes::Bytes;

/// Probe of a client's dialect: sigver-15 clients answer it as a ping, sigver-16 to 18 clients treat it as a
/// heartbeat, and sigver-19 and 20 clients cannot decode it and ignore it (measured on netflux 1.1.0-beta.7
/// to 4.3.1: `isFirst` and field 4 in one message, of which the last counts).
pub(crate) const PROBE: Bytes = Bytes::from_static(&[0x10, 0x01, 0x20, 0x01]);
