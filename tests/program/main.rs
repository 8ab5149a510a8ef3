//! The program from outside, as a process of its own.

#![allow(unreachable_pub, reason = "a crate without users")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod access;
mod auth;
#[cfg(feature = "bridge")]
mod bridge_process;
mod client_certificates;
#[path = "../common/mod.rs"]
mod common;
mod dialing;
mod drain;
#[cfg(target_os = "linux")]
mod handover;
mod listening;
mod log_format;
mod output;
mod process;
mod recording;
mod refusals;
mod reload;
mod service_manager;
mod status;
