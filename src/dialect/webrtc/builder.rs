//! `webRTCBuilder` of netflux 1.1 to 3.0.

use bytes::Bytes;
use prost::Message as _;

use super::{Candidate, Told, is_sdp};
use crate::model::Payload;

#[allow(missing_docs)]
mod netflux1 {
    include!(concat!(env!("OUT_DIR"), "/netflux1.rs"));
}
use netflux1::message::Type;
use netflux1::{IceCandidate, Message};

/// What the payload tells, if it is such a message.
pub(super) fn read(payload: &Payload) -> Option<Told> {
    let Payload::Bytes(bytes) = payload else { return None };
    match Message::decode(bytes.clone()).ok()?.r#type? {
        Type::Offer(sdp) => is_sdp(&sdp).then_some(Told::Offer(sdp)),
        Type::Answer(sdp) => is_sdp(&sdp).then_some(Told::Answer(sdp)),
        Type::Candidate(IceCandidate { candidate, .. }) if candidate.is_empty() => Some(Told::End),
        Type::Candidate(IceCandidate { candidate, sdp_mid, sdp_m_line_index }) => {
            Some(Told::Candidate(Candidate { candidate, mid: sdp_mid, line: sdp_m_line_index }))
        }
    }
}

/// Of a candidate, whether it says that there are no more; `None` if the payload is none. This is asked of every message
/// of sigver 15: nothing is copied.
pub(super) fn is_end(payload: &Payload) -> Option<bool> {
    let Payload::Bytes(bytes) = payload else { return None };
    match Peek::decode(bytes.clone()).ok()?.kind? {
        Kind::Candidate(PeekCandidate { candidate, mid, .. }) => {
            let texts = [&candidate, &mid].into_iter().all(|text| std::str::from_utf8(text).is_ok());
            texts.then_some(candidate.is_empty())
        }
        Kind::Offer(_) | Kind::Answer(_) => None,
    }
}

/// `Message`, with bytes for texts.
#[derive(prost::Message)]
struct Peek {
    #[prost(bool, tag = "1")]
    initiator: bool,
    #[prost(oneof = "Kind", tags = "2, 3, 4")]
    kind: Option<Kind>,
}

#[derive(prost::Oneof)]
enum Kind {
    #[prost(bytes = "bytes", tag = "2")]
    Offer(Bytes),
    #[prost(bytes = "bytes", tag = "3")]
    Answer(Bytes),
    #[prost(message, tag = "4")]
    Candidate(PeekCandidate),
}

/// `IceCandidate`, with bytes for texts.
#[derive(prost::Message)]
struct PeekCandidate {
    #[prost(bytes = "bytes", tag = "1")]
    candidate: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    mid: Bytes,
    #[prost(uint32, tag = "3")]
    line: u32,
}

/// The message that tells it.
pub(super) fn write(told: &Told) -> Payload {
    let told = match told {
        Told::Offer(sdp) => Type::Offer(sdp.clone()),
        Told::Answer(sdp) => Type::Answer(sdp.clone()),
        Told::Candidate(Candidate { candidate, mid, line }) => Type::Candidate(IceCandidate {
            candidate: candidate.clone(),
            sdp_mid: mid.clone(),
            sdp_m_line_index: *line,
        }),
        Told::End => Type::Candidate(IceCandidate::default()),
    };
    Payload::Bytes(Message { is_initiator: false, r#type: Some(told) }.encode_to_vec().into())
}
