//! Bytes of a socket to frames and back.

pub mod ws;
