//! A client of signaller: each of its frames is delivered to the other end as it is.

use super::{ClientAction, ClientEvent, ClientFrame, JoinerId, SyntheticClient, received};
use crate::tools::client::message::{MessageKind, ReceivedMessage, TestMessage};

/// A listener or a connector. A granted upgrade is all that it learns about its handle.
#[derive(Debug)]
pub(crate) struct SignallerClient;

impl SyntheticClient for SignallerClient {
    fn on_open(&mut self, _first: Option<&TestMessage>) -> Vec<ClientAction> {
        vec![ClientAction::Report(ClientEvent::LinkedToMember)]
    }

    fn on_text(&mut self, text: &str) -> Vec<ClientAction> {
        received(None, ReceivedMessage::from_bytes(text.as_bytes()))
    }

    fn on_binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        received(None, ReceivedMessage::from_bytes(bytes))
    }

    fn encode(&mut self, _to: Option<&JoinerId>, message: &TestMessage) -> Option<ClientFrame> {
        match message.kind {
            MessageKind::Offer | MessageKind::Answer | MessageKind::Candidate | MessageKind::Json => {
                String::from_utf8(message.bytes()).ok().map(ClientFrame::Text)
            }
            MessageKind::Bytes => Some(ClientFrame::Binary(message.bytes())),
        }
    }
}
