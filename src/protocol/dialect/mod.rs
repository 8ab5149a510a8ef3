//! The dialects: bytes to meaning and back. Pure: no I/O, no clock, no task.
//!
//! [`Dialect`] and [`Release`] name what was ever published and hold the facts about it in one table; a
//! [`Session`] is one connection's codec. Facts are measured on the original servers.

mod closing;
mod describe;
mod json;
mod liveness;
mod protobuf;
mod release;
mod session;
mod webrtc;

pub use closing::close;
pub use describe::markdown;
pub use json::{Shape, sse};
pub use protobuf::{Layout, PROBE, current_layout, pings, v1_layout};
pub use release::{Dialect, Family, Generation, Release, Releases};
pub use session::{Action, Session, Upgrade};
