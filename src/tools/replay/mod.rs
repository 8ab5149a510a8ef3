//! Recorded conversations: their format, playing one against a server, and comparing the result.
//!
//! ```text
//! *.jsonl ─ transcript ─► script (steps: one client action + the events that followed)
//!                            │
//!             player ◄───────┘   plays the actions over sockets (peer), renames room keys (rename), replaces
//!               │                server-generated ids by those of the run (ids)
//!               ▼
//!          transcript of the run ─► compare ─► differences
//!
//! client ─ proxy ─► server      every byte is forwarded unchanged; frame_sniffer reassembles the messages,
//!            └────► recorder    which become lines of a transcript
//! ```
//!
//! Nothing here uses the gateway's codecs: what is sent was recorded or written by hand, and what is received
//! is compared as bytes, so that a mistake of the gateway cannot hide itself. The comparison with the Node.js
//! servers uses this, too.
//!
//! A recording that names no release is compared as its clients read it (`client_views`), and what this
//! server does otherwise on purpose has a number (`meant`).
//!
//! Pure: [`transcript`], [`script`], `json_members`, [`ids`], [`rename`], [`compare`], `frame_sniffer`,
//! `spoken_dialect`, [`json_view`], `client_views`, `meant`.
//! Sockets and files: [`peer`], [`player`], `proxy`, `recorder`.

pub(in crate::tools) mod cli;
mod client_views;
pub mod compare;
mod frame_sniffer;
mod id_mapping;
pub mod ids;
mod json_members;
pub mod json_view;
mod meant;
pub mod peer;
pub mod player;
mod proxy;
pub(in crate::tools) mod record_cli;
mod recorder;
pub mod rename;
pub mod script;
mod spoken_dialect;
pub mod transcript;
