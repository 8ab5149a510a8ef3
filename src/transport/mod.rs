//! Bytes of a socket to frames and back.

#![allow(
    clippy::disallowed_methods,
    reason = "part of the shell: it has the clock, the tasks and the randomness"
)]

pub mod ws;
