//! Heads of HTTP requests: an upgrade that is granted without hyper is granted by hyper, identically. And the
//! paths of signaller, against their regular expression.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sigver::fuzzing;

/// Returns true for a handle: `[a-z](?:_?[a-z0-9]){2,31}`, read backwards.
fn is_handle(text: &str) -> bool {
    let letters = text.bytes().filter(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()).count();
    let underscores = text.bytes().filter(|byte| *byte == b'_').count();
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && letters + underscores == text.len()
        && (3..=32).contains(&letters)
        && !text.contains("__")
        && !text.ends_with('_')
}

fuzz_target!(|bytes: &[u8]| {
    fuzzing::check_upgrade(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for path in text.split_ascii_whitespace().filter(|path| !path.contains('%')) {
        let expected = ["/listen/", "/connect/"]
            .into_iter()
            .find_map(|prefix| path.strip_prefix(prefix))
            .filter(|handle| is_handle(handle));
        assert_eq!(fuzzing::signaller_handle(path).as_deref(), expected, "{path}");
    }
});
