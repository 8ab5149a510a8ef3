//! `webRTCBuilder` of netflux 1.1 to 3.0.

use bytes::Bytes;
use prost::Message as _;

use super::{Candidate, WebRtcSignal, is_sdp, is_text_without};
use crate::protocol::model::Payload;

#[allow(missing_docs, unreachable_pub)]
mod netflux1 {
    include!(concat!(env!("OUT_DIR"), "/netflux1.rs"));
}
use netflux1::message::Type;
use netflux1::{IceCandidate, Message};

/// Decodes a payload, if it is such a message.
pub(super) fn read(payload: &Payload) -> Option<WebRtcSignal> {
    let Payload::Bytes(bytes) = payload else { return None };
    if cannot_be_message(bytes) { None } else { decode_message(bytes) }
}

/// Returns true if the bytes are certain not to be such a message. A candidate is field 4, whose tag is a
/// quote. A JSON text may have quotes; read as a message, its brace begins a group of field 15, which must
/// end with `|`.
pub(super) fn cannot_be_message(bytes: &[u8]) -> bool {
    is_text_without(bytes, if bytes.first() == Some(&b'{') { b'|' } else { b'"' })
}

/// Decodes any bytes, without the check for text.
pub(super) fn decode_message(bytes: &Bytes) -> Option<WebRtcSignal> {
    match Message::decode(bytes.clone()).ok()?.r#type? {
        Type::Offer(sdp) => is_sdp(&sdp).then_some(WebRtcSignal::Offer(sdp)),
        Type::Answer(sdp) => is_sdp(&sdp).then_some(WebRtcSignal::Answer(sdp)),
        Type::Candidate(IceCandidate { candidate, .. }) if candidate.is_empty() => Some(WebRtcSignal::End),
        Type::Candidate(IceCandidate { candidate, sdp_mid, sdp_m_line_index }) => {
            Some(WebRtcSignal::Candidate(Candidate { candidate, mid: sdp_mid, line: sdp_m_line_index }))
        }
    }
}

/// Returns true for the end of candidates, false for another candidate, and `None` for any other payload. It
/// is called for every message of sigver 15: nothing is copied.
pub(super) fn is_end(payload: &Payload) -> Option<bool> {
    let Payload::Bytes(bytes) = payload else { return None };
    if !is_one_candidate(bytes) {
        // Repeated fields replace or extend others.
        return match read(payload)? {
            WebRtcSignal::End => Some(true),
            WebRtcSignal::Candidate(_) => Some(false),
            WebRtcSignal::Offer(_) | WebRtcSignal::Answer(_) => None,
        };
    }
    match MessageView::decode(bytes.clone()).ok()?.kind? {
        KindView::Candidate(CandidateView { candidate, mid, .. }) => {
            let texts = [&candidate, &mid].into_iter().all(|text| std::str::from_utf8(text).is_ok());
            texts.then_some(candidate.is_empty())
        }
        KindView::Offer(_) | KindView::Answer(_) => None,
    }
}

/// Returns true if the message is one candidate, with the initiator in front of it if at all, and has each
/// field of it at most once, in order, as clients write it.
fn is_one_candidate(message: &[u8]) -> bool {
    let message = match message {
        [0x08, 0 | 1, rest @ ..] => rest,
        all => all,
    };
    let Some((mut rest, [])) = delimited(message, 0x22) else { return false };
    for tag in [0x0a, 0x12] {
        if let Some((_, after)) = delimited(rest, tag) {
            rest = after;
        }
    }
    // The line may be any number.
    match rest {
        [] => true,
        [0x18, line @ .., last] => last & 0x80 == 0 && line.iter().all(|byte| byte & 0x80 != 0),
        _ => false,
    }
}

/// Splits off the content of the first field, if it has this tag.
fn delimited(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes.strip_prefix(&[tag])?;
    let length = usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?;
    rest.split_at_checked(length)
}

/// [`Message`] with bytes instead of strings.
#[derive(prost::Message)]
struct MessageView {
    #[prost(bool, tag = "1")]
    initiator: bool,
    #[prost(oneof = "KindView", tags = "2, 3, 4")]
    kind: Option<KindView>,
}

#[derive(prost::Oneof)]
enum KindView {
    #[prost(bytes = "bytes", tag = "2")]
    Offer(Bytes),
    #[prost(bytes = "bytes", tag = "3")]
    Answer(Bytes),
    #[prost(message, tag = "4")]
    Candidate(CandidateView),
}

/// [`IceCandidate`] with bytes instead of strings.
#[derive(prost::Message)]
struct CandidateView {
    #[prost(bytes = "bytes", tag = "1")]
    candidate: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    mid: Bytes,
    #[prost(uint32, tag = "3")]
    line: u32,
}

/// Encodes a signal.
pub(super) fn write(signal: WebRtcSignal) -> Payload {
    let signal = match signal {
        WebRtcSignal::Offer(sdp) => Type::Offer(sdp),
        WebRtcSignal::Answer(sdp) => Type::Answer(sdp),
        WebRtcSignal::Candidate(Candidate { candidate, mid, line }) => {
            Type::Candidate(IceCandidate { candidate, sdp_mid: mid, sdp_m_line_index: line })
        }
        WebRtcSignal::End => Type::Candidate(IceCandidate::default()),
    };
    Payload::Bytes(Message { is_initiator: false, r#type: Some(signal) }.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_end(payload: &Payload) -> Option<bool> {
        match read(payload)? {
            WebRtcSignal::End => Some(true),
            WebRtcSignal::Candidate(_) => Some(false),
            WebRtcSignal::Offer(_) | WebRtcSignal::Answer(_) => None,
        }
    }

    /// Fields with texts, of which some are not UTF-8, and candidates, of which some are empty.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let text =
            prop_oneof![Just(&b""[..]), Just(&b"v=0"[..]), Just(&b"candidate"[..]), Just(&b"\xff"[..])];
        let put = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
        let inner = prop::collection::vec(
            prop_oneof![
                (prop_oneof![Just(0x0a), Just(0x12)], text.clone())
                    .prop_map(move |(tag, text)| put(tag, text)),
                any::<u8>().prop_map(|line| vec![0x18, line]),
            ],
            0..4,
        );
        prop_oneof![
            (0u8..3).prop_map(|who| vec![0x08, who]),
            (prop_oneof![Just(0x12), Just(0x1a)], text).prop_map(move |(tag, text)| put(tag, text)),
            inner.prop_map(move |fields| put(0x22, &fields.concat())),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn end_of_candidates_is_what_decodes_as_one(
            fields in prop::collection::vec(field(), 0..4),
            broken in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut bytes = fields.concat();
            if let Some((at, byte)) = broken && !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let payload = Payload::Bytes(bytes.into());
            prop_assert_eq!(is_end(&payload), read_end(&payload), "{:?}", payload);
        }
    }

    #[test]
    fn invalid_text_is_noticed() {
        let payload = Payload::Bytes(Bytes::from_static(b"\x12\x01\xff\x22\x00"));
        assert_eq!((is_end(&payload), read_end(&payload)), (None, None));
        assert_eq!(is_end(&write(WebRtcSignal::End)), Some(true));
    }

    #[test]
    fn usual_candidates_take_the_fast_path() {
        for line in [0, 1, 300] {
            let candidate = Candidate { candidate: "a".repeat(200), mid: "0".to_owned(), line };
            let Payload::Bytes(bytes) = write(WebRtcSignal::Candidate(candidate)) else { panic!("no bytes") };
            assert!(is_one_candidate(&bytes));
        }
        let Payload::Bytes(end) = write(WebRtcSignal::End) else { panic!("no bytes") };
        assert!(is_one_candidate(&end));
    }
}
