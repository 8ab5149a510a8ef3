//! Conversion of session descriptions and ICE candidates between the encodings of each major version of
//! netflux. Facts are measured on the nine published clients that still run.
//!
//! All versions send the same three signals: an offer, an answer, candidates. Up to 3.0 the joiner sends the
//! offer; in 4 the member does, after the two have negotiated how to connect. Where an old member is linked
//! to a joiner of 4, the gateway negotiates on behalf of the member, so that the joiner sends the offer; a
//! member of 4 answers an old joiner's offer without a negotiation.

mod builder;
mod descriptions;
mod json;
mod services;

use crate::protocol::dialect::release::SdpEncoding;
use crate::protocol::model::{LinkId, LinkMessage, Payload};
pub(crate) use descriptions::{ReceivedSignal, SessionDescription, receive_signal};

/// Signal, whatever its encoding.
#[derive(Clone, Debug, PartialEq)]
enum WebRtcSignal {
    Offer(String),
    Answer(String),
    Candidate(Candidate),
    /// End of candidates.
    End,
}

/// ICE candidate.
#[derive(Clone, Debug, PartialEq)]
struct Candidate {
    candidate: String,
    mid: String,
    line: u32,
}

/// Result of converting a message from one encoding to another.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Transcoded {
    /// The message is no known signal, and is relayed as it is.
    Passthrough(LinkMessage),
    /// The same signal in the other encoding.
    Converted(LinkMessage),
    /// The answer to the sender; the receiver gets no message.
    ReplyToSender(Payload),
    /// No message: the receiver needs none.
    Dropped,
}

/// Returns true if the text is a session description.
fn is_sdp(text: &str) -> bool {
    text.starts_with("v=0")
}

/// Returns true if the bytes have neither a control character nor `other`. The tag of a protobuf field with a
/// number up to 3 is or has a control character, so that text without one has no such field. The check is
/// cheap, and made for every content of sigver 15.
fn is_text_without(bytes: &[u8], other: u8) -> bool {
    let is_other = |byte: &u8| *byte < 0x20 || *byte == other;
    // Most messages are recognized by their first byte.
    if bytes.first().is_some_and(is_other) {
        return false;
    }
    let (sixteens, rest) = bytes.as_chunks::<16>();
    !sixteens.iter().any(|bytes| bytes.iter().fold(false, |any, byte| any | is_other(byte)))
        && !rest.iter().any(is_other)
}

/// Converts a message over `link` from one encoding to another.
pub(super) fn translate(
    message: LinkMessage,
    from: SdpEncoding,
    to: SdpEncoding,
    link: LinkId,
) -> Transcoded {
    let signal = match &message {
        LinkMessage::Data { payload, .. } => match from {
            SdpEncoding::Json => json::read(payload),
            SdpEncoding::Builder | SdpEncoding::BuilderWithEnd => builder::read(payload),
            SdpEncoding::Services => match services::read(payload, link) {
                Some(services::Decoded::Signal(signal)) => Some(signal),
                Some(services::Decoded::Request(answer)) => return Transcoded::ReplyToSender(answer),
                Some(services::Decoded::NoReply) => return Transcoded::Dropped,
                None => None,
            },
        },
        LinkMessage::End if from == SdpEncoding::BuilderWithEnd => Some(WebRtcSignal::End),
        LinkMessage::End | LinkMessage::Error { .. } | LinkMessage::Empty => None,
    };
    let Some(signal) = signal else { return Transcoded::Passthrough(message) };
    let is_end = signal == WebRtcSignal::End;
    let payload = match to {
        SdpEncoding::Json => match json::write(&signal) {
            Some(payload) => payload,
            None => return Transcoded::Dropped,
        },
        SdpEncoding::BuilderWithEnd if is_end => return Transcoded::Converted(LinkMessage::End),
        SdpEncoding::Builder | SdpEncoding::BuilderWithEnd => builder::write(signal),
        SdpEncoding::Services => services::write(signal, link),
    };
    let last = to == SdpEncoding::Builder && is_end;
    Transcoded::Converted(LinkMessage::Data { payload, last })
}

/// Returns true if a content of sigver 15 is the last one; `marked` is its own mark. netflux 1.1.0-beta.7
/// marks every candidate but the last.
pub(super) fn is_last(payload: &Payload, marked: bool) -> bool {
    builder::is_end(payload).unwrap_or(marked)
}

#[cfg(test)]
mod tests;
