//! JSON text in the form `JSON.stringify` gives it. The Node.js servers parse and stringify every message, so
//! what they forward has that form whatever the sender wrote.
//!
//! Clients send the output of `JSON.stringify`, which a second pass would not change: [`Reader`] recognizes
//! such text and finds its members without building a tree. Any other text is parsed as a [`JsValue`] and
//! written again. `Reader` may reject text that is in the form after all (numbers with an exponent or over 15
//! digits, deep nesting, many names): the result is the same.

mod reader;
mod value;

use std::fmt::Write as _;

use bytestring::ByteString;
use smallvec::SmallVec;

use self::reader::{Reader, unescaped_prefix_len};
use self::value::JsValue;
pub(in crate::protocol::dialect) use self::value::{JsonSyntaxError, MAX_DEPTH, unescape};
use crate::protocol::model::should_share_buffer;

/// A JSON value as `JSON.stringify` text.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::protocol::dialect) enum JsonValue {
    /// An object.
    Object(JsonObject),
    /// The text of any other value.
    Other(ByteString),
}

impl JsonValue {
    /// Parses a text, and rewrites it if it is not in `JSON.stringify` form.
    ///
    /// # Errors
    /// The text is not JSON, or is nested too deep.
    pub(in crate::protocol::dialect) fn parse(text: ByteString) -> Result<Self, JsonSyntaxError> {
        if let Some(members) = Reader::read(&text) {
            return Ok(match text.starts_with('{') {
                true => JsonValue::Object(JsonObject { text, members }),
                false => JsonValue::Other(text),
            });
        }
        let value = JsValue::parse(&text)?;
        if let JsValue::Object(members) = &value {
            let mut builder = ObjectBuilder::default();
            for (name, value) in members {
                builder.push_with(name, |text| value.write(text));
            }
            return Ok(JsonValue::Object(builder.finish()));
        }
        let mut text = String::new();
        value.write(&mut text);
        Ok(JsonValue::Other(text.into()))
    }

    /// Returns the text.
    pub(in crate::protocol::dialect) fn into_text(self) -> ByteString {
        match self {
            JsonValue::Object(object) => object.into_text(),
            JsonValue::Other(text) => text,
        }
    }
}

/// A JSON object as `JSON.stringify` text, with the places of its members.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::protocol::dialect) struct JsonObject {
    text: ByteString,
    members: Members,
}

type Members = SmallVec<[Member; 4]>;

/// The place of a member in the text of an object, `name` without its quotes.
#[derive(Clone, Debug, PartialEq)]
struct Member {
    name: (usize, usize),
    value: (usize, usize),
}

impl JsonObject {
    /// Parses a text as [`JsonValue::parse`] does. Returns `None` if it is not a JSON object.
    pub(in crate::protocol::dialect) fn parse(text: ByteString) -> Option<Self> {
        match JsonValue::parse(text).ok()? {
            JsonValue::Object(object) => Some(object),
            JsonValue::Other(_) => None,
        }
    }

    /// Returns the object that this text is, if the text is recognized to be in `JSON.stringify` form.
    pub(in crate::protocol::dialect) fn recognize(text: ByteString) -> Option<Self> {
        let members = Reader::read(&text).filter(|_| text.starts_with('{'))?;
        Some(JsonObject { text, members })
    }

    /// Creates an object with one member.
    pub(in crate::protocol::dialect) fn with_member(name: &str, value: &str) -> Self {
        let mut builder =
            ObjectBuilder::with_capacity(name.len().saturating_add(value.len()).saturating_add(5));
        builder.push(name, value);
        builder.finish()
    }

    /// The text.
    pub(in crate::protocol::dialect) fn into_text(self) -> ByteString {
        self.text
    }

    /// The text.
    pub(in crate::protocol::dialect) fn text(&self) -> &ByteString {
        &self.text
    }

    /// Number of members.
    pub(in crate::protocol::dialect) fn len(&self) -> usize {
        self.members.len()
    }

    /// The members in their order: names without quotes, and the text of the values.
    pub(in crate::protocol::dialect) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let part = |(start, end): (usize, usize)| self.text.get(start..end).unwrap_or_default();
        self.members.iter().map(move |member| (part(member.name), part(member.value)))
    }

    /// Returns the text of the value of this name.
    pub(in crate::protocol::dialect) fn get(&self, name: &str) -> Option<&str> {
        let bytes = self.text.as_bytes();
        let is_named = |member: &&Member| bytes.get(member.name.0..member.name.1) == Some(name.as_bytes());
        self.members.iter().find(is_named).and_then(|member| self.text.get(member.value.0..member.value.1))
    }

    /// Returns true if the object has a member of this name.
    pub(in crate::protocol::dialect) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns true if the object has a member of this name and no other.
    pub(in crate::protocol::dialect) fn has_only(&self, name: &str) -> bool {
        self.len() == 1 && self.has(name)
    }

    /// Returns the value of this name as a text of its own, which shares the memory of the object unless it
    /// is a small part of it.
    pub(in crate::protocol::dialect) fn share(&self, name: &str) -> Option<ByteString> {
        self.get(name).map(|value| self.share_value(value))
    }

    /// Returns a part of the text as [`share`](Self::share) does.
    pub(in crate::protocol::dialect) fn share_value(&self, value: &str) -> ByteString {
        if should_share_buffer(value.len(), self.text.len()) {
            self.text.slice_ref(value)
        } else {
            value.into()
        }
    }
}

/// Writes the text of an object.
#[derive(Debug, Default)]
pub(in crate::protocol::dialect) struct ObjectBuilder {
    text: String,
    members: Members,
}

impl ObjectBuilder {
    /// A builder with memory for a text of this length.
    pub(in crate::protocol::dialect) fn with_capacity(length: usize) -> Self {
        ObjectBuilder { text: String::with_capacity(length), members: Members::new() }
    }

    /// Appends a member whose value is this JSON text. `name` is written between quotes as it is.
    pub(in crate::protocol::dialect) fn push(&mut self, name: &str, value: &str) {
        self.push_with(name, |text| text.push_str(value));
    }

    /// Appends a member whose value is this string.
    pub(in crate::protocol::dialect) fn push_string(&mut self, name: &str, value: &str) {
        self.push_with(name, |text| write_string(text, value));
    }

    fn push_with(&mut self, name: &str, write_value: impl FnOnce(&mut String)) {
        self.text.push_str(if self.text.is_empty() { "{\"" } else { ",\"" });
        let start = self.text.len();
        self.text.push_str(name);
        let name = (start, self.text.len());
        self.text.push_str("\":");
        let start = self.text.len();
        write_value(&mut self.text);
        self.members.push(Member { name, value: (start, self.text.len()) });
    }

    /// Returns the object.
    pub(in crate::protocol::dialect) fn finish(mut self) -> JsonObject {
        self.text.push_str(if self.text.is_empty() { "{}" } else { "}" });
        JsonObject { text: self.text.into(), members: self.members }
    }
}

/// Appends a string as `JSON.stringify` writes it.
pub(in crate::protocol::dialect) fn write_string(out: &mut String, string: &str) {
    out.push('"');
    let mut rest = string;
    loop {
        let (copied, special) =
            rest.split_at_checked(unescaped_prefix_len(rest.as_bytes())).unwrap_or((rest, ""));
        out.push_str(copied);
        let mut behind = special.chars();
        let Some(special) = behind.next() else { break };
        write_char(out, special);
        rest = behind.as_str();
    }
    out.push('"');
}

/// Appends a character as `JSON.stringify` writes it in a string.
fn write_char(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        control @ ..' ' => {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{:04x}", u32::from(control));
        }
        other => out.push(other),
    }
}

/// Returns the value of a JSON text as JavaScript's `String()` does; empty if it is not JSON.
pub(in crate::protocol::dialect) fn to_js_string(text: &str) -> String {
    JsValue::parse(text).map(|value| value.to_js_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::json::test_json;
    use super::*;

    #[test]
    fn other_text_is_written_again() {
        let text = |text: &str| JsonValue::parse(text.into()).ok().map(JsonValue::into_text);
        assert_eq!(
            text(r#" {"\u0064ata": 1.50, "a\"": [2.0], "data": 1e3} "#).unwrap(),
            r#"{"data":1000,"a\"":[2]}"#
        );
        assert_eq!(text("[ 1 ]").unwrap(), "[1]");
        assert_eq!(text("{ }").unwrap(), "{}");
        assert_eq!(text("{"), None);
        assert!(text(&"[".repeat(1_000_000)).is_none());
        let nested = format!("{{\"data\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert_eq!(text(&nested).as_deref(), Some(&*nested));
        assert_eq!(
            text(r#"{"data":"smile \ud83d","2":1e400,"1":0}"#).unwrap(),
            r#"{"1":0,"2":null,"data":"smile \ud83d"}"#
        );
    }

    #[test]
    fn a_small_value_of_a_large_object_is_copied() {
        let shares = |length: usize| {
            let text =
                format!("{{\"a\":\"{}\",\"b\":\"{}\"}}", "x".repeat(length), "x".repeat(4096 - length));
            let object = JsonObject::parse(text.into()).unwrap();
            let part = object.share("a").unwrap();
            object.text().as_bytes().as_ptr_range().contains(&part.as_bytes().as_ptr())
        };
        assert!(shares(2060));
        assert!(!shares(2040));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Text that the reader recognizes is what the other parser would write.
        #[test]
        fn both_parsers_agree(text in prop_oneof![test_json::any_json_text(), test_json::canonical_object()]) {
            let value = JsonValue::parse(text.as_str().into()).ok();
            let tree = JsValue::parse(&text).ok();
            let written = |value: &JsValue| {
                let mut text = String::new();
                value.write(&mut text);
                text
            };
            let whole = value.clone().map(|value| value.into_text().to_string());
            prop_assert_eq!(whole.clone(), tree.as_ref().map(written));
            if Reader::read(&text).is_some() {
                prop_assert_eq!(whole, Some(text));
            }
            let (Some(JsonValue::Object(object)), Some(JsValue::Object(tree))) = (value, tree) else { return Ok(()) };
            let members: Vec<_> = object.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let expected: Vec<_> = tree.iter().map(|(name, value)| (name.clone(), written(value))).collect();
            prop_assert_eq!(members, expected);
        }

        #[test]
        fn strings_are_written_as_serde_json_writes_them(string in "[ -~\u{0}-\u{1f}\u{7f}-\u{a0}é\u{2028}😀]{0,30}|[a-z]{0,40}") {
            let mut written = String::new();
            write_string(&mut written, &string);
            prop_assert_eq!(written, serde_json::Value::from(string).to_string());
        }
    }
}
