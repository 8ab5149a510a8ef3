//! Synthetic clients of every dialect, written by hand from what was measured on the original servers and
//! clients.
//!
//! The clients use no codec of the gateway, so that they can judge it.

pub mod dialects;
pub mod message;
pub mod peer;
pub mod protocol;

/// Returns a random room key, which suits every dialect and is a handle of signaller.
pub(crate) fn random_key() -> String {
    format!("m{:015x}", fastrand::u64(..) >> 4)
}
