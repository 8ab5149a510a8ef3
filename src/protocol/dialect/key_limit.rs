//! The limits of room keys, and the error texts about them.

/// Longest key, in UTF-16 units (sigver 8 to 20, measured).
pub(super) const MAX_KEY_UNITS: usize = 512;

/// Text for an empty key (sigver 8 to 20, measured).
pub(super) const KEY_EMPTY: &str = "The key  is an empty string";

/// Text for a key of more than [`MAX_KEY_UNITS`] (sigver 8 to 20, measured).
pub(super) const KEY_TOO_LONG: &str = "The key length exceeds the limit of 512 characters";

/// Returns true if the key has more than [`MAX_KEY_UNITS`].
pub(super) fn is_too_long(key: &str) -> bool {
    key.encode_utf16().count() > MAX_KEY_UNITS
}
