//! Recorded conversations: their format, playing one against a server, and comparing what comes back.
//!
//! ```text
//! *.jsonl ─ transcript ─► script (steps: one client action + what followed it)
//!                            │
//!             player ◄───────┘   plays the actions over real sockets (peer, target), renames room keys (rename),
//!               │                replaces server-made ids by the live ones (ids, wire)
//!               ▼
//!          transcript of what happened ─► compare ─► differences
//!
//! client ─ relay ─► server      every byte goes on as it came; frames looks at it on its way,
//!            └────► tape        and what it saw becomes lines of a transcript
//! ```
//!
//! Nothing here uses any other module of the gateway, least of all its codecs: what is sent was recorded or written by
//! hand, and what comes is compared as bytes, so that a mistake of the gateway cannot hide itself. The tests that
//! compare it with the original servers use this, too.
//!
//! Pure: [`transcript`], [`script`], [`raw_protobuf`], [`json_members`], [`ids`], [`rename`], [`compare`],
//! [`frame_sniffer`]. The others use sockets and files: [`target`], [`peer`], [`player`], [`proxy`], [`recorder`].

pub(in crate::tools) mod cli;
pub mod compare;
pub mod frame_sniffer;
pub mod ids;
pub mod json_members;
pub mod peer;
pub mod player;
pub mod proxy;
pub(in crate::tools) mod record_cli;
pub mod recorder;
pub mod rename;
pub mod script;
pub mod transcript;
