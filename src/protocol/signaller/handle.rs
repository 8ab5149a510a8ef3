//! The paths of the relay: which there are, and which handles are well formed. Pure.

use std::borrow::Cow;
use std::sync::Arc;

/// The name under which somebody listens: `[a-z](?:_?[a-z0-9]){2,31}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handle(Arc<str>);

/// How many letters and digits a handle has after its first letter, at least and at most. Underscores between them
/// do not count.
const LETTERS: std::ops::RangeInclusive<usize> = 2..=31;

impl Handle {
    /// A handle, if `text` is well formed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = text.bytes();
        if !bytes.next()?.is_ascii_lowercase() {
            return None;
        }
        let (mut letters, mut after_underscore) = (0_usize, false);
        for byte in bytes {
            match byte {
                b'_' if !after_underscore => after_underscore = true,
                b'a'..=b'z' | b'0'..=b'9' if letters < *LETTERS.end() => {
                    letters = letters.saturating_add(1);
                    after_underscore = false;
                }
                _ => return None,
            }
        }
        (LETTERS.contains(&letters) && !after_underscore).then(|| Handle(text.into()))
    }
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/listen/H`: to wait there.
    Listen(Handle),
    /// `/connect/H`: to be connected to whoever waits there.
    Connect(Handle),
}

impl Endpoint {
    /// What the path of a URL stands for, if it is one of the relay's: percent-escapes are decoded first.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let path = decode(path)?;
        if let Some(handle) = path.strip_prefix("/listen/") {
            return Handle::parse(handle).map(Endpoint::Listen);
        }
        let handle = path.strip_prefix("/connect/")?;
        Handle::parse(handle).map(Endpoint::Connect)
    }

    /// The handle it is about.
    pub(crate) fn handle(&self) -> &Handle {
        match self {
            Endpoint::Listen(handle) | Endpoint::Connect(handle) => handle,
        }
    }
}

/// `None` if an escape is malformed, or stands for something that is no ASCII and so in none of our paths.
fn decode(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let mut decoded = String::with_capacity(path.len());
    let mut pieces = path.split('%');
    decoded.push_str(pieces.next()?);
    for piece in pieces {
        let (escape, rest) = piece.split_at_checked(2)?;
        // `from_str_radix` would take a sign.
        if !escape.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let byte = u8::from_str_radix(escape, 16).ok().filter(u8::is_ascii)?;
        decoded.push(char::from(byte));
        decoded.push_str(rest);
    }
    Some(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Copied from the recording of signallerd, scenario `handles`.
    const GOOD: [&str; 5] = [
        "abc",
        "a1b2",
        "a_b_c",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "a_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b",
    ];
    const BAD: [&str; 8] = [
        "ab",
        "Abc",
        "1bc",
        "a__bc",
        "a_bc_",
        "_abc",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "a_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b_b",
    ];

    #[test]
    fn handles_are_well_formed_or_not() {
        for handle in GOOD {
            assert!(Handle::parse(handle).is_some(), "{handle}");
        }
        for handle in BAD.into_iter().chain(["", "a", "abc\n", "abc/", "ab c", "abç", "ab%63"]) {
            assert_eq!(Handle::parse(handle), None, "{handle}");
        }
    }

    #[test]
    fn a_path_is_a_target() {
        let handle = Handle::parse("abc").unwrap();
        for path in ["/listen/abc", "/listen/ab%63", "/%6cisten/abc", "/%6Cisten/%61%62%63"] {
            assert_eq!(Endpoint::parse(path), Some(Endpoint::Listen(handle.clone())), "{path}");
        }
        assert_eq!(Endpoint::parse("/connect/abc"), Some(Endpoint::Connect(handle)));
    }

    #[test]
    fn a_path_is_no_target() {
        for path in [
            "",
            "/",
            "/listen",
            "/listen/",
            "/listen/ab",
            "/listen/abc/",
            "/Listen/abc",
            "/connect/",
            "listen/abc",
            "/foo",
            "/listen/ab%6",
            "/listen/ab%",
            "/listen/ab%+3",
            "/listen/ab%zz",
            "/listen/ab%ff",
            "/listen/ab%é",
        ] {
            assert_eq!(Endpoint::parse(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_the_expression_matches_is_a_handle(text in "[a-z](_?[a-z0-9]){0,33}_?") {
            let expression = regex_lite::Regex::new("^[a-z](?:_?[a-z0-9]){2,31}$").unwrap();
            prop_assert_eq!(Handle::parse(&text).is_some(), expression.is_match(&text));
        }

        #[test]
        fn any_path_is_read(path in ".*") {
            let _ = Endpoint::parse(&path);
        }
    }
}
