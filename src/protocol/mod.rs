//! Protocols and rooms as plain state machines: no I/O, clock, randomness or task. Time and random numbers are
//! arguments.

pub mod detect;
pub mod dialect;
pub mod frame;
pub mod model;
pub mod room;
pub mod signaller;
