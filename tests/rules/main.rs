//! Rules of the sources and the documentation.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod docs;
mod house_rules;
mod layering;
