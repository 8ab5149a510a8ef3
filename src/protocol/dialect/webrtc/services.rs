//! The services of netflux 4: one builds a data channel, and one negotiates whether that is possible.

use bytes::Bytes;
use prost::Message as _;

use super::{Candidate, WebRtcSignal, is_sdp, is_text_without};
use crate::protocol::model::{LinkId, Payload};

#[allow(missing_docs, unreachable_pub)]
mod netflux4 {
    include!(concat!(env!("OUT_DIR"), "/netflux4.rs"));
}
use netflux4::channel_builder::Type as ChannelMessage;
use netflux4::data_channel_builder::Type as DataChannelMessage;
use netflux4::{ChannelBuilder, DataChannelBuilder, IceCandidate, Info, Message, Negotiation};

/// Id of the service that negotiates how to connect.
const CHANNEL_BUILDER: u32 = 74;
/// Id of the service that builds a data channel.
const DATA_CHANNEL_BUILDER: u32 = 7431;

/// Meaning of a message for a client without services.
pub(super) enum Decoded {
    /// A signal.
    Signal(WebRtcSignal),
    /// A request of the negotiation, with the answer to it.
    Request(Payload),
    /// A message of the negotiation that needs no answer.
    NoReply,
}

/// Decodes a payload from `link`, if it is a message to one of the two services.
pub(super) fn read(payload: &Payload, link: LinkId) -> Option<Decoded> {
    let Payload::Bytes(bytes) = payload else { return None };
    // The service is field 3.
    if is_text_without(bytes, 0) {
        return None;
    }
    decode(bytes, link)
}

/// Decodes any bytes, without the check for text.
pub(super) fn decode(bytes: &Bytes, link: LinkId) -> Option<Decoded> {
    let message = Message::decode(bytes.clone()).ok()?;
    match message.service_id {
        DATA_CHANNEL_BUILDER => from_data_channel_builder(message.content).map(Decoded::Signal),
        CHANNEL_BUILDER => from_channel_builder(message.content, link),
        _ => None,
    }
}

fn from_data_channel_builder(content: Bytes) -> Option<WebRtcSignal> {
    let Some(signal) = DataChannelBuilder::decode(content).ok()?.r#type else {
        return Some(WebRtcSignal::End);
    };
    match signal {
        DataChannelMessage::Offer(sdp) => is_sdp(&sdp).then_some(WebRtcSignal::Offer(sdp)),
        DataChannelMessage::Answer(sdp) => is_sdp(&sdp).then_some(WebRtcSignal::Answer(sdp)),
        DataChannelMessage::Candidate(IceCandidate { candidate, .. }) if candidate.is_empty() => {
            Some(WebRtcSignal::End)
        }
        DataChannelMessage::Candidate(IceCandidate { candidate, sdp_mid, sdp_m_line_index }) => {
            Some(WebRtcSignal::Candidate(Candidate { candidate, mid: sdp_mid, line: sdp_m_line_index }))
        }
    }
}

/// Decodes a message of the negotiation before an offer. The answer to a connection request is yes; the
/// answer to the joiner's own abilities is that this side has tried a data channel, whereupon the joiner
/// sends the offer.
fn from_channel_builder(content: Bytes, link: LinkId) -> Option<Decoded> {
    let answer = match ChannelBuilder::decode(content).ok()?.r#type? {
        ChannelMessage::ConnectionRequest(_) => ChannelMessage::ConnectionResponse(true),
        ChannelMessage::Negotiation(Negotiation { initiator: Some(initiator), passive: None }) => {
            let initiator = Info { id: link.0, ..initiator };
            let passive = Info { dc_supported: true, dc_tried: true, ..Info::default() };
            ChannelMessage::Negotiation(Negotiation { initiator: Some(initiator), passive: Some(passive) })
        }
        ChannelMessage::Negotiation(_) | ChannelMessage::ConnectionResponse(_) => {
            return Some(Decoded::NoReply);
        }
    };
    let content = ChannelBuilder { r#type: Some(answer) }.encode_to_vec();
    Some(Decoded::Request(message(CHANNEL_BUILDER, content, link)))
}

/// Encodes a signal. Its ids are those of the content around it, which the clients read.
pub(super) fn write(signal: WebRtcSignal, link: LinkId) -> Payload {
    let signal = match signal {
        WebRtcSignal::Offer(sdp) => Some(DataChannelMessage::Offer(sdp)),
        WebRtcSignal::Answer(sdp) => Some(DataChannelMessage::Answer(sdp)),
        WebRtcSignal::Candidate(Candidate { candidate, mid, line }) => {
            Some(DataChannelMessage::Candidate(IceCandidate {
                candidate,
                sdp_mid: mid,
                sdp_m_line_index: line,
            }))
        }
        WebRtcSignal::End => None,
    };
    message(DATA_CHANNEL_BUILDER, DataChannelBuilder { r#type: signal }.encode_to_vec(), link)
}

fn message(service: u32, content: Vec<u8>, link: LinkId) -> Payload {
    let message =
        Message { sender_id: 0, recipient_id: link.0, service_id: service, content: content.into() };
    Payload::Bytes(message.encode_to_vec().into())
}
