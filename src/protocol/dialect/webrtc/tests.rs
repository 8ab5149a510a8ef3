//! Translation between all encodings, and payloads of no encoding.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::protocol::dialect::json::test_json;

const LINK: LinkId = LinkId(0x7b);
const ENCODINGS: [SdpEncoding; 4] =
    [SdpEncoding::Json, SdpEncoding::Builder, SdpEncoding::BuilderWithEnd, SdpEncoding::Services];

fn signals() -> Vec<WebRtcSignal> {
    let candidate =
        Candidate { candidate: "candidate:1 1 udp 2 h 3 typ host".into(), mid: "0".into(), line: 0 };
    vec![
        WebRtcSignal::Offer("v=0\r\no=-".into()),
        WebRtcSignal::Answer("v=0\r\na=x".into()),
        WebRtcSignal::Candidate(candidate),
    ]
}

fn write(signal: &WebRtcSignal, encoding: SdpEncoding) -> LinkMessage {
    let payload = match encoding {
        SdpEncoding::Json => json::write(signal).unwrap(),
        SdpEncoding::Builder | SdpEncoding::BuilderWithEnd => builder::write(signal.clone()),
        SdpEncoding::Services => services::write(signal.clone(), LINK),
    };
    LinkMessage::Data { payload, last: false }
}

#[test]
fn every_signal_converts_between_all_encodings() {
    for signal in signals() {
        for from in ENCODINGS {
            for to in ENCODINGS {
                let translated = translate(write(&signal, from), from, to, LINK);
                assert_eq!(
                    translated,
                    Transcoded::Converted(write(&signal, to)),
                    "{signal:?} {from:?} {to:?}"
                );
            }
        }
    }
}

/// Recorded frames of the clients: the data of a last candidate (netflux 1.1.0-beta.8), a candidate and the
/// end of 4.3.1.
#[test]
fn recorded_payloads_are_decoded() {
    let bytes = |text: &str| Payload::Bytes(HEXLOWER.decode(text.as_bytes()).unwrap().into());
    assert_eq!(builder::read(&bytes("22020a00")), Some(WebRtcSignal::End));
    let end = bytes("080010e9e8cc820118873a2200");
    let end = LinkMessage::Data { payload: end, last: false };
    assert_eq!(
        translate(end.clone(), SdpEncoding::Services, SdpEncoding::BuilderWithEnd, LINK),
        Transcoded::Converted(LinkMessage::End)
    );
    let last = LinkMessage::Data { payload: builder::write(WebRtcSignal::End), last: true };
    assert_eq!(
        translate(end, SdpEncoding::Services, SdpEncoding::Builder, LINK),
        Transcoded::Converted(last)
    );
}

#[test]
fn end_of_candidates_is_sent_where_it_exists() {
    let end = translate(LinkMessage::End, SdpEncoding::BuilderWithEnd, SdpEncoding::Services, LINK);
    assert_eq!(end, Transcoded::Converted(write(&WebRtcSignal::End, SdpEncoding::Services)));
    assert_eq!(
        translate(LinkMessage::End, SdpEncoding::BuilderWithEnd, SdpEncoding::Json, LINK),
        Transcoded::Dropped
    );
    let end = LinkMessage::Data { payload: builder::write(WebRtcSignal::End), last: true };
    assert_eq!(
        translate(end, SdpEncoding::Builder, SdpEncoding::BuilderWithEnd, LINK),
        Transcoded::Converted(LinkMessage::End)
    );
}

/// Messages that a joiner of netflux 4.3.1 sends before the offer, and the answers on which it continues
/// (measured).
#[test]
fn negotiation_is_answered_on_behalf_of_member() {
    let finder = |content: &[u8]| {
        let mut bytes = vec![0x08, 0x0b, 0x10, 0x00, 0x18, 74, 0x22, content.len() as u8];
        bytes.extend_from_slice(content);
        LinkMessage::Data { payload: Payload::Bytes(bytes.into()), last: false }
    };
    let answered =
        |content: &[u8]| match translate(finder(content), SdpEncoding::Services, SdpEncoding::Json, LINK) {
            Transcoded::ReplyToSender(Payload::Bytes(bytes)) => bytes,
            other => panic!("{other:?}"),
        };
    // Asked to connect: yes.
    assert_eq!(answered(&[0x12, 0x00])[..], [0x10, 0x7b, 0x18, 74, 0x22, 0x02, 0x18, 0x01]);
    // It received candidates: this side has tried a data channel.
    let negotiation = [0x0a, 0x08, 0x0a, 0x06, 0x18, 0x05, 0x20, 0x01, 0x30, 0x01];
    let answer = answered(&negotiation);
    let initiator = [0x0a, 0x08, 0x08, 0x7b, 0x18, 0x05, 0x20, 0x01, 0x30, 0x01];
    let passive = [0x12, 0x04, 0x30, 0x01, 0x38, 0x01];
    assert_eq!(answer[..8], [0x10, 0x7b, 0x18, 74, 0x22, 0x12, 0x0a, 0x10]);
    assert_eq!(answer[8..], [&initiator[..], &passive[..]].concat());
    assert_eq!(
        translate(finder(&[0x18, 0x01]), SdpEncoding::Services, SdpEncoding::Json, LINK),
        Transcoded::Dropped,
        "and nothing is said to its own answers"
    );
}

#[test]
fn unknown_payloads_pass_unchanged() {
    for from in ENCODINGS {
        for to in ENCODINGS {
            for bytes in [&b"offer-J"[..], b"", b"\x12\x03abc", br#"{"offer":"x"}"#, b"\x18\x05"] {
                let payload = match from {
                    SdpEncoding::Json => Payload::Bytes(Bytes::from_static(bytes)).into_json(),
                    _ => Default::default(),
                };
                let payload = match from {
                    SdpEncoding::Json => Payload::Json(payload),
                    _ => Payload::Bytes(Bytes::from_static(bytes)),
                };
                let message = LinkMessage::Data { payload, last: false };
                let passed = translate(message.clone(), from, to, LINK);
                assert_eq!(passed, Transcoded::Passthrough(message), "{bytes:?} {from:?} {to:?}");
            }
        }
    }
}

/// netflux 1.1.0-beta.7 marks every candidate but the last one as the last (measured).
#[test]
fn empty_candidate_is_the_last() {
    let [_, _, candidate] = &signals()[..] else { unreachable!() };
    assert!(!is_last(&builder::write(candidate.clone()), true));
    assert!(is_last(&builder::write(WebRtcSignal::End), false));
    let other = Payload::Bytes(Bytes::from_static(b"bye"));
    assert!(is_last(&other, true) && !is_last(&other, false));
}

/// Pieces of texts and of messages, such as groups without a name, and tags that are longer than need be.
fn pieces() -> impl Strategy<Value = Bytes> {
    let pieces = [
        "{",
        "{",
        "|",
        "|",
        "\"",
        "\"",
        "\x18",
        "\x22\x04",
        "\x22\x00",
        "\x18\u{7}",
        "J",
        " ",
        "  ",
        "}",
        "v=0",
        "é",
    ];
    let pieces = pieces.map(str::as_bytes).into_iter();
    let pieces: Vec<_> =
        pieces.chain([&b"\x98\x80\x00"[..], b"\xa2\x00", b"\x18\x87\x3a", b"\xff"]).collect();
    prop::collection::vec(prop::sample::select(pieces), 0..12).prop_map(|pieces| pieces.concat().into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// The fast check skips only messages without WebRTC content.
    #[test]
    fn text_payloads_are_no_protobuf_messages(bytes in prop_oneof![pieces(), test_json::any_json_text().prop_map(Bytes::from)]) {
        if is_text_without(&bytes, 0) {
            prop_assert!(services::decode(&bytes, LINK).is_none());
        }
        if builder::cannot_be_message(&bytes) {
            prop_assert_eq!(builder::decode_message(&bytes), None);
        }
    }

    #[test]
    fn text_payloads_are_detected_by_their_bytes(bytes in prop::collection::vec(prop_oneof![40 => Just(b'a'), 1 => any::<u8>()], 0..60)) {
        let text = bytes.iter().all(|byte| *byte >= 0x20 && *byte != b'|');
        prop_assert_eq!(is_text_without(&bytes, b'|'), text);
    }
}

/// Contents of JSON are not tried as messages, in any generation.
#[test]
fn json_of_clients_is_not_decoded() {
    let content = br#"{"note":"777","list":[1,"x"]}"#;
    assert!(is_text_without(content, 0) && builder::cannot_be_message(content));
}
