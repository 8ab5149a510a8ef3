//! The probe: which dialects and releases a server speaks.

pub(in crate::tools) mod cli;
pub mod fingerprint;
pub mod observe;
pub mod run;
pub mod session;
