//! Text that is written as `JSON.stringify` writes it, and so as it would be written again: an object of it is known by
//! one look over its bytes. The originals read each message into a tree and write that; clients send what
//! `JSON.stringify` made, of which that is the same text again. To decode an ICE candidate of sigver 13 takes 2,800
//! instructions this way, most of them here, instead of 13,900 and 20 allocations for the tree and its text.
//!
//! In doubt it is not canonical, and whoever asks takes the tree: fractions, long numbers, escapes by number, too many
//! names to compare, or names that the reader of trees treats in ways of its own.

use std::fmt::Write as _;
use std::ops::Deref;

use bytestring::ByteString;
use smallvec::SmallVec;

use super::payload::{BYTES, should_share_buffer};

/// How deep objects and lists may be in one another. What clients send is 4 deep; a tree may be 127.
const MAX_DEPTH: usize = 16;

/// How many names may be known at once, of an object and those around it: each new one is compared with them.
const MAX_NAMES: usize = 16;

/// The longest whole number: each of so many digits is one that JavaScript and a tree hold exactly.
const MAX_DIGITS: usize = 15;

/// The attributes of a canonical object, in their order: names, which are all different, and the text of the values.
/// Names are without quotes, and otherwise as they are written, which is in one way only.
#[derive(Debug, PartialEq)]
pub(crate) struct Attributes<'a>(SmallVec<[(&'a str, &'a str); 4]>);

impl<'a> Attributes<'a> {
    /// The attributes of this text, if it is a canonical object.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        let mut attributes = Attributes(SmallVec::new());
        let mut reader = Reader { text, at: 0, names: SmallVec::new() };
        reader.object(1, |name, value| attributes.0.push((name, value)))?;
        (reader.at == text.len()).then_some(attributes)
    }

    /// The text of the value of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }
}

impl<'a> Deref for Attributes<'a> {
    type Target = [(&'a str, &'a str)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Whether this text is a canonical value of any kind.
pub(crate) fn is_value(text: &str) -> bool {
    let mut reader = Reader { text, at: 0, names: SmallVec::new() };
    reader.value(0).is_some() && reader.at == text.len()
}

/// The name of the only attribute of this text, if it is a canonical object of one.
pub(crate) fn only_name(text: &str) -> Option<&str> {
    match Attributes::of(text)?[..] {
        [(name, _)] => Some(name),
        _ => None,
    }
}

/// A part of a text. They share memory, unless it is a small part.
pub(crate) fn part(text: &ByteString, part: &str) -> ByteString {
    if should_share_buffer(part.len(), text.len()) { text.slice_ref(part) } else { part.into() }
}

/// Reads canonical text. Each part returns nothing if it is not there.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Those of the objects that are open.
    names: SmallVec<[&'a str; MAX_NAMES]>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Whether it goes on with this byte, which is then read.
    fn eat(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn since(&self, start: usize) -> Option<&'a str> {
        self.text.get(start..self.at)
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' => self.object(depth + 1, |_, _| ()),
            b'[' => self.list(depth + 1),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize, mut attribute: impl FnMut(&'a str, &'a str)) -> Option<()> {
        self.expect(b'{')?;
        if depth > MAX_DEPTH {
            return None;
        }
        if self.eat(b'}') {
            return Some(());
        }
        let outer = self.names.len();
        loop {
            let name = self.string()?;
            // A name with `$` may be one by which serde_json marks values of its own (feature `raw_value`); that of
            // bytes is none.
            if name.starts_with('$') && name != BYTES
                || self.names.len() == MAX_NAMES
                || self.names.iter().skip(outer).any(|other| *other == name)
            {
                return None;
            }
            self.names.push(name);
            self.expect(b':')?;
            let start = self.at;
            self.value(depth)?;
            attribute(name, self.since(start)?);
            if !self.eat(b',') {
                break;
            }
        }
        self.names.truncate(outer);
        self.expect(b'}')
    }

    fn list(&mut self, depth: usize) -> Option<()> {
        self.expect(b'[')?;
        if depth > MAX_DEPTH {
            return None;
        }
        if self.eat(b']') {
            return Some(());
        }
        loop {
            self.value(depth)?;
            if !self.eat(b',') {
                return self.expect(b']');
            }
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.rest().starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    /// A whole number. What follows one that has a fraction or an exponent is no part of an object.
    fn number(&mut self) -> Option<()> {
        let negative = self.eat(b'-');
        if self.eat(b'0') {
            // That of -0 is lost.
            return (!negative).then_some(());
        }
        let digits = self.rest().iter().take(MAX_DIGITS + 1).take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        (1..=MAX_DIGITS).contains(&digits).then_some(())
    }

    /// What is between quotes. Most names, and short values, are seen whole in the first eight bytes; a content of
    /// 64 bytes of sigver 5 takes 180 instructions less for it and what follows.
    #[inline]
    fn string(&mut self) -> Option<&'a str> {
        if let [b'"', rest @ ..] = self.rest()
            && let Some(word) = rest.first_chunk::<8>()
        {
            let start = self.at + 1;
            let length = specials(u64::from_le_bytes(*word)).trailing_zeros() as usize / 8;
            if word.get(length) == Some(&b'"') {
                self.at = start + length + 1;
                return self.text.get(start..start + length);
            }
        }
        self.long_string()
    }

    /// The same of any string; apart, so that the short ones need no registers for it. Characters are escaped only if they
    /// must be, and in the short form.
    #[inline(never)]
    fn long_string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            self.at += plain(self.rest());
            match self.peek()? {
                b'"' => break,
                b'\\' if matches!(self.rest().get(1)?, b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't') => {
                    self.at += 2;
                }
                _ => return None,
            }
        }
        let content = self.since(start)?;
        self.at += 1;
        Some(content)
    }
}

/// How many of the first bytes stand for themselves in a string. Sixteen are looked at in one go as long as they do, and
/// then eight: to look at one after the other, a candidate takes six times the instructions.
fn plain(bytes: &[u8]) -> usize {
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    let (sixteens, _) = bytes.as_chunks::<16>();
    let all = |bytes: &[u8; 16]| !bytes.iter().fold(false, |any, byte| any | special(byte));
    let mut sure = 16 * sixteens.iter().take_while(|bytes| all(bytes)).count();
    let mut rest = bytes.get(sure..).unwrap_or_default();
    while let Some((word, behind)) = rest.split_first_chunk::<8>() {
        let specials = specials(u64::from_le_bytes(*word));
        if specials != 0 {
            return sure + specials.trailing_zeros() as usize / 8;
        }
        (sure, rest) = (sure + 8, behind);
    }
    sure + rest.iter().take_while(|byte| !special(byte)).count()
}

/// A bit in the first byte that does not stand for itself; in those behind it, a bit may be there without a reason.
const fn specials(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let quote = word ^ (EACH * b'"' as u64);
    let backslash = word ^ (EACH * b'\\' as u64);
    let below = word.wrapping_sub(EACH * 0x20) & !word;
    let zeros = (quote.wrapping_sub(EACH) & !quote) | (backslash.wrapping_sub(EACH) & !backslash);
    (below | zeros) & (EACH << 7)
}

/// Writes a string as `JSON.stringify` does: what stands for itself is copied in one go, for 540 instructions of a
/// candidate instead of 1,740.
pub(crate) fn write_string(out: &mut String, string: &str) {
    out.push('"');
    let mut rest = string;
    loop {
        let (copied, special) = rest.split_at_checked(plain(rest.as_bytes())).unwrap_or((rest, ""));
        out.push_str(copied);
        let mut behind = special.chars();
        match behind.next() {
            None => break,
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some('\u{8}') => out.push_str("\\b"),
            Some('\u{c}') => out.push_str("\\f"),
            Some(control) => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
        }
        rest = behind.as_str();
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::test_json;
    use super::*;

    fn tree(text: &str) -> Option<serde_json::Map<String, Value>> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn what_clients_send_is_canonical() {
        for text in [
            r#"{}"#,
            r#"{"candidate":"candidate:8 1 udp 16 203.0.113.7 46154 typ host","sdpMid":"0","sdpMLineIndex":0}"#,
            r#"{"id":"5f0e","data":{"offer":{"type":"offer","sdp":"v=0\r\no=- 46 2 IN IP4 127.0.0.1\r\n"}}}"#,
            r#"{"é":[1,-20,999999999999999,true,false,null,"\"\\\b\f\n\r\t/"],"e":[],"o":{"é":{}}}"#,
        ] {
            assert!(Attributes::of(text).is_some(), "{text}");
        }
    }

    #[test]
    fn what_would_be_written_otherwise_is_not() {
        for text in [
            "",
            "{",
            "5",
            "[]",
            "{}x",
            "{} ",
            r#"{"a" :1}"#,
            r#"{"a": 1}"#,
            r#"{"a":1,}"#,
            r#"{"a":-0}"#,
            r#"{"a":-}"#,
            r#"{"a":01}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e3}"#,
            r#"{"a":1000000000000000}"#,
            r#"{"a":nul}"#,
            r#"{"a":"\/"}"#,
            r#"{"a":"\u0041"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":"b"#,
            r#"{"a":"b\"#,
            r#"{"a":1,"b":2,"a":3}"#,
            r#"{"x":[{"a":1,"a":3}]}"#,
            r#"{"$serde_json::private::RawValue":"[ ]"}"#,
        ] {
            assert_eq!(Attributes::of(text), None, "{text}");
        }
    }

    #[test]
    fn names_count_while_their_object_is_open() {
        let one = |count: usize| {
            let names: Vec<_> = (0..count).map(|name| format!("\"{name}\":0")).collect();
            format!("{{{}}}", names.join(","))
        };
        let two = |count| format!(r#"{{"a":{0},"b":{0}}}"#, one(count));
        assert!(Attributes::of(&one(MAX_NAMES)).is_some());
        assert!(Attributes::of(&one(MAX_NAMES + 1)).is_none());
        assert!(Attributes::of(&two(MAX_NAMES - 2)).is_some());
        assert!(Attributes::of(&two(MAX_NAMES)).is_none());
    }

    #[test]
    fn depth_has_a_bound() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(Attributes::of(&nested(MAX_DEPTH)).is_some());
        assert!(Attributes::of(&nested(MAX_DEPTH + 1)).is_none());
        assert!(Attributes::of(&nested(1_000_000)).is_none());
    }

    #[test]
    fn a_small_part_of_a_large_text_does_not_hold_it() {
        let text = ByteString::from("x".repeat(4096));
        let held = |length: usize| {
            let part = part(&text, &text[10..10 + length]);
            text.as_bytes().as_ptr_range().contains(&part.as_bytes().as_ptr())
        };
        assert!(held(2048));
        assert!(!held(2047));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever is found canonical is what the tree would be written as, and has the tree's attributes.
        #[test]
        fn canonical_text_is_what_its_tree_is_written_as(text in test_json::sent()) {
            if let Some(attributes) = Attributes::of(&text) {
                let tree = tree(&text);
                prop_assert!(tree.is_some(), "{text}");
                let tree = tree.unwrap_or_default();
                prop_assert_eq!(attributes.len(), tree.len());
                for ((name, raw), (key, value)) in attributes.iter().zip(&tree) {
                    prop_assert_eq!(format!("\"{name}\""), Value::from(key.as_str()).to_string());
                    prop_assert_eq!(*raw, &value.to_string()[..]);
                }
                prop_assert_eq!(&Value::from(tree).to_string()[..], &text[..]);
            }
        }

        #[test]
        fn a_canonical_value_is_what_its_tree_is_written_as(text in test_json::sent()) {
            let tree = serde_json::from_str(&text).map(|tree: Value| tree.to_string());
            prop_assert!(!is_value(&text) || tree.is_ok_and(|written| written == text));
            prop_assert_eq!(is_value(&text) && text.starts_with('{'), Attributes::of(&text).is_some());
        }

        /// What a tree is written as is canonical, unless it is of the things that are left to the tree.
        #[test]
        fn most_of_what_is_written_is_canonical(text in test_json::simple()) {
            prop_assert!(Attributes::of(&text).is_some(), "{text}");
        }

        #[test]
        fn a_string_is_written_as_a_tree_writes_it(string in "[ -~\u{0}-\u{1f}\u{7f}-\u{a0}é\u{2028}😀]{0,30}|[a-z]{0,40}") {
            let mut written = String::new();
            write_string(&mut written, &string);
            prop_assert_eq!(written, Value::from(string).to_string());
        }

        #[test]
        fn plain_bytes_are_counted(bytes in prop::collection::vec(prop_oneof![20 => b' '..=b'!', 1 => any::<u8>()], 0..80)) {
            let special = bytes.iter().position(|byte| *byte < 0x20 || b"\"\\".contains(byte));
            prop_assert_eq!(plain(&bytes), special.unwrap_or(bytes.len()));
        }
    }
}
