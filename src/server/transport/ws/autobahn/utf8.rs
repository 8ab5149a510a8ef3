//! Section 6 of the cases of Autobahn|Testsuite: valid and invalid UTF-8, whole and in fragments.

use super::*;

#[test]
fn section_6_utf_8_in_fragments() {
    let hello = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
    let kosme = hex("cebae1bdb9cf83cebcceb5");
    let edited = b"edited";
    let surrogate = [&kosme[..], &hex("eda080"), edited].concat();
    let beyond = [&kosme[..], &hex("f4908080"), edited].concat();
    let empty: [&[u8]; 3] = [b"", b"", b""];
    // End of the second frame of 6.4.1, and the octet that is the second frame of 6.4.2: either makes the
    // text invalid.
    let (after, inside) = (kosme.len() + 4, kosme.len() + 1);
    let cases = vec![
        case("6.1.1", vec![sent(TEXT, "")], vec![text("")]),
        case("6.1.2", fragments(empty), vec![text("")]),
        case(
            "6.1.3",
            fragments([&b""[..], b"middle frame payload", b""]),
            vec![text("middle frame payload")],
        ),
        case("6.2.1", vec![sent(TEXT, hello)], vec![text(hello)]),
        // The split is behind "Hello-µ@ßöä".
        case("6.2.2", fragments([&hello[..15], &hello[15..]]), vec![text(hello)]),
        case("6.2.3", fragments(hello.chunks(1)), vec![text(hello)]),
        case("6.2.4", fragments(kosme.chunks(1)), vec![text(&kosme)]),
        case("6.3.1", vec![sent(TEXT, &surrogate)], vec![Fail(1007, AtFrame(0))]),
        // 0xed 0xa0, the twelfth and thirteenth octets, begin no character.
        case("6.3.2", fragments(surrogate.chunks(1)), vec![Fail(1007, AtFrame(12))]),
        case(
            "6.4.1",
            fragments([&kosme[..], &beyond[kosme.len()..after], edited]),
            vec![Fail(1007, AtFrame(1))],
        ),
        case(
            "6.4.2",
            fragments([&beyond[..inside], &beyond[inside..=inside], &beyond[inside + 1..]]),
            vec![Fail(1007, AtFrame(1))],
        ),
        // A frame is validated when all of it is received, which Autobahn accepts as "non-strict": RFC 6455
        // §8.1 requires only that the connection fails, and validating each part would cost valid texts a
        // second pass.
        case("6.4.3", vec![sent(TEXT, &beyond)], vec![Fail(1007, AtFrame(0))]),
        case("6.4.4", vec![sent(TEXT, &beyond)], vec![Fail(1007, AtFrame(0))]),
    ];
    play(13, cases);
}

/// Returns the octet at which a text is known to be invalid by the grammar of RFC 3629 §4: the last one if a
/// character is incomplete.
fn invalid_at(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        let (second, length) = match text[at] {
            0x00..=0x7f => (0..=0, 1),
            0xc2..=0xdf => (0x80..=0xbf, 2),
            0xe0 => (0xa0..=0xbf, 3),
            0xed => (0x80..=0x9f, 3),
            0xe1..=0xef => (0x80..=0xbf, 3),
            0xf0 => (0x90..=0xbf, 4),
            0xf4 => (0x80..=0x8f, 4),
            0xf1..=0xf3 => (0x80..=0xbf, 4),
            _ => return Some(at),
        };
        for next in 1..length {
            let tail = if next == 1 { second.clone() } else { 0x80..=0xbf };
            match text.get(at + next) {
                None => return Some(text.len() - 1),
                Some(byte) if tail.contains(byte) => {}
                Some(_) => return Some(at + next),
            }
        }
        at += length;
    }
    None
}

/// Each sequence is sent in one frame, as in the suite, and in a frame for each octet.
#[test]
fn section_6_utf_8_sequences() {
    let missing = "c0 e080 f08080 f8808080 fc80808080 df efbf f7bfbf fbbfbfbf fdbfbfbfbf";
    let range = |bytes: std::ops::RangeInclusive<u8>, after: &str| {
        bytes.map(|byte| format!("{byte:02x}{after}")).collect::<String>()
    };
    let continuations =
        format!("80 bf 80bf 80bf80 80bf80bf 80bf80bf80 80bf80bf80bf {}", range(0x80..=0xbf, ""));
    let starts = [0xc0..=0xdf, 0xe0..=0xef, 0xf0..=0xf7, 0xf8..=0xfb, 0xfc..=0xfd];
    let starts = starts.map(|bytes| range(bytes, "20")).join(" ");
    let none = (0..=16).flat_map(|plane| [plane << 16 | 0xfffe, plane << 16 | 0xffff]);
    let none = none
        .map(|none| char::from_u32(none).unwrap().to_string())
        .map(|none| none.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
    let none = none.collect::<Vec<_>>().join(" ");
    // Group, `+` if its sequences are valid, sequences. Group 6 has the prefixes of one text.
    let fixed = "5 + 68656c6c6f24776f726c64 68656c6c6fc2a2776f726c64 68656c6c6fe282ac776f726c64 \
            68656c6c6ff0a4ada2776f726c64 cebae1bdb9cf83cebcceb5
        6 + ceba cebae1bdb9 cebae1bdb9cf83 cebae1bdb9cf83cebc cebae1bdb9cf83cebcceb5
        6 - ce cebae1 cebae1bd cebae1bdb9cf cebae1bdb9cf83ce cebae1bdb9cf83cebcce
        7 + 00 c280 e0a080 f0908080
        8 - f888808080 fc8480808080
        9 + 7f dfbf efbfbf f48fbfbf
        10 - f7bfbfbf fbbfbfbfbf fdbfbfbfbfbf
        11 + ed9fbf ee8080 efbfbd f48fbfbf
        11 - f4908080
        16 - fe ff fefeffff
        17 - c0af e080af f08080af f8808080af fc80808080af
        18 - c1bf e09fbf f08fbfbf f887bfbfbf fc83bfbfbfbf
        19 - c080 e08080 f0808080 f880808080 fc8080808080
        20 - eda080 edadbf edae80 edafbf edb080 edbe80 edbfbf
        21 - eda080edb080 eda080edbfbf edadbfedb080 edadbfedbfbf edae80edb080 edae80edbfbf edafbfedb080 edafbfedbfbf
        23 + efbfb9 efbfba efbfbb efbfbc efbfbd efbfbe efbfbf";
    let made = format!(
        "12 - {continuations}\n13 - {starts}\n14 - {missing}\n15 - {}\n22 + {none}",
        missing.replace(' ', "")
    );
    let mut cases = Vec::new();
    for group in fixed.lines().chain(made.lines()) {
        let mut words = group.split_whitespace();
        let (group, valid) = (words.next().unwrap(), words.next() == Some("+"));
        for (at, sequence) in words.enumerate() {
            let payload = hex(sequence);
            let number = match (group, valid) {
                // Prefixes are numbered by their length.
                ("6", _) => format!("6.6.{}", payload.len()),
                ("11", false) => "6.11.5".to_owned(),
                _ => format!("6.{group}.{}", at + 1),
            };
            let invalid = invalid_at(&payload);
            assert_eq!(invalid.is_none(), valid, "case {number}");
            let expected = |point: FailPoint| vec![if valid { text(&payload) } else { Fail(1007, point) }];
            cases.push(case(&number, vec![sent(TEXT, &payload)], expected(AtFrame(0))));
            let singly = fragments(payload.chunks(1));
            cases.push(case(
                format!("{number}, fragmented"),
                singly,
                expected(AtFrame(invalid.unwrap_or(0))),
            ));
        }
    }
    play(2 * 132, cases);
}
