//! The comparison machinery: it plays recorded scripts against a server and compares what comes back with what
//! the original sigver servers answered.
//!
//! ```text
//! golden/*.jsonl ─ transcript ─► script (steps: one client action + what followed it)
//!                                   │
//!                  player ◄─────────┘   plays the actions over real sockets (peer), renames room keys (rename),
//!                    │                  replaces server-made ids by the live ones (ids, wire)
//!                    ▼
//!               transcript of what happened ─► compare ─► differences ─ exceptions ─► report
//! ```
//! Pure modules: [`transcript`], [`script`], [`wire`], [`json`], [`ids`], [`rename`], [`compare`], [`exceptions`], [`hearing`]. The others
//! touch sockets and processes: [`peer`], [`player`], [`oracle`], [`runner`], [`interop`]. Nothing here uses code of the product:
//! what it sends was recorded or written by hand, and what it receives is compared as bytes.

pub mod compare;
pub mod exceptions;
pub mod goldens;
pub mod hearing;
pub mod ids;
pub mod interop;
pub mod json;
pub mod oracle;
pub mod peer;
pub mod player;
pub mod rename;
pub mod report;
pub mod runner;
pub mod script;
pub mod transcript;
pub mod wire;
