//! Gateways in the process of the tests, and their clients.

#![allow(unreachable_pub, reason = "a crate without users")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod admin;
mod admission;
mod bench;
mod bridge;
#[path = "../common/mod.rs"]
mod common;
mod content_layouts;
mod delays;
mod floods;
mod http;
mod limits;
mod memory_before_upgrade;
mod netflux_recordings;
mod pinging_clients;
mod proxy_protocol;
mod room_keys;
mod signaller;
mod sse;
mod sse_recordings;
mod tagged_releases;
