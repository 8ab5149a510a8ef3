//! What peers tell one another to build a data channel, in the encodings of each generation of netflux, and from one
//! into another. Facts are measured on the nine published clients that still run.
//!
//! All say the same three things: an offer, an answer, candidates. Up to 3.0 the joiner makes the offer; in 4 the
//! member does, after the two found out how to connect. Where an old member meets a joiner of 4, the gateway takes part
//! in that talk in the member's stead, so that the joiner makes the offer; an old joiner's offer is answered by a member
//! of 4 without it.

mod builder;
mod json;
mod services;

use super::Dialect;
use crate::protocol::model::{LinkId, LinkMessage, Payload};

/// How the clients of a dialect encode what builds a data channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SdpEncoding {
    /// `{"offer":{"type":"offer","sdp":S}}`: sigver 1 to 14. Nothing says that there are no more candidates.
    Json,
    /// `webRTCBuilder` of netflux 1.1; an empty candidate ends: sigver 15.
    Builder,
    /// The same of netflux 2 and 3, where the end of the content ends: sigver 16 to 18.
    BuilderWithEnd,
    /// Services of netflux 4: sigver 19 and 20.
    Services,
}

impl SdpEncoding {
    pub(super) const fn of(dialect: Dialect) -> SdpEncoding {
        match dialect {
            Dialect::Sigver1
            | Dialect::Sigver4
            | Dialect::Sigver5
            | Dialect::Sigver6
            | Dialect::Sigver7
            | Dialect::Sigver7_6
            | Dialect::Sigver8
            | Dialect::Sigver9
            | Dialect::Sigver11
            | Dialect::Sigver13 => SdpEncoding::Json,
            Dialect::Sigver15 | Dialect::Sigver15_1 => SdpEncoding::Builder,
            Dialect::Sigver16 | Dialect::Sigver18 => SdpEncoding::BuilderWithEnd,
            Dialect::Sigver19 | Dialect::Sigver20 => SdpEncoding::Services,
        }
    }
}

/// What is told, whatever the encoding.
#[derive(Clone, Debug, PartialEq)]
enum WebRtcSignal {
    Offer(String),
    Answer(String),
    Candidate(Candidate),
    /// There are no more candidates.
    End,
}

#[derive(Clone, Debug, PartialEq)]
struct Candidate {
    candidate: String,
    mid: String,
    line: u32,
}

/// A message on its way from one voice to another.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Transcoded {
    /// It is none of what is known here: it passes as it is.
    Unknown(LinkMessage),
    /// It says the same in the other voice.
    Said(LinkMessage),
    /// The sender is to be answered by this, and the receiver hears nothing.
    Answered(Payload),
    /// The receiver has no word for it, and needs none.
    Nothing,
}

/// Whether a description is one of a session: nothing else is taken for one.
fn is_sdp(text: &str) -> bool {
    text.starts_with("v=0")
}

/// Whether bytes have neither a control character nor this one. A field of protobuf with a number up to 3 begins with a
/// control character, or, where its tag is written longer than need be, has one: text that has none has no such field.
/// A content of sigver 15, where each is asked, takes 440 instructions less for it.
fn is_text_without(bytes: &[u8], other: u8) -> bool {
    let is_other = |byte: &u8| *byte < 0x20 || *byte == other;
    // What is a message says so by its first byte.
    if bytes.first().is_some_and(is_other) {
        return false;
    }
    // Sixteen in one go.
    let (sixteens, rest) = bytes.as_chunks::<16>();
    !sixteens.iter().any(|bytes| bytes.iter().fold(false, |any, byte| any | is_other(byte)))
        && !rest.iter().any(is_other)
}

/// Says in the voice `to` what was said in the voice `from` over `link`.
pub(super) fn translate(
    message: LinkMessage,
    from: SdpEncoding,
    to: SdpEncoding,
    link: LinkId,
) -> Transcoded {
    let told = match &message {
        LinkMessage::Data { payload, .. } => match from {
            SdpEncoding::Json => json::read(payload),
            SdpEncoding::Builder | SdpEncoding::BuilderWithEnd => builder::read(payload),
            SdpEncoding::Services => match services::read(payload, link) {
                Some(services::Read::WebRtcSignal(told)) => Some(told),
                Some(services::Read::Asked(answer)) => return Transcoded::Answered(answer),
                Some(services::Read::Nothing) => return Transcoded::Nothing,
                None => None,
            },
        },
        LinkMessage::End if from == SdpEncoding::BuilderWithEnd => Some(WebRtcSignal::End),
        LinkMessage::End | LinkMessage::Error { .. } | LinkMessage::Empty => None,
    };
    let Some(told) = told else { return Transcoded::Unknown(message) };
    let is_end = told == WebRtcSignal::End;
    let payload = match to {
        SdpEncoding::Json => match json::write(&told) {
            Some(payload) => payload,
            None => return Transcoded::Nothing,
        },
        SdpEncoding::BuilderWithEnd if is_end => return Transcoded::Said(LinkMessage::End),
        SdpEncoding::Builder | SdpEncoding::BuilderWithEnd => builder::write(told),
        SdpEncoding::Services => services::write(told, link),
    };
    let last = to == SdpEncoding::Builder && is_end;
    Transcoded::Said(LinkMessage::Data { payload, last })
}

/// Whether a content of sigver 15 that is marked as the last, or is not, is the last one. netflux 1.1.0-beta.7 marks every
/// candidate but the last.
pub(super) fn is_last(payload: &Payload, marked: bool) -> bool {
    builder::is_end(payload).unwrap_or(marked)
}

#[cfg(test)]
mod tests;
