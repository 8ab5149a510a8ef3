//! Any JSON text as the value that `JSON.parse` returns, and the text that `JSON.stringify` gives for it.
//!
//! JavaScript accepts more than `serde_json` does: escapes of half a surrogate pair, which stay escapes; and
//! numbers of any size, which are `null` beyond the largest.

use std::fmt::Write as _;

use indexmap::IndexMap;

use super::reader::unescaped_prefix_len;
use super::write_char;

/// Deepest nesting of objects and lists. JavaScript follows some thousand levels; messages of clients are 4
/// deep.
pub(in crate::protocol::dialect) const MAX_DEPTH: usize = 512;

/// Error of a text that is no JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol::dialect) enum JsonSyntaxError {
    /// The text is not JSON.
    NotJson,
    /// The value is nested deeper than [`MAX_DEPTH`].
    TooDeep,
}

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum JsValue {
    Null,
    Bool(bool),
    Number(f64),
    /// The text between the quotes, as `JSON.stringify` writes it.
    String(String),
    Array(Vec<JsValue>),
    /// Members in JavaScript's order. Names are as in `String`.
    Object(IndexMap<String, JsValue>),
}

impl JsValue {
    /// Parses a text.
    pub(super) fn parse(text: &str) -> Result<JsValue, JsonSyntaxError> {
        let mut parser = Parser { rest: text };
        parser.skip_space();
        let value = parser.value(0)?;
        parser.skip_space();
        if parser.rest.is_empty() { Ok(value) } else { Err(JsonSyntaxError::NotJson) }
    }

    /// Appends the value as `JSON.stringify` writes it.
    pub(super) fn write(&self, out: &mut String) {
        match self {
            JsValue::Null => out.push_str("null"),
            JsValue::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            JsValue::Number(value) => write_number(out, *value),
            JsValue::String(text) => write_quoted(out, text),
            JsValue::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            JsValue::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    write_quoted(out, name);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// Returns the value as JavaScript's `String()` does.
    pub(super) fn to_js_string(&self) -> String {
        match self {
            JsValue::String(text) => unescape(text).unwrap_or_default(),
            JsValue::Array(items) => {
                let item = |item: &JsValue| match item == &JsValue::Null {
                    true => String::new(),
                    false => item.to_js_string(),
                };
                items.iter().map(item).collect::<Vec<_>>().join(",")
            }
            JsValue::Object(_) => "[object Object]".to_owned(),
            JsValue::Number(value) if value.is_infinite() => {
                if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
            }
            JsValue::Null | JsValue::Bool(_) | JsValue::Number(_) => {
                let mut text = String::new();
                self.write(&mut text);
                text
            }
        }
    }
}

fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// Appends a number as JavaScript does: without an exponent from 0.000001 up to 10²¹, and without a fraction
/// if it is an integer.
fn write_number(out: &mut String, value: f64) {
    // Writing to a string does not fail. `f64` is displayed with the digits of JavaScript.
    let _ = if !value.is_finite() {
        out.write_str("null")
    } else if value == 0.0 {
        out.write_str("0")
    } else if (1e-6..1e21).contains(&value.abs()) {
        write!(out, "{value}")
    } else if value.abs() < 1.0 {
        write!(out, "{value:e}")
    } else {
        out.write_str(&format!("{value:e}").replace('e', "e+"))
    };
}

/// Returns the content of a string whose text between the quotes is this; `None` if an escape is malformed.
/// Half a surrogate pair becomes U+FFFD, as where JavaScript encodes UTF-8.
pub(in crate::protocol::dialect) fn unescape(text: &str) -> Option<String> {
    let mut content = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((copied, behind)) = rest.split_once('\\') {
        content.push_str(copied);
        let (unit, behind) = escape(behind)?;
        content.push(match unit {
            CodeUnit::Character(character) => character,
            CodeUnit::Surrogate(_) => char::REPLACEMENT_CHARACTER,
        });
        rest = behind;
    }
    content.push_str(rest);
    Some(content)
}

/// Meaning of an escape.
enum CodeUnit {
    Character(char),
    /// Half a surrogate pair without the other half.
    Surrogate(u16),
}

/// Reads an escape behind its backslash. Returns its meaning and what follows.
fn escape(text: &str) -> Option<(CodeUnit, &str)> {
    let mut characters = text.chars();
    let character = match characters.next()? {
        same @ ('"' | '\\' | '/') => same,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return unicode_escape(characters.as_str()),
        _ => return None,
    };
    Some((CodeUnit::Character(character), characters.as_str()))
}

/// Reads the digits behind `\u`, and those of a second escape if the two are a surrogate pair.
fn unicode_escape(text: &str) -> Option<(CodeUnit, &str)> {
    let (first, rest) = four_digits(text)?;
    if let Some(character) = char::from_u32(first.into()) {
        return Some((CodeUnit::Character(character), rest));
    }
    let second = rest.strip_prefix("\\u").and_then(four_digits);
    if let Some((second, behind)) = second
        && let Some(Ok(character)) = char::decode_utf16([first, second]).next()
    {
        return Some((CodeUnit::Character(character), behind));
    }
    Some((CodeUnit::Surrogate(first), rest))
}

fn four_digits(text: &str) -> Option<(u16, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    Some((u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)?, rest))
}

/// Returns the index of a list that a name is: JavaScript has the members of such names first, in the order
/// of the numbers.
fn list_index(name: &str) -> Option<u32> {
    let is_canonical = name == "0" || name.starts_with(|first: char| ('1'..='9').contains(&first));
    name.parse().ok().filter(|index| is_canonical && *index != u32::MAX)
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Consumes this text. Returns false if another one is next.
    fn consume(&mut self, text: &str) -> bool {
        let behind = self.rest.strip_prefix(text);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    fn expect(&mut self, text: &str) -> Result<(), JsonSyntaxError> {
        if self.consume(text) { Ok(()) } else { Err(JsonSyntaxError::NotJson) }
    }

    fn value(&mut self, depth: usize) -> Result<JsValue, JsonSyntaxError> {
        let literal = |value| move |()| value;
        match self.rest.as_bytes().first().copied().unwrap_or_default() {
            b'"' => self.string().map(JsValue::String),
            b'{' | b'[' if depth == MAX_DEPTH => Err(JsonSyntaxError::TooDeep),
            b'{' => self.object(depth.saturating_add(1)),
            b'[' => self.list(depth.saturating_add(1)),
            b't' => self.expect("true").map(literal(JsValue::Bool(true))),
            b'f' => self.expect("false").map(literal(JsValue::Bool(false))),
            b'n' => self.expect("null").map(literal(JsValue::Null)),
            _ => self.number().ok_or(JsonSyntaxError::NotJson),
        }
    }

    fn object(&mut self, depth: usize) -> Result<JsValue, JsonSyntaxError> {
        let mut members = IndexMap::new();
        let mut has_index = false;
        self.expect("{")?;
        self.skip_space();
        if !self.consume("}") {
            loop {
                let name = self.string()?;
                has_index |= list_index(&name).is_some();
                self.skip_space();
                self.expect(":")?;
                self.skip_space();
                // A later member takes the place of an earlier one of the same name.
                members.insert(name, self.value(depth)?);
                self.skip_space();
                if !self.consume(",") {
                    break;
                }
                self.skip_space();
            }
            self.expect("}")?;
        }
        if has_index {
            // Stable: all other names keep their order.
            members.sort_by_key(|name, _| list_index(name).map_or(u64::MAX, u64::from));
        }
        Ok(JsValue::Object(members))
    }

    fn list(&mut self, depth: usize) -> Result<JsValue, JsonSyntaxError> {
        let mut items = Vec::new();
        self.expect("[")?;
        self.skip_space();
        if self.consume("]") {
            return Ok(JsValue::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.skip_space();
            if !self.consume(",") {
                break;
            }
            self.skip_space();
        }
        self.expect("]")?;
        Ok(JsValue::Array(items))
    }

    fn digits(&mut self) -> usize {
        let behind = self.rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let count = self.rest.len().saturating_sub(behind.len());
        self.rest = behind;
        count
    }

    fn number(&mut self) -> Option<JsValue> {
        let text = self.rest;
        self.consume("-");
        if !self.consume("0") && self.digits() == 0 {
            return None;
        }
        if self.consume(".") && self.digits() == 0 {
            return None;
        }
        if self.consume("e") || self.consume("E") {
            let _ = self.consume("+") || self.consume("-");
            if self.digits() == 0 {
                return None;
            }
        }
        let length = text.len().saturating_sub(self.rest.len());
        text.get(..length)?.parse().ok().map(JsValue::Number)
    }

    /// A string. Returns the text between its quotes as `JSON.stringify` writes it.
    fn string(&mut self) -> Result<String, JsonSyntaxError> {
        self.expect("\"")?;
        let mut text = String::new();
        loop {
            let length = unescaped_prefix_len(self.rest.as_bytes());
            let (copied, special) = self.rest.split_at_checked(length).ok_or(JsonSyntaxError::NotJson)?;
            text.push_str(copied);
            self.rest = special;
            if self.consume("\"") {
                return Ok(text);
            }
            self.expect("\\")?;
            let (unit, behind) = escape(self.rest).ok_or(JsonSyntaxError::NotJson)?;
            match unit {
                CodeUnit::Character(character) => write_char(&mut text, character),
                CodeUnit::Surrogate(half) => {
                    // Writing to a string does not fail.
                    let _ = write!(text, "\\u{half:04x}");
                }
            }
            self.rest = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::json::test_json;
    use super::*;

    fn again(text: &str) -> Option<String> {
        let mut written = String::new();
        JsValue::parse(text).ok()?.write(&mut written);
        Some(written)
    }

    #[test]
    fn every_text_is_written_as_node_writes_it() {
        let rows = include_str!("../../../../tests/fixtures/json/stringify.jsonl");
        assert_eq!(rows.lines().count(), 187);
        for row in rows.lines() {
            // `serde_json` cannot read a row, as an input may be text with half a surrogate pair.
            let Ok(JsValue::Array(pair)) = JsValue::parse(row) else { panic!("{row}") };
            let text = |value: &JsValue| match value {
                JsValue::String(text) => unescape(text),
                _ => None,
            };
            let [input, output] = &pair[..] else { panic!("{row}") };
            assert_eq!(again(&text(input).unwrap()), text(output), "{row}");
        }
    }

    #[test]
    fn nesting_has_a_bound_with_an_error_of_its_own() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(again(&nested(MAX_DEPTH)), Some(nested(MAX_DEPTH)));
        for text in [nested(MAX_DEPTH + 1), "[".repeat(1_000_000), "{\"a\":".repeat(MAX_DEPTH + 1)] {
            assert!(matches!(JsValue::parse(&text), Err(JsonSyntaxError::TooDeep)));
        }
        assert!(matches!(JsValue::parse(&"[".repeat(MAX_DEPTH)), Err(JsonSyntaxError::NotJson)));
    }

    #[test]
    fn values_become_strings_as_in_javascript() {
        for (text, expected) in [
            (r#"["a",[1,null],{}]"#, "a,1,,[object Object]"),
            ("null", "null"),
            ("true", "true"),
            ("-0", "0"),
            ("-1e999", "-Infinity"),
            (r#""a\n\ud83d""#, "a\n\u{fffd}"),
        ] {
            assert_eq!(JsValue::parse(text).unwrap().to_js_string(), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Text that `serde_json` accepts is accepted, with the same values; text that is accepted besides
        /// has half a surrogate pair, or a number beyond the largest.
        #[test]
        fn values_are_those_of_serde_json(text in test_json::any_json_text()) {
            // A name by which `serde_json` marks values of its own.
            if text.contains("$serde") {
                return Ok(());
            }
            let tree: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            let value = JsValue::parse(&text).ok();
            match (tree, value) {
                (Some(tree), Some(value)) => prop_assert_eq!(of_tree(&tree), value),
                (None, None) => {}
                (None, Some(value)) => {
                    let mut written = String::new();
                    value.write(&mut written);
                    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
                    let overflows = words.filter_map(|word| word.parse::<f64>().ok()).any(f64::is_infinite);
                    prop_assert!(text.contains("\\ud800") || overflows, "{}", text);
                    // What is written is again JSON to JavaScript.
                    prop_assert_eq!(again(&written), Some(written));
                }
                (Some(_), None) => prop_assert!(false, "{}", text),
            }
        }
    }

    fn of_tree(tree: &serde_json::Value) -> JsValue {
        let string = |text: &str| {
            let mut quoted = String::new();
            super::super::write_string(&mut quoted, text);
            quoted[1..quoted.len() - 1].to_owned()
        };
        match tree {
            serde_json::Value::Null => JsValue::Null,
            serde_json::Value::Bool(value) => JsValue::Bool(*value),
            serde_json::Value::Number(number) => JsValue::Number(number.as_f64().unwrap()),
            serde_json::Value::String(text) => JsValue::String(string(text)),
            serde_json::Value::Array(items) => JsValue::Array(items.iter().map(of_tree).collect()),
            serde_json::Value::Object(members) => {
                let is_index = |name: &str| name.parse::<u32>().is_ok_and(|index| index.to_string() == name);
                let (mut indexes, names): (Vec<_>, Vec<_>) =
                    members.iter().partition(|(name, _)| is_index(name));
                indexes.sort_by_key(|(name, _)| name.parse::<u32>().unwrap());
                let members = indexes.into_iter().chain(names);
                JsValue::Object(members.map(|(name, value)| (string(name), of_tree(value))).collect())
            }
        }
    }
}
