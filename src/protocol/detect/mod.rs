//! Finding out which dialect a client speaks. Pure: frames and the time come in, steps come out.

mod assumption;
mod detector;
mod evidence;
mod partition;
mod policy;
mod protocol_set;

pub use detector::Detector;
pub use partition::RoomPolicy;
pub use policy::{DetectionTimeouts, Policy, likeliest};
pub use protocol_set::{ProtocolSet, ProtocolSetError};

#[cfg(test)]
mod tests;
