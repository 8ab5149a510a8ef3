//! The paths of the signaller, and the syntax of its handles.

use std::borrow::Cow;
use std::sync::Arc;

/// The name under which a listener waits: `[a-z](?:_?[a-z0-9]){2,31}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handle(Arc<str>);

/// Number of letters and digits after the first letter of a handle, without the underscores between them.
const LETTERS: std::ops::RangeInclusive<u32> = 2..=31;

impl Handle {
    /// Returns the text of the handle.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a handle; `None` if it is malformed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = text.bytes();
        if !bytes.next()?.is_ascii_lowercase() {
            return None;
        }
        let (mut letters, mut after_underscore) = (0_u32, false);
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

/// The purpose of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/listen/H`: wait for a connector.
    Listen(Handle),
    /// `/connect/H`: connect to the listener that waits there.
    Connect(Handle),
}

impl Endpoint {
    /// Parses the path of a URL, with percent-escapes; `None` if it is none of the signaller's.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let path = decode(path)?;
        if let Some(handle) = path.strip_prefix("/listen/") {
            return Handle::parse(handle).map(Endpoint::Listen);
        }
        let handle = path.strip_prefix("/connect/")?;
        Handle::parse(handle).map(Endpoint::Connect)
    }

    /// Returns the handle in the path.
    pub(crate) fn handle(&self) -> &Handle {
        match self {
            Endpoint::Listen(handle) | Endpoint::Connect(handle) => handle,
        }
    }
}

/// Decodes percent-escapes; `None` if one is malformed or not ASCII, which no path contains.
fn decode(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let mut decoded = String::with_capacity(path.len());
    let mut pieces = path.split('%');
    decoded.push_str(pieces.next()?);
    for piece in pieces {
        let (escape, rest) = piece.split_at_checked(2)?;
        // `from_str_radix` accepts a sign.
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
    fn handles_follow_the_syntax_of_signallerd() {
        for handle in GOOD {
            assert!(Handle::parse(handle).is_some(), "{handle}");
        }
        for handle in BAD.into_iter().chain(["", "a", "abc\n", "abc/", "ab c", "abç", "ab%63"]) {
            assert_eq!(Handle::parse(handle), None, "{handle}");
        }
    }

    #[test]
    fn paths_with_handles_are_endpoints() {
        let handle = Handle::parse("abc").unwrap();
        for path in ["/listen/abc", "/listen/ab%63", "/%6cisten/abc", "/%6Cisten/%61%62%63"] {
            assert_eq!(Endpoint::parse(path), Some(Endpoint::Listen(handle.clone())), "{path}");
        }
        assert_eq!(Endpoint::parse("/connect/abc"), Some(Endpoint::Connect(handle)));
    }

    #[test]
    fn other_paths_are_no_endpoints() {
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
        fn handle_syntax_equals_the_expression(text in "[a-z](_?[a-z0-9]){0,33}_?") {
            let expression = regex_lite::Regex::new("^[a-z](?:_?[a-z0-9]){2,31}$").unwrap();
            prop_assert_eq!(Handle::parse(&text).is_some(), expression.is_match(&text));
        }

        #[test]
        fn endpoints_are_decoded_paths_that_match_the_expression(
            prefix in prop::sample::select(&["/listen/", "/connect/", "/%6cisten/", "/"][..]),
            rest in "([a-z0-9_]{1,6}|%6[0-9a-fA-F]|%[0-9a-fA-F]{2}|.){0,4}",
        ) {
            let path = format!("{prefix}{rest}");
            let expression = regex_lite::Regex::new("^/(listen|connect)/([a-z](?:_?[a-z0-9]){2,31})$").unwrap();
            let expected = decode(&path).filter(|path| expression.is_match(path)).map(Cow::into_owned);
            let parsed = Endpoint::parse(&path).map(|endpoint| match endpoint {
                Endpoint::Listen(handle) => format!("/listen/{}", handle.0),
                Endpoint::Connect(handle) => format!("/connect/{}", handle.0),
            });
            prop_assert_eq!(parsed, expected);
        }
    }
}
