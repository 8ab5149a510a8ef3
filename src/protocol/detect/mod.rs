//! Detection of the dialect that a client speaks. Pure: messages, events and times come in, outputs are put
//! into a sink.

use std::time::{Duration, Instant};

mod assumption;
mod canonical_key;
mod connection;
mod detector;
mod evidence;
mod narrowing;
mod partition;
mod policy;
mod protocol_set;

pub use connection::ConnectionProtocol;
pub use policy::{DetectionTimeouts, Policy, RoomPolicy};
pub use protocol_set::{ProtocolSet, ProtocolSetError};

/// Returns the time a duration after another; the same time, if the clock ends before it.
fn after(time: Instant, duration: Duration) -> Instant {
    time.checked_add(duration).unwrap_or(time)
}

#[cfg(test)]
mod tests;
