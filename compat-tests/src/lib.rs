//! The comparison with the original sigver servers: their recordings, the originals themselves, and the differences
//! that are meant. How a recording is played and compared is in [`sigver::tools::replay`].
//!
//! ```text
//! golden/*.jsonl (goldens) ─► runner ─ sigver::tools::replay ─► differences ─ exceptions ─► report
//!                               │
//!                               └── starts the servers (oracle): ours, the originals from npm
//! ```
//! Pure modules: [`exceptions`], [`hearing`], [`report`]. The others touch files and processes; [`interop`] tries the
//! product's tools on the originals. Of the product nothing else is used but `sigver::tools::replay`, which uses nothing of the
//! rest: what is sent was recorded or written by hand, and what is received is compared as bytes. (What costs are compared is
//! in `benches/compare`, whose load is that of `sigver::tools::bench`.)

pub mod exceptions;
pub mod goldens;
pub mod hearing;
pub mod interop;
pub mod oracle;
pub mod report;
pub mod runner;

pub use sigver::tools::protobuf;
pub use sigver::tools::replay::{compare, ids, json_members, peer, player, rename, script, transcript};
