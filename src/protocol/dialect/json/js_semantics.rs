//! JavaScript's reading of JSON values: keys of any type, truth, and numbers.

use std::borrow::Cow;
use std::io;

use bytestring::ByteString;
use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use crate::protocol::model::RoomKey;

/// Returns the string that this JSON text is; `None` for any other value.
pub(in crate::protocol::dialect) fn string_content(text: &str) -> Option<Cow<'_, str>> {
    let content = text.strip_prefix('"')?.strip_suffix('"')?;
    if content.contains('\\') { serde_json::from_str(text).ok() } else { Some(content.into()) }
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

/// Returns a value as JavaScript's `String()` does.
pub(super) fn to_js_string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(to_js_string).collect::<Vec<_>>().join(","),
        Value::Object(_) => "[object Object]".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Returns the text of a value as `JSON.stringify` writes it: 1.50 is 1.5, and 2.0 is 2 (sigver 5 to 14,
/// measured).
pub(super) fn stringify(value: &Value) -> ByteString {
    let mut text = Vec::new();
    // Writing to a vector does not fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut text, JavaScriptNumbers));
    String::from_utf8(text).unwrap_or_default().into()
}

/// Writes floating-point numbers as JavaScript does: without an exponent from 0.000001 on, and without a
/// fraction if they are integers.
struct JavaScriptNumbers;

impl Formatter for JavaScriptNumbers {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let magnitude = value.abs();
        if magnitude == 0.0 {
            writer.write_all(b"0")
        } else if (1e-6..EXACT).contains(&magnitude) {
            write!(writer, "{value}")
        } else {
            CompactFormatter.write_f64(writer, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        let again = |text: &str| stringify(&serde_json::from_str(text).unwrap());
        assert_eq!(again(r#"[ 1.50, 2.0, -0.0, 1e3, 7, {"a": 3.0} ]"#), r#"[1.5,2,0,1000,7,{"a":3}]"#);
        assert_eq!(again(r#"{"u":"\u00e9"}"#), r#"{"u":"é"}"#);
        assert_eq!(again("[-0,1e-400]"), "[0,0]");
        assert_eq!(again("[ 0.000001, 1.5e-6, -0.0000001, 25e-1]"), "[0.000001,0.0000015,-1e-7,2.5]");
    }

    #[test]
    fn strings_are_unescaped() {
        assert_eq!(string_content(r#""a\"\u00e9""#).as_deref(), Some("a\"é"));
        assert_eq!(string_content("7"), None);
        assert_eq!(string_content("\""), None);
    }

    #[test]
    fn keys_of_any_type_become_strings() {
        let key = |text: &str| to_js_string(&serde_json::from_str(text).unwrap());
        assert_eq!(key(r#"["a",[1,null],{}]"#), "a,1,null,[object Object]");
    }
}
