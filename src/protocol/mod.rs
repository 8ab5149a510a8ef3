//! Protocols and rooms as plain state machines: no I/O, clock, randomness or task. Time and random numbers
//! are arguments.

#![cfg_attr(
    not(test),
    deny(clippy::disallowed_methods),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::wildcard_enum_match_arm)
)]

#[cfg(feature = "cluster")]
pub mod cluster;
pub mod detect;
pub mod dialect;
pub mod frame;
pub mod mesh;
pub mod model;
pub(crate) mod room;
pub(crate) mod signaller;
pub(crate) mod token_bucket;
