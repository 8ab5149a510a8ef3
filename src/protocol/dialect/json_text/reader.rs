//! Recognition of text that is in `JSON.stringify` form.

use smallvec::SmallVec;

use super::{Member, Members};

/// Deepest nesting of objects and lists that [`Reader`] follows. Messages of clients are 4 deep.
const MAX_DEPTH: usize = 16;

/// Most names that [`Reader`] keeps, of an object and those around it: each new one is compared with them.
const MAX_NAMES: usize = 16;

/// Longest number that [`Reader`] accepts, in significant digits: JavaScript writes up to so many as it reads
/// them.
const MAX_DIGITS: usize = 15;

/// Most zeros between the point and the first significant digit. JavaScript writes smaller numbers with an
/// exponent.
const MAX_LEADING_ZEROS: usize = 5;

/// Reads text that is in `JSON.stringify` form. Each function returns `None` if what it reads is not there.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Names of the objects that are open, for finding duplicates.
    names: SmallVec<[&'a str; MAX_NAMES]>,
    /// Members of the outermost object.
    members: Members,
}

impl<'a> Reader<'a> {
    /// Returns the members of the object that the text is; none for any other value.
    pub(super) fn read(text: &'a str) -> Option<Members> {
        let mut reader = Reader { text, at: 0, names: SmallVec::new(), members: Members::new() };
        reader.value(0)?;
        (reader.at == text.len()).then_some(reader.members)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Consumes this byte. Returns false if another one is next.
    fn consume(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.advance(usize::from(is_next));
        is_next
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.consume(byte).then_some(())
    }

    fn advance(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.expect(b'{')?;
        if depth == MAX_DEPTH {
            return None;
        }
        if self.consume(b'}') {
            return Some(());
        }
        let outer = self.names.len();
        loop {
            let name = self.string()?;
            let text = self.text.get(name.0..name.1)?;
            // JavaScript has names that are numbers before all others.
            if text.starts_with(|first: char| first.is_ascii_digit())
                || self.names.len() == MAX_NAMES
                || self.names.iter().skip(outer).any(|other| *other == text)
            {
                return None;
            }
            self.names.push(text);
            self.expect(b':')?;
            let start = self.at;
            self.value(depth.saturating_add(1))?;
            if depth == 0 {
                self.members.push(Member { name, value: (start, self.at) });
            }
            if !self.consume(b',') {
                break;
            }
        }
        self.names.truncate(outer);
        self.expect(b'}')
    }

    fn list(&mut self, depth: usize) -> Option<()> {
        self.expect(b'[')?;
        if depth == MAX_DEPTH {
            return None;
        }
        if self.consume(b']') {
            return Some(());
        }
        loop {
            self.value(depth.saturating_add(1))?;
            if !self.consume(b',') {
                return self.expect(b']');
            }
        }
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        self.rest().starts_with(word.as_bytes()).then(|| self.advance(word.len()))
    }

    /// A number. A digit or an exponent that may follow is rejected by what reads on.
    fn number(&mut self) -> Option<()> {
        let negative = self.consume(b'-');
        let is_zero = self.consume(b'0');
        let integer = if is_zero { 0 } else { self.digits().len() };
        if !self.consume(b'.') {
            // JavaScript writes -0 as 0.
            let is_canonical = if is_zero { !negative } else { (1..=MAX_DIGITS).contains(&integer) };
            return is_canonical.then_some(());
        }
        let fraction = self.digits();
        let leading_zeros =
            if is_zero { fraction.iter().take_while(|digit| **digit == b'0').count() } else { 0 };
        let significant = integer.saturating_add(fraction.len()).saturating_sub(leading_zeros);
        let is_canonical = (is_zero || integer > 0)
            && fraction.last().is_some_and(|digit| *digit != b'0')
            && significant <= MAX_DIGITS
            && leading_zeros <= MAX_LEADING_ZEROS;
        is_canonical.then_some(())
    }

    fn digits(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.advance(count);
        rest.get(..count).unwrap_or_default()
    }

    /// A string. Returns the place of what is between its quotes.
    fn string(&mut self) -> Option<(usize, usize)> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let rest = self.rest();
            let length = unescaped_prefix_len(rest);
            self.advance(length);
            match rest.get(length..)? {
                [b'"', ..] => break,
                // `JSON.stringify` escapes only what must be escaped, in the short form if there is one.
                [b'\\', b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => self.advance(2),
                // Those below 0x20 without a short form.
                [b'\\', b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', ..]
                | [b'\\', b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', ..] => self.advance(6),
                _ => return None,
            }
        }
        let end = self.at;
        self.advance(1);
        Some((start, end))
    }
}

/// Returns the number of bytes before the first one that is escaped in a string or ends it.
pub(super) fn unescaped_prefix_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut length = 0_usize;
    for word in words {
        let mask = special_byte_mask(u64::from_le_bytes(*word));
        if mask != 0 {
            return length.saturating_add(mask.trailing_zeros() as usize / 8);
        }
        length = length.saturating_add(8);
    }
    let special = |byte: &&u8| **byte < 0x20 || **byte == b'"' || **byte == b'\\';
    length.saturating_add(rest.iter().take_while(|byte| !special(byte)).count())
}

/// Returns a mask with the high bit of the first of eight bytes that is escaped in a string or ends it. Bits
/// of the bytes after it have no meaning.
const fn special_byte_mask(word: u64) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    let quote = word ^ u64::from_le_bytes([b'"'; 8]);
    let backslash = word ^ u64::from_le_bytes([b'\\'; 8]);
    let control = word.wrapping_sub(u64::from_le_bytes([b' '; 8])) & !word;
    let zeros = (quote.wrapping_sub(EACH) & !quote) | (backslash.wrapping_sub(EACH) & !backslash);
    (control | zeros) & u64::from_le_bytes([0x80; 8])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::dialect::json::test_json;

    fn is_recognized(text: &str) -> bool {
        Reader::read(text).is_some()
    }

    #[test]
    fn client_messages_are_recognized() {
        for text in [
            r#"{}"#,
            r#"{"$serde_json::private::RawValue":"[ ]"}"#,
            "5",
            "[]",
            r#"{"candidate":"candidate:8 1 udp 16 203.0.113.7 46154 typ host","sdpMid":"0","sdpMLineIndex":0}"#,
            r#"{"id":"5f0e","data":{"offer":{"type":"offer","sdp":"v=0\r\no=- 46 2 IN IP4 127.0.0.1\r\n"}}}"#,
            r#"{"é":[1,-20,999999999999999,true,false,null,"\"\\\b\f\n\r\t/\u0001"],"e":[],"o":{"é":{}}}"#,
        ] {
            assert!(is_recognized(text), "{text}");
        }
    }

    #[test]
    fn text_that_stringify_would_change_is_not_recognized() {
        for text in [
            "",
            "{",
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
            "{\"a\":\"\n\"}",
            r#"{"a":"b"#,
            r#"{"a":"b\"#,
            r#"{"a":1,"b":2,"a":3}"#,
            r#"{"x":[{"a":1,"a":3}]}"#,
            r#"{"1":0}"#,
            r#"{"a":{"0":[]}}"#,
        ] {
            assert!(!is_recognized(text), "{text}");
        }
    }

    #[test]
    fn numbers_are_recognized_as_javascript_writes_them() {
        for text in [
            "0",
            "-7",
            "0.5",
            "-0.5",
            "-2.5",
            "10.01",
            "0.000001",
            "-0.000001",
            "12345678.1234567",
            "0.123456789012345",
            "0.00000123456789012345",
            "0.999999999999999",
        ] {
            assert!(is_recognized(text), "{text}");
            assert_eq!(text.parse::<f64>().unwrap().to_string(), text);
        }
        for text in [
            "-0",
            "-0.0",
            "0.0",
            "1.0",
            "1.50",
            "0.0000001",
            "123456789.1234567",
            "0.1234567890123456",
            "1000000000000000",
            "1000000000000000.5",
            ".5",
            "5.",
            "-.5",
            "00.5",
            "01.5",
            "1.5.5",
            "+1.5",
            "1.5e3",
            "1e-7",
            "1E3",
        ] {
            assert!(!is_recognized(text), "{text}");
        }
    }

    #[test]
    fn escapes_are_recognized_as_stringify_writes_them() {
        for code in 0..=0x7f_u32 {
            let character = char::from_u32(code).unwrap();
            let stringified = serde_json::Value::from(String::from(character)).to_string();
            assert!(is_recognized(&stringified), "{stringified}");
            for escaped in [format!("\"\\u{code:04x}\""), format!("\"\\u{code:04X}\"")] {
                assert_eq!(is_recognized(&escaped), escaped == stringified, "{escaped}");
            }
        }
        for (text, expected) in [
            (r#""\u001f""#, true),
            (r#""\u001F""#, false),
            (r#""\u0009""#, false),
            (r#""\u0041""#, false),
            (r#""\u0101""#, false),
            (r#""\u1001""#, false),
            (r#""\u000g""#, false),
            (r#""\u000""#, false),
            (r#""\U0001""#, false),
        ] {
            assert_eq!(is_recognized(text), expected, "{text}");
        }
    }

    #[test]
    fn names_count_while_their_object_is_open() {
        let one = |count: usize| {
            let names: Vec<_> = (0..count).map(|name| format!("\"n{name}\":0")).collect();
            format!("{{{}}}", names.join(","))
        };
        let two = |count| format!(r#"{{"a":{0},"b":{0}}}"#, one(count));
        assert!(is_recognized(&one(MAX_NAMES)));
        assert!(!is_recognized(&one(MAX_NAMES + 1)));
        assert!(is_recognized(&two(MAX_NAMES - 2)));
        assert!(!is_recognized(&two(MAX_NAMES)));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(is_recognized(&nested(MAX_DEPTH)));
        assert!(!is_recognized(&nested(MAX_DEPTH + 1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn stringified_objects_are_recognized(text in test_json::canonical_object()) {
            prop_assert!(is_recognized(&text), "{text}");
        }

        /// `f64` is displayed with the digits of JavaScript, and never with an exponent.
        #[test]
        fn recognized_numbers_are_written_without_change(text in "-?(0|00|[1-9][0-9]{0,16})(\\.0{0,7}[0-9]{0,17})?") {
            let number: f64 = text.parse().unwrap();
            let has_exponent = number != 0.0 && number.abs() < 1e-6;
            let is_unchanged = number.to_string() == text && !has_exponent && (number != 0.0 || text == "0");
            let digits = text.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count();
            prop_assert_eq!(is_recognized(&text), is_unchanged && digits <= MAX_DIGITS, "{}", text);
        }

        #[test]
        fn unescaped_bytes_are_counted(bytes in prop::collection::vec(prop_oneof![20 => b' '..=b'!', 1 => any::<u8>()], 0..80)) {
            let special = bytes.iter().position(|byte| *byte < 0x20 || b"\"\\".contains(byte));
            prop_assert_eq!(unescaped_prefix_len(&bytes), special.unwrap_or(bytes.len()));
        }
    }
}
