//! The canonical form of a room key, in which the spellings of one key by different clients are equal.
//!
//! JSON clients send a key as text, and the others in the path of the URL: as encoded by the library or page
//! (`encodeURIComponent`), or as it is, which leaves the encoding to the URL parser of the browser. That one
//! encodes some characters and leaves others, `%` among them; drops tabs, line breaks and blanks at the end;
//! replaces `\` by `/`; and resolves dot segments (`a/../b`). So escapes are decoded until none is left that
//! a page makes, and the rest is done as the parser does (WHATWG URL, "path state"), before and after each
//! decoding: what a page has encoded once is the key itself then.

use std::borrow::Cow;

use crate::protocol::model::RoomKey;

/// Returns the canonical form of a key. It is its own canonical form.
pub(super) fn canonical(key: RoomKey) -> RoomKey {
    let canonical = {
        let text = canonical_text(key.as_str());
        (text != key.as_str()).then(|| key.with_text(&text))
    };
    canonical.unwrap_or(key)
}

/// Number of times that a key is decoded as a whole. Escapes that are nested deeper are decoded at once, so
/// that the time is linear: no page makes any.
const MAX_ENCODINGS: usize = 3;

fn canonical_text(key: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| !matches!(byte, b'%' | b'\\' | b'\t' | b'\n' | b'\r');
    // The texts of keys that are no strings begin with NUL, and are never in a path.
    if key.starts_with('\0') {
        return key.into();
    }
    let trimmed = trim_end(key);
    if trimmed.bytes().all(is_plain) && !trimmed.split('/').any(|segment| is_dot_segment(segment.as_bytes()))
    {
        return trimmed.into();
    }
    let mut path = key.as_bytes().to_vec();
    for _ in 0..MAX_ENCODINGS {
        path = decode_once(&parse_path(&path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    for byte in path {
        push(&mut decoded, byte);
    }
    let mut text = String::with_capacity(decoded.len());
    for chunk in parse_path(&decoded).utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text.into()
}

/// Returns a path, without its first slash, as the URL parser of a browser leaves it, but for the characters
/// that it encodes. A path of dot segments only stays as it is: no client can send its key in a path.
fn parse_path(path: &[u8]) -> Vec<u8> {
    let kept = path.iter().filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r'));
    let mut path: Vec<u8> = kept.map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect();
    while path.pop_if(|byte| *byte <= b' ').is_some() {}
    // Behind it is what a browser sends as the query, or not at all.
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    let (segments, rest) = path.split_at(end);
    let mut resolved = Vec::new();
    let mut is_directory = false;
    for segment in segments.split(|byte| *byte == b'/') {
        is_directory = is_dot_segment(segment);
        match dots(segment) {
            1 => {}
            2 => drop(resolved.pop()),
            _ => resolved.push(segment),
        }
    }
    if is_directory {
        resolved.push(b"");
    }
    let resolved = resolved.join(&b'/');
    if resolved.is_empty() { path } else { [&resolved, rest].concat() }
}

fn is_dot_segment(segment: &[u8]) -> bool {
    matches!(dots(segment), 1 | 2)
}

/// Returns the number of dots, plain or escaped, of which a segment consists; 0 if it has anything else.
fn dots(mut segment: &[u8]) -> usize {
    let mut dots: usize = 0;
    while let [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] = segment {
        segment = rest;
        dots = dots.saturating_add(1);
    }
    if segment.is_empty() { dots } else { 0 }
}

/// Returns a path with each of its escapes replaced by the byte that it stands for.
fn decode_once(mut path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    while let [byte, rest @ ..] = path {
        let escaped = match path {
            [b'%', high, low, rest @ ..] => escaped_byte(*high, *low).map(|byte| (byte, rest)),
            _ => None,
        };
        let (byte, rest) = escaped.unwrap_or((*byte, rest));
        decoded.push(byte);
        path = rest;
    }
    decoded
}

/// Appends a byte. An escape that it completes is replaced by the byte that it stands for, which may complete
/// another escape.
fn push(decoded: &mut Vec<u8>, byte: u8) {
    let mut next = Some(byte);
    while let Some(byte) = next.take() {
        match byte {
            b'\t' | b'\n' | b'\r' => return,
            b'\\' => decoded.push(b'/'),
            byte => decoded.push(byte),
        }
        if let [.., b'%', high, low] = decoded[..]
            && let Some(byte) = escaped_byte(high, low)
        {
            decoded.truncate(decoded.len().saturating_sub(3));
            next = Some(byte);
        }
    }
}

/// Returns the byte that an escape stands for. No page makes one of an unreserved character (RFC 3986): such
/// an escape is a part of the key itself. So is that of NUL, as only keys that are no strings begin with it.
fn escaped_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = digit(high)?.checked_mul(16)?.checked_add(digit(low)?)?;
    let byte = u8::try_from(byte).ok()?;
    let is_literal = byte.is_ascii_alphanumeric() || matches!(byte, 0 | b'-' | b'.' | b'_' | b'~');
    (!is_literal).then_some(byte)
}

fn trim_end(key: &str) -> &str {
    key.trim_end_matches(|char: char| char <= ' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_key_are_equal() {
        for (text, spellings) in [
            ("salle de thé", &["salle%20de%20th%C3%A9", "salle%20de%20th%c3%a9", "salle de thé "][..]),
            ("a+b", &["a+b", "a%2Bb", "a%2bb"]),
            ("a/b", &["a/b", "a%2Fb", "a%2fb", "a%252Fb", "a\\b", "a%5Cb"]),
            ("a?b#c", &["a%3Fb%23c", "a?b#c"]),
            ("100%", &["100%", "100%25"]),
            ("50% of %zz", &["50%%20of%20%zz", "50%25%20of%20%25zz"]),
            ("\u{1f375}", &["%F0%9F%8D%B5", "%f0%9f%8d%b5"]),
            ("x\u{fffd}", &["x%EF%BF%BD"]),
            ("%FF", &["%ff", "%25FF"]),
            ("%61", &["%61", "%2561"]),
            ("%00x", &["%00x", "%2500x"]),
            ("tab", &["t\tab\r\n", "t%09ab"]),
            ("\"<>`{}|^", &["%22%3C%3E%60%7B%7D|^"]),
            ("", &[" ", "%20", "\n"]),
            (
                "b",
                &[
                    "a/../b",
                    "a%2F..%2Fb",
                    "./b",
                    "../b",
                    "a\\..\\b",
                    "a/%2e%2E/b",
                    "a/.%2e/b",
                    "a%252F..%252Fb",
                ],
            ),
            ("b", &["a%2Fx/../b", "a%252Fx%2F..%2Fb", "a/.\t./b", "%2e/b", "a/../../b"]),
            ("a/", &["a/.", "a/b/..", "a/b/.. ", "a%2Fb%2F..", "a/./"]),
            ("/b", &["a/..//b", ".//b"]),
            ("b?x/../y", &["a/../b?x/../y", "b%3Fx%2F..%2Fy"]),
            ("a/..", &["a%2F..", "a\\.."]),
        ] {
            for spelling in spellings.iter().chain([&text]) {
                assert_eq!(canonical(RoomKey::from(*spelling)).as_str(), text, "{spelling:?}");
            }
        }
    }

    #[test]
    fn keys_that_differ_stay_apart() {
        let keys = [
            "a", "A", "a b", "a+b", "a/b", "ab", " a", "a//b", "é", "e\u{301}", "%FF", "%FE", "\u{0}1", "1",
            "%61", "%2D", "-", "a/..b", "a/...", "a/", "..", ".", "a/..", "b/..", "a?b", "a?c/../b", "a%2E",
            "a.",
        ];
        for (at, key) in keys.iter().enumerate() {
            for other in &keys[at + 1..] {
                assert_ne!(canonical(RoomKey::from(*key)), canonical(RoomKey::from(*other)), "{key} {other}");
            }
        }
    }

    #[test]
    fn key_of_many_nested_escapes_is_decoded_in_one_pass() {
        let nested = format!("%{}", "25".repeat(1 << 20));
        assert_eq!(canonical_text(&nested), "%");
    }

    #[test]
    fn partition_is_kept() {
        let key = RoomKey::from("a%20b").with_partition(3);
        assert_eq!(canonical(key), RoomKey::from("a b").with_partition(3));
    }

    proptest! {
        #[test]
        fn canonical_key_is_its_own_canonical_form(key in "(%|%[0-9a-fA-F]{2}|25|\\PC|[\\x00-\\x7f]){0,40}") {
            let once = canonical_text(&key).into_owned();
            prop_assert_eq!(canonical_text(&once), &*once);
        }

        /// The path of a browser, and the text that a page encodes itself.
        #[test]
        fn encoded_key_is_the_plain_one(key in "\\PC{0,40}") {
            let encode = |byte: u8| match byte {
                byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => char::from(byte).to_string(),
                byte => format!("%{byte:02x}"),
            };
            let encoded: String = key.bytes().map(encode).collect();
            prop_assert_eq!(canonical_text(&encoded), canonical_text(&key));
        }

        /// The path of a browser for the text of a page, by another implementation of its parser.
        #[test]
        fn path_of_a_browser_is_the_plain_key(key in "[ab./\\\\%2eE5Fé \t]{0,16}") {
            let url = url::Url::parse("ws://localhost").unwrap().join(&format!("ws://localhost/{key}")).unwrap();
            let path = &url.path()[1..];
            // A browser without a key in its path is in no room.
            prop_assume!(!path.is_empty());
            prop_assert_eq!(canonical_text(path), canonical_text(&key));
            let encoded = key.replace('%', "%25").replace('/', "%2F").replace('\\', "%5C").replace('\t', "%09");
            prop_assert_eq!(canonical_text(&encoded), canonical_text(&key));
        }
    }
}
