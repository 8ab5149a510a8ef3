//! Finding out which dialect a client speaks. Pure: frames and the time come in, steps come out.

mod assumption;
mod detector;
mod evidence;
mod partition;
mod policy;

pub use detector::Detector;
pub use partition::RoomPolicy;
pub use policy::{DetectionTimeouts, Policy, Protocols, likeliest};

#[cfg(test)]
mod tests;
