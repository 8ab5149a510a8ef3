//! Rights of a client, as its token names them.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::server::clock;

/// The room keys that a client may use, and the time until which it may be connected.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    keys: Vec<KeyPattern>,
    /// Time of expiry, in seconds since 1970.
    expires: Option<u64>,
}

/// A room key, or a pattern of keys in which `*` stands for any characters.
#[derive(Clone, PartialEq, Eq)]
struct KeyPattern(String);

/// Shows no key, as keys are secrets.
impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("keys", &self.keys.len()).field("expires", &self.expires).finish()
    }
}

impl Grant {
    /// Returns the grant of these keys and patterns.
    pub(super) fn new(keys: impl IntoIterator<Item = String>, expires: Option<u64>) -> Self {
        Grant { keys: keys.into_iter().map(KeyPattern).collect(), expires }
    }

    /// Returns true if the client may use the room or handle `key`.
    pub(crate) fn allows(&self, key: &str) -> bool {
        self.keys.iter().any(|pattern| pattern.matches(key.as_bytes()))
    }

    /// Returns true if no key is allowed.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the time of expiry, if there is one. What is more than a year away is not looked at before.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        let left = self.expires?.saturating_sub(unix_time());
        Some(clock::now() + Duration::from_secs(left).min(MAX_LEFT))
    }

    /// Returns true if the grant has expired.
    pub(super) fn has_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= unix_time())
    }
}

/// Longest time that is added to the current one.
const MAX_LEFT: Duration = Duration::from_secs(365 * 86_400);

/// Returns the current time, in seconds since 1970.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl KeyPattern {
    /// Returns true if the pattern stands for the whole key. Takes time in proportion to the product of their
    /// lengths at most.
    fn matches(&self, key: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        let (mut at, mut in_key) = (0, 0);
        // Position behind the last star, and the end of what it stands for.
        let mut star = None;
        loop {
            match (pattern.get(at), key.get(in_key)) {
                (Some(b'*'), _) => {
                    at += 1;
                    star = Some((at, in_key));
                }
                (Some(expected), Some(byte)) if expected == byte => {
                    at += 1;
                    in_key += 1;
                }
                (None, None) => return true,
                (_, None) => return false,
                (_, Some(_)) => {
                    let Some((behind, end)) = star else { return false };
                    star = Some((behind, end + 1));
                    (at, in_key) = (behind, end + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allows(pattern: &str, key: &str) -> bool {
        Grant::new([pattern.to_owned()], None).allows(key)
    }

    #[test]
    fn star_stands_for_any_characters() {
        for (pattern, key, allowed) in [
            ("room", "room", true),
            ("room", "room1", false),
            ("room", "Room", false),
            ("*", "", true),
            ("*", "a/b \u{e9}", true),
            ("team-*", "team-", true),
            ("team-*", "team-1/x", true),
            ("team-*", "xteam-1", false),
            ("*-x", "a-x-x", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "acb", false),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
            ("a?c", "abc", false),
        ] {
            assert_eq!(allows(pattern, key), allowed, "{pattern} for {key}");
        }
        assert!(!Grant::new([], None).allows(""));
    }

    #[test]
    fn expired_grant_is_recognised() {
        let now = unix_time();
        for (expires, expired) in
            [(None, false), (Some(0), true), (Some(now - 1), true), (Some(now + 60), false)]
        {
            assert_eq!(Grant::new([], expires).has_expired(), expired);
        }
        assert!(Grant::new([], Some(u64::MAX)).expires_at().is_some());
    }

    #[test]
    fn debug_output_has_no_keys() {
        assert!(!format!("{:?}", Grant::new(["secret".to_owned()], None)).contains("secret"));
    }

    proptest! {
        #[test]
        fn pattern_matches_as_an_expression_does(pattern in "[ab*]{0,8}", key in "[ab]{0,10}") {
            let expression = regex_lite::Regex::new(&format!("^{}$", pattern.replace('*', ".*"))).unwrap();
            prop_assert_eq!(allows(&pattern, &key), expression.is_match(&key));
        }
    }
}
