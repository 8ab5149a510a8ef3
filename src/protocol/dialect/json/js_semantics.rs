//! JavaScript's reading of JSON values: strings, keys of any type, and truth.

use std::borrow::Cow;

use crate::protocol::dialect::json_text::unescape;
use crate::protocol::model::RoomKey;

/// Returns the string that this JSON text is; `None` for any other value.
pub(in crate::protocol::dialect) fn string_content(text: &str) -> Option<Cow<'_, str>> {
    let content = text.strip_prefix('"')?.strip_suffix('"')?;
    if content.contains('\\') { unescape(content).map(Cow::from) } else { Some(content.into()) }
}

/// Returns the room key that a JSON text stands for on the servers that take keys of any type and compare
/// them strictly: the number 1 is not the string "1".
pub(super) fn room_key(key: &str) -> RoomKey {
    match string_content(key) {
        Some(key) => RoomKey::from(&*key),
        None => RoomKey::from(format!("\0{key}").as_str()),
    }
}

/// Returns true if a JSON text in `JSON.stringify` form is a value that JavaScript treats as true.
pub(super) fn is_truthy(text: &str) -> bool {
    !matches!(text, "null" | "false" | "0" | "\"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_unescaped() {
        assert_eq!(string_content(r#""a\"\u00e9""#).as_deref(), Some("a\"é"));
        assert_eq!(string_content(r#""\ud83d\ude00\ud83d""#).as_deref(), Some("😀\u{fffd}"));
        assert_eq!(string_content("7"), None);
        assert_eq!(string_content("\""), None);
    }
}
