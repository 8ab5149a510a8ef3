//! Synthetic clients of every dialect, written by hand from what was measured on the original servers and clients.
//!
//! No codec of the gateway is used, so that the clients can judge it.

pub mod dialects;
pub mod message;
pub mod peer;
pub mod protobuf;
pub mod protocol;
pub mod target;
