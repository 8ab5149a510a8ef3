//! One room as a plain state machine: commands in, events out. No I/O, no clock, no dialect.

mod claims;
mod peer;
mod room;
mod select;
mod table;

pub use room::Room;

#[cfg(test)]
mod tests;
