//! The probe: which dialects and releases a server speaks.

pub(in crate::tools) mod cli;
mod fingerprint;
mod observe;
pub mod run;
mod session;
