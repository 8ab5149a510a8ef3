//! The services of netflux 4, of which one builds a data channel, and one finds out whether that is possible.

use bytes::Bytes;
use prost::Message as _;

use super::{Candidate, WebRtcSignal, is_sdp, is_text_without};
use crate::protocol::model::{LinkId, Payload};

#[allow(missing_docs, unreachable_pub)]
mod netflux4 {
    include!(concat!(env!("OUT_DIR"), "/netflux4.rs"));
}
use netflux4::channel_builder::Type as Finding;
use netflux4::data_channel_builder::Type as Building;
use netflux4::{ChannelBuilder, DataChannelBuilder, IceCandidate, Info, Message, Negotiation};

/// The service that finds out how to connect.
const FINDER: u32 = 74;
/// The service that builds a data channel.
const BUILDER: u32 = 7431;

/// What a message is for one who speaks no services.
pub(super) enum Read {
    /// It tells something.
    WebRtcSignal(WebRtcSignal),
    /// It asks how to connect, and is to be answered by this.
    Asked(Payload),
    /// It goes with the talk about how to connect, and needs no answer.
    Nothing,
}

/// Reads a payload that came over `link`, if it is a message to one of the two services.
pub(super) fn read(payload: &Payload, link: LinkId) -> Option<Read> {
    let Payload::Bytes(bytes) = payload else { return None };
    // The service is field 3: what has none is for none.
    if is_text_without(bytes, 0) {
        return None;
    }
    read_any(bytes, link)
}

/// The same of any bytes.
pub(super) fn read_any(bytes: &Bytes, link: LinkId) -> Option<Read> {
    let message = Message::decode(bytes.clone()).ok()?;
    match message.service_id {
        BUILDER => built(message.content).map(Read::WebRtcSignal),
        FINDER => found(message.content, link),
        _ => None,
    }
}

fn built(content: Bytes) -> Option<WebRtcSignal> {
    let Some(told) = DataChannelBuilder::decode(content).ok()?.r#type else { return Some(WebRtcSignal::End) };
    match told {
        Building::Offer(sdp) => is_sdp(&sdp).then_some(WebRtcSignal::Offer(sdp)),
        Building::Answer(sdp) => is_sdp(&sdp).then_some(WebRtcSignal::Answer(sdp)),
        Building::Candidate(IceCandidate { candidate, .. }) if candidate.is_empty() => {
            Some(WebRtcSignal::End)
        }
        Building::Candidate(IceCandidate { candidate, sdp_mid, sdp_m_line_index }) => {
            Some(WebRtcSignal::Candidate(Candidate { candidate, mid: sdp_mid, line: sdp_m_line_index }))
        }
    }
}

/// The other half of the talk that precedes an offer: asked to connect, the answer is yes; told how the joiner could be
/// reached, the answer is that this side has tried a data channel, whereupon the joiner makes the offer.
fn found(content: Bytes, link: LinkId) -> Option<Read> {
    let answer = match ChannelBuilder::decode(content).ok()?.r#type? {
        Finding::ConnectionRequest(_) => Finding::ConnectionResponse(true),
        Finding::Negotiation(Negotiation { initiator: Some(initiator), passive: None }) => {
            let initiator = Info { id: link.0, ..initiator };
            let passive = Info { dc_supported: true, dc_tried: true, ..Info::default() };
            Finding::Negotiation(Negotiation { initiator: Some(initiator), passive: Some(passive) })
        }
        Finding::Negotiation(_) | Finding::ConnectionResponse(_) => return Some(Read::Nothing),
    };
    let content = ChannelBuilder { r#type: Some(answer) }.encode_to_vec();
    Some(Read::Asked(message(FINDER, content, link)))
}

/// The message that tells it. Its ids are those of the content around it, which the clients go by.
pub(super) fn write(told: WebRtcSignal, link: LinkId) -> Payload {
    let told = match told {
        WebRtcSignal::Offer(sdp) => Some(Building::Offer(sdp)),
        WebRtcSignal::Answer(sdp) => Some(Building::Answer(sdp)),
        WebRtcSignal::Candidate(Candidate { candidate, mid, line }) => {
            Some(Building::Candidate(IceCandidate { candidate, sdp_mid: mid, sdp_m_line_index: line }))
        }
        WebRtcSignal::End => None,
    };
    message(BUILDER, DataChannelBuilder { r#type: told }.encode_to_vec(), link)
}

fn message(service: u32, content: Vec<u8>, link: LinkId) -> Payload {
    let message =
        Message { sender_id: 0, recipient_id: link.0, service_id: service, content: content.into() };
    Payload::Bytes(message.encode_to_vec().into())
}
