//! Session descriptions of a peer of the gateway itself, which no client's codec decodes or encodes.

use strum::VariantArray as _;

use super::{Transcoded, WebRtcSignal, json, translate};
use crate::protocol::dialect::release::SdpEncoding;
use crate::protocol::dialect::{Dialect, PeerProtocol};
use crate::protocol::model::{Command, LinkId, LinkMessage, Payload, SenderTag};

/// A session description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionDescription {
    /// An offer.
    Offer(String),
    /// An answer.
    Answer(String),
}

/// Meaning of a client's message for a peer of the gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ReceivedSignal {
    /// A session description.
    Description(SessionDescription),
    /// A question before one, with the command that answers it.
    Question(Command),
    /// A candidate, or a message that is no signal.
    Other,
}

impl SessionDescription {
    /// Returns the message that carries it to a client of this peer protocol, and its tag, with which the
    /// client's codec translates it. The tag stands for every peer protocol: no room is mixed by it.
    pub(crate) fn into_message(self, receiver: PeerProtocol) -> (LinkMessage, SenderTag) {
        let signal = match self {
            SessionDescription::Offer(sdp) => WebRtcSignal::Offer(sdp),
            SessionDescription::Answer(sdp) => WebRtcSignal::Answer(sdp),
        };
        // Only the end of candidates has no payload in this encoding.
        let payload = json::write(&signal).unwrap_or_else(|| Payload::Json("{}".into()));
        (LinkMessage::Data { payload, last: false }, own_tag(receiver))
    }
}

fn own_tag(receiver: PeerProtocol) -> SenderTag {
    // Some openers are answered by the dialect of their joiner.
    let dialect = if receiver == PeerProtocol::Netflux0 { Dialect::Sigver7 } else { Dialect::Sigver9 };
    let bits = PeerProtocol::VARIANTS.iter().fold(0, |bits, protocol| bits | protocol.bit());
    dialect.tag().with_peer_protocols(bits)
}

/// Returns the meaning of a message that a client sent over `link`.
pub(crate) fn receive_signal(message: LinkMessage, sender: SenderTag, link: LinkId) -> ReceivedSignal {
    let Some(from) = Dialect::from_tag(sender).map(|from| from.facts().sdp_encoding) else {
        return ReceivedSignal::Other;
    };
    let message = match translate(message, from, SdpEncoding::Json, link) {
        Transcoded::Converted(message) | Transcoded::Passthrough(message) => message,
        Transcoded::ReplyToSender(payload) => {
            let message = LinkMessage::Data { payload, last: false };
            return ReceivedSignal::Question(Command::ReplyOnBehalf { link, message, sender });
        }
        Transcoded::Dropped => return ReceivedSignal::Other,
    };
    let LinkMessage::Data { payload, .. } = message else { return ReceivedSignal::Other };
    match json::read(&payload) {
        Some(WebRtcSignal::Offer(sdp)) => ReceivedSignal::Description(SessionDescription::Offer(sdp)),
        Some(WebRtcSignal::Answer(sdp)) => ReceivedSignal::Description(SessionDescription::Answer(sdp)),
        Some(WebRtcSignal::Candidate(_) | WebRtcSignal::End) | None => ReceivedSignal::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::webrtc::{builder, services};

    const SDP: &str = "v=0\r\na=ice-lite\r\n";

    #[test]
    fn description_is_read_from_the_encoding_of_every_dialect() {
        for dialect in Dialect::ALL {
            let encoding = dialect.facts().sdp_encoding;
            for description in
                [SessionDescription::Offer(SDP.to_owned()), SessionDescription::Answer(SDP.to_owned())]
            {
                let (message, tag) = description.clone().into_message(dialect.peer_protocol());
                let own = Dialect::from_tag(tag).unwrap().facts().sdp_encoding;
                let message = match translate(message, own, encoding, LinkId(9)) {
                    Transcoded::Converted(message) => message,
                    other => panic!("{dialect}: {other:?}"),
                };
                let received = receive_signal(message, dialect.tag(), LinkId(9));
                assert_eq!(received, ReceivedSignal::Description(description), "{dialect}");
            }
        }
    }

    #[test]
    fn candidates_and_other_messages_are_no_descriptions() {
        let other = |payload, dialect: Dialect| {
            let message = LinkMessage::Data { payload, last: false };
            receive_signal(message, dialect.tag(), LinkId(9))
        };
        let end = builder::write(WebRtcSignal::End);
        assert_eq!(other(end, Dialect::Sigver15), ReceivedSignal::Other);
        let end = services::write(WebRtcSignal::End, LinkId(9));
        assert_eq!(other(end, Dialect::Sigver20), ReceivedSignal::Other);
        let text = Payload::Json("{\"candidate\":{\"candidate\":\"c\"}}".into());
        assert_eq!(other(text, Dialect::Sigver7_6), ReceivedSignal::Other);
        assert_eq!(
            receive_signal(LinkMessage::End, Dialect::Sigver16.tag(), LinkId(9)),
            ReceivedSignal::Other
        );
    }
}
