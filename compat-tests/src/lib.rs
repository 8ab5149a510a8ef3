//! Comparison with the Node.js sigver servers: their recordings, the servers themselves, and the intended
//! differences. Playing and comparing a recording is the job of [`sigver::tools::replay`].
//!
//! ```text
//! golden/*.jsonl (goldens) ─► runner ─ sigver::tools::replay ─► differences ─ exceptions ─► report
//!                               │
//!                               └── starts the servers (oracle): the gateway, the Node.js servers
//! ```
//!
//! [`exceptions`], [`report`] and [`summary`] are pure; [`interop`] runs the program's tools against the
//! Node.js servers. Of the gateway only `sigver::tools::replay` is used, which uses no codec: sent frames
//! were recorded or written by hand, and received frames are compared as bytes. (Costs are compared in
//! `benches/compare`, with the load generator of `sigver::tools::bench`.)

pub mod exceptions;
pub mod goldens;
pub mod interop;
pub mod oracle;
pub mod pairs;
pub mod report;
pub mod runner;
pub mod summary;
pub mod tls;
pub mod ws;

pub use sigver::tools::protobuf;
pub use sigver::tools::replay::{compare, ids, peer, player, rename, script, transcript};
