//! The cases of the fuzzing client of Autobahn|Testsuite for a server without compression: sections 1 to 5, 7
//! and 10 here, section 6 in `utf8.rs`. Each case is sent to an echo server in four ways of splitting it into
//! reads.
//!
//! The expected bytes are derived from RFC 6455, RFC 3629 and the published descriptions of the cases, and
//! are neither encoded nor decoded by the codec under test or by the library. Left out are section 9 (load:
//! the same frames, larger and more of them) and sections 12 and 13 (compression is never negotiated).

mod utf8;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use super::library_check::{Wire, next_whole};
use super::*;

/// Longest message in these tests, in bytes: above that of case 7.1.6.
const MAX: usize = 1 << 20;

/// First bytes of frames: with FIN, or to be continued.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const TEXT_BEGIN: u8 = 0x01;
const BETWEEN: u8 = 0x00;
const END: u8 = 0x80;

/// Point at which a case is known to be invalid: the last octet of a frame's header, or of the frame.
#[derive(Clone, Copy, Debug)]
enum FailPoint {
    Header(usize),
    Frame(usize),
}

/// Expected event of a case, and the expected response.
#[derive(Clone, Debug)]
enum Expected {
    /// A message, which is sent back in one frame.
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// A ping, whose payload is sent back in a pong.
    Ping(Vec<u8>),
    /// A pong, without a response.
    Pong,
    /// A close frame, whose payload is sent back.
    Closed(Vec<u8>),
    /// A close frame with an invalid code, answered with 1002. It is reported as the peer's close with that
    /// code.
    InvalidCode,
    /// A violation: this code is sent, exactly when the violation is received.
    Fail(u16, FailPoint),
}

use Expected::{Closed, Fail, InvalidCode};
use FailPoint::{Frame as AtFrame, Header as AtHeader};

#[derive(Debug)]
struct Case {
    number: String,
    frames: Vec<Vec<u8>>,
    expected: Vec<Expected>,
}

fn case(number: impl Into<String>, frames: Vec<Vec<u8>>, expected: Vec<Expected>) -> Case {
    Case { number: number.into(), frames, expected }
}

fn text(payload: impl AsRef<[u8]>) -> Expected {
    Expected::Text(payload.as_ref().to_vec())
}

fn ping(payload: impl AsRef<[u8]>) -> Expected {
    Expected::Ping(payload.as_ref().to_vec())
}

/// Returns a frame by RFC 6455 §5.2.
fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(masked | length as u8),
        length @ 126..=0xffff => frame.extend([masked | 126, (length >> 8) as u8, length as u8]),
        length => {
            frame.push(masked | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

/// Returns a masked frame.
fn sent(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(first, Some([0x37, 0xfa, 0x21, 0x3d]), payload.as_ref())
}

/// Returns a text as frames with these payloads.
fn fragments<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let parts: Vec<_> = parts.into_iter().collect();
    let last = parts.len() - 1;
    let first = |at| if at == 0 { TEXT_BEGIN } else { BETWEEN } | if at == last { END } else { 0 };
    parts.iter().enumerate().map(|(at, part)| sent(first(at), part)).collect()
}

fn closing(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_ref()].concat()
}

fn hex(digits: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
}

fn short(what: &impl std::fmt::Debug) -> String {
    format!("{:.120}", format!("{what:?}"))
}

/// Runs `count` cases.
fn play(count: usize, cases: Vec<Case>) {
    assert_eq!(cases.len(), count, "cases are missing");
    let mut failures = Vec::new();
    for mut case in cases {
        if !matches!(case.expected.last(), Some(Closed(_) | InvalidCode | Fail(..))) {
            // The connection must still be usable.
            case.frames.push(sent(CLOSE, closing(1000, "")));
            case.expected.push(Closed(closing(1000, "")));
        }
        // Frames after the end are ignored.
        let late = [sent(TEXT, "late"), sent(PING, "late"), sent(CLOSE, closing(1000, ""))];
        let frames = [&case.frames[..], &late].concat();
        let whole = frames.concat();
        let cut = |length: usize| whole.chunks(length).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let cuts =
            [("whole", cut(usize::MAX)), ("frames", frames), ("997 octets", cut(997)), ("octets", cut(1))];
        for (name, pieces) in cuts {
            let result = catch_unwind(AssertUnwindSafe(|| play_pieces(&case, pieces.into())));
            if let Err(failure) = result.unwrap_or_else(|_| Err(anyhow::anyhow!("a panic"))) {
                failures.push(format!("case {} in pieces of {name}: {failure}", case.number));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn play_pieces(case: &Case, pieces: VecDeque<Vec<u8>>) -> anyhow::Result<()> {
    let total: usize = pieces.iter().map(Vec::len).sum();
    let singly = pieces.len() == total;
    let mut context = Context::from_waker(Waker::noop());
    let mut socket = Socket::new(Wire { pieces, ..Wire::default() }, Bytes::new(), MAX);
    for expected in &case.expected {
        let Poll::Ready(incoming) = next_whole(&mut socket, &mut context) else {
            anyhow::bail!("no event instead of {}", short(expected));
        };
        let received = total - socket.stream.pieces.len();
        let answer = match (expected, incoming) {
            (Expected::Text(payload), Incoming::Message(Message::Text(text)))
                if text.as_bytes() == &payload[..] =>
            {
                socket.queue(Message::Text(text).into()).unwrap();
                Ok(frame(TEXT, None, payload))
            }
            (Expected::Binary(payload), Incoming::Message(Message::Binary(bytes))) if bytes == payload => {
                socket.queue(Message::Binary(bytes).into()).unwrap();
                Ok(frame(BINARY, None, payload))
            }
            (Expected::Ping(payload), Incoming::Ping) => Ok(frame(PONG, None, payload)),
            (Expected::Pong, Incoming::Pong) => Ok(Vec::new()),
            (Closed(payload), Incoming::Closed(code))
                if code == payload.first_chunk().map(|&code| u16::from_be_bytes(code)) =>
            {
                Ok(frame(CLOSE, None, payload))
            }
            (InvalidCode, Incoming::Closed(Some(1002))) => Err(1002),
            (&Fail(code, point), Incoming::ProtocolError(close)) if close.code == Some(code) => {
                let known = fail_point_octets(&case.frames, point);
                if singly && received != known {
                    anyhow::bail!("{code} after {received} octets instead of {known}");
                }
                assert!(socket.queue(close.into()).unwrap());
                Err(code)
            }
            (_, incoming) => anyhow::bail!("{} instead of {}", short(&incoming), short(expected)),
        };
        assert!(socket.poll_flush(&mut context).is_ready());
        let written = std::mem::take(&mut socket.stream.written);
        let right = match &answer {
            Ok(answer) => written == *answer,
            Err(code) => is_close(&written, *code),
        };
        if !right {
            anyhow::bail!("{:.120} was written for {:.120}", format!("{written:?}"), format!("{expected:?}"));
        }
    }
    for _ in 0..2 {
        let after = next_whole(&mut socket, &mut context);
        if after != Poll::Ready(Incoming::Disconnected) {
            anyhow::bail!("{} after the end", short(&after));
        }
    }
    if socket.queue(Message::text("late").into()).is_ok() {
        anyhow::bail!("a message was queued after the end");
    }
    assert!(socket.poll_flush(&mut context).is_ready());
    match (&socket.stream.written[..], &socket.unread, &socket.unsent) {
        ([], None, None) => Ok(()),
        (written, ..) => anyhow::bail!("{} was written after the end, or a buffer is held", short(&written)),
    }
}

/// Returns the number of octets up to the point at which a case is known to be invalid.
fn fail_point_octets(frames: &[Vec<u8>], point: FailPoint) -> usize {
    let until = |at: usize| frames[..at].iter().map(Vec::len).sum::<usize>();
    match point {
        AtFrame(at) => until(at + 1),
        AtHeader(at) => {
            let extended = match frames[at][1] & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            until(at) + 2 + extended + 4
        }
    }
}

/// Returns true if `written` is one close frame with `code` and any reason.
fn is_close(written: &[u8], code: u16) -> bool {
    let [CLOSE, length @ 2..=125, high, low, reason @ ..] = written else { return false };
    usize::from(*length) == reason.len() + 2
        && u16::from_be_bytes([*high, *low]) == code
        && std::str::from_utf8(reason).is_ok()
}

#[test]
fn section_1_framing() {
    let mut cases = Vec::new();
    // Case 8 of either kind is case 7 in pieces of 997 octets, as all cases are sent.
    for (at, length) in [0, 125, 126, 127, 128, 65535, 65536, 65536].into_iter().enumerate() {
        let payload = vec![b'*'; length];
        cases.push(case(format!("1.1.{}", at + 1), vec![sent(TEXT, &payload)], vec![text(payload)]));
        let payload = vec![0xfe; length];
        cases.push(case(
            format!("1.2.{}", at + 1),
            vec![sent(BINARY, &payload)],
            vec![Expected::Binary(payload)],
        ));
    }
    play(16, cases);
}

#[test]
fn section_2_pings_and_pongs() {
    let ten: Vec<_> = (0..10).map(|at| format!("payload-{at}")).collect();
    let ten = |number| {
        case(number, ten.iter().map(|each| sent(PING, each)).collect(), ten.iter().map(ping).collect())
    };
    let good = |number, payload: &[u8]| case(number, vec![sent(PING, payload)], vec![ping(payload)]);
    let cases = vec![
        good("2.1", b""),
        good("2.2", b"Hello, world!"),
        good("2.3", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
        good("2.4", &[0xfe; 125]),
        case("2.5", vec![sent(PING, [0xfe; 126])], vec![Fail(1002, AtHeader(0))]),
        good("2.6", &[0xfe; 125]),
        case("2.7", vec![sent(PONG, "")], vec![Expected::Pong]),
        case("2.8", vec![sent(PONG, "unsolicited")], vec![Expected::Pong]),
        case("2.9", vec![sent(PONG, "unsolicited"), sent(PING, "ping")], vec![Expected::Pong, ping("ping")]),
        ten("2.10"),
        ten("2.11"),
    ];
    play(11, cases);
}

/// Cases are numbered by the value of the bits. Each value is sent in every place: alone, between a valid
/// message and a ping, and inside a message.
#[test]
fn section_3_reserved_bits() {
    let numbers = ["3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7"];
    let mut cases = Vec::new();
    for (at, number) in numbers.into_iter().enumerate() {
        let reserved = (at as u8 + 1) << 4;
        let broken = [
            sent(TEXT | reserved, "Hello"),
            sent(TEXT_BEGIN | reserved, "Hello"),
            sent(BINARY | reserved, [0, 255, 254]),
            sent(BINARY | reserved, vec![254; 65536]),
            sent(PING | reserved, "Hello"),
            sent(PONG | reserved, ""),
            sent(CLOSE | reserved, ""),
            sent(CLOSE | reserved, closing(1000, "")),
        ];
        for broken in broken {
            cases.push(case(number, vec![broken.clone()], vec![Fail(1002, AtHeader(0))]));
            cases.push(case(
                number,
                vec![sent(TEXT, "Hello"), broken, sent(PING, "")],
                vec![text("Hello"), Fail(1002, AtHeader(1))],
            ));
        }
        // Inside a message.
        let frames = vec![sent(TEXT_BEGIN, "Hel"), sent(END | reserved, "lo")];
        cases.push(case(number, frames, vec![Fail(1002, AtHeader(1))]));
    }
    play(7 * 17, cases);
}

/// Cases are numbered by opcode. Each opcode is sent in the ways of all cases.
#[test]
fn section_4_reserved_opcodes() {
    let mut cases = Vec::new();
    for (kind, opcodes) in [(1, 3..=7), (2, 11..=15)] {
        for (at, opcode) in opcodes.enumerate() {
            let number = format!("4.{kind}.{}", at + 1);
            for payload in ["", "reserved opcode payload"] {
                let broken = sent(0x80 | opcode, payload);
                cases.push(case(&number, vec![broken.clone()], vec![Fail(1002, AtHeader(0))]));
                cases.push(case(
                    &number,
                    vec![sent(TEXT, "Hello"), broken, sent(PING, "")],
                    vec![text("Hello"), Fail(1002, AtHeader(1))],
                ));
            }
        }
    }
    play(40, cases);
}

/// The suite has separate numbers for each way of splitting, hence "5.3-5.5".
#[test]
fn section_5_fragmentation() {
    let (one, two) = ("fragment1", "fragment2");
    let both = || text("fragment1fragment2");
    let begin = || sent(TEXT_BEGIN, one);
    let end = || sent(END, two);
    let astray = "non-continuation payload";
    let bad = |at| Fail(1002, AtHeader(at));
    let twice = |frames: [Vec<u8>; 3]| [&frames[..], &frames].concat();
    let many = || {
        let part = |at: usize| format!("fragment{at}");
        let frames = vec![
            sent(TEXT_BEGIN, part(1)),
            sent(BETWEEN, part(2)),
            sent(PING, "pongme 1!"),
            sent(BETWEEN, part(3)),
            sent(BETWEEN, part(4)),
            sent(PING, "pongme 2!"),
            sent(END, part(5)),
        ];
        (frames, vec![ping("pongme 1!"), ping("pongme 2!"), text((1..=5).map(part).collect::<String>())])
    };
    let cases = vec![
        case("5.1", vec![sent(PING & 0x7f, one), end()], vec![bad(0)]),
        case("5.2", vec![sent(PONG & 0x7f, one), end()], vec![bad(0)]),
        case("5.3-5.5", vec![begin(), end()], vec![both()]),
        case("5.6-5.8", vec![begin(), sent(PING, "ping"), end()], vec![ping("ping"), both()]),
        case("5.9-5.11", vec![sent(END, astray), sent(TEXT, "Hello")], vec![bad(0)]),
        case("5.12-5.14", vec![sent(BETWEEN, astray), sent(TEXT, "Hello")], vec![bad(0)]),
        case("5.15", vec![begin(), end(), sent(BETWEEN, astray), sent(TEXT, "Hello")], vec![both(), bad(2)]),
        case("5.16", twice([sent(BETWEEN, astray), begin(), end()]), vec![bad(0)]),
        case("5.17", twice([sent(END, astray), begin(), end()]), vec![bad(0)]),
        case("5.18", vec![begin(), sent(TEXT, two)], vec![bad(1)]),
        case("5.19", many().0, many().1),
        case("5.20", many().0, many().1),
    ];
    play(12, cases);
}

#[test]
fn section_7_closing() {
    let normal = || closing(1000, "");
    let close = || sent(CLOSE, normal());
    let good =
        |number: String, payload: Vec<u8>| case(number, vec![sent(CLOSE, &payload)], vec![Closed(payload)]);
    let long = "BAsd7&jh23".repeat(26 * 1024);
    let broken = hex("cebae1bdb9cf83cebcceb5eda080656469746564");
    let mut cases = vec![
        case("7.1.1", vec![sent(TEXT, "Hello"), close()], vec![text("Hello"), Closed(normal())]),
        case("7.1.2", vec![close(), close()], vec![Closed(normal())]),
        case("7.1.3", vec![close(), sent(PING, "")], vec![Closed(normal())]),
        case("7.1.4", vec![close(), sent(TEXT, "Hello")], vec![Closed(normal())]),
        case(
            "7.1.5",
            vec![sent(TEXT_BEGIN, "fragment1"), close(), sent(END, "fragment2")],
            vec![Closed(normal())],
        ),
        case("7.1.6", vec![sent(TEXT, &long), close(), sent(PING, "")], vec![text(&long), Closed(normal())]),
        good("7.3.1".to_owned(), Vec::new()),
        case("7.3.2", vec![sent(CLOSE, "a")], vec![Fail(1002, AtFrame(0))]),
        good("7.3.3".to_owned(), normal()),
        good("7.3.4".to_owned(), closing(1000, "Hello World!")),
        good("7.3.5".to_owned(), closing(1000, [b'*'; 123])),
        case("7.3.6", vec![sent(CLOSE, closing(1000, [b'*'; 124]))], vec![Fail(1002, AtHeader(0))]),
        case("7.5.1", vec![sent(CLOSE, closing(1000, broken))], vec![Fail(1007, AtFrame(0))]),
    ];
    let valid = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    for (at, code) in valid.into_iter().enumerate() {
        cases.push(good(format!("7.7.{} ({code})", at + 1), closing(code, "")));
        cases.push(good(format!("7.7.{} ({code}, with a reason)", at + 1), closing(code, "é")));
    }
    // Invalid in older versions of the suite; registered at IANA since (RFC 6455 §7.4.2), and allowed by the
    // library.
    for code in [1012, 1013] {
        cases.push(good(format!("7.9 ({code})"), closing(code, "")));
    }
    let invalid = |number: String, code| {
        let with = |reason| vec![sent(CLOSE, closing(code, reason))];
        [
            case(&number, with(""), vec![InvalidCode]),
            case(format!("{number}, with a reason"), with("é"), vec![InvalidCode]),
        ]
    };
    let invalid_codes = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    for (at, code) in invalid_codes.into_iter().enumerate() {
        cases.extend(invalid(format!("7.9.{} ({code})", at + 1), code));
    }
    // 1014, "bad gateway", is registered by now, but rejected by the library; a client has no use for it.
    for code in [1014, 1015] {
        cases.extend(invalid(format!("7.9 ({code})"), code));
    }
    // RFC 6455 leaves codes above 4999 undefined, and the suite expects nothing: they are treated as invalid.
    for (at, code) in [5000, 65535].into_iter().enumerate() {
        cases.extend(invalid(format!("7.13.{} ({code})", at + 1), code));
    }
    play(13 + 2 * 13 + 2 + 2 * 9 + 2 * 2 + 2 * 2, cases);
}

#[test]
fn section_10_automatic_fragmentation() {
    let long = vec![b'*'; 65536];
    play(1, vec![case("10.1.1", fragments(long.chunks(1300)), vec![text(&long)])]);
}
