//! A client of the path relay: whatever it sends comes out at the other end.

use super::{Client, ClientAction, ClientEvent, Frame, Id, parcel};
use crate::tools::client::message::{MessageKind, ReceivedMessage, TestMessage};

/// The client. That it is let in tells it all there is to know.
#[derive(Debug)]
pub struct Relay;

impl Client for Relay {
    fn opened(&mut self, _first: Option<&TestMessage>) -> Vec<ClientAction> {
        vec![ClientAction::Hear(ClientEvent::Bound)]
    }

    fn text(&mut self, text: &str) -> Vec<ClientAction> {
        parcel(None, ReceivedMessage::of_bytes(text.as_bytes()))
    }

    fn binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        parcel(None, ReceivedMessage::of_bytes(bytes))
    }

    fn say(&mut self, _to: Option<&Id>, parcel: &TestMessage) -> Option<Frame> {
        match parcel.shape {
            MessageKind::Offer | MessageKind::Answer | MessageKind::Candidate | MessageKind::Json => {
                String::from_utf8(parcel.bytes()).ok().map(Frame::Text)
            }
            MessageKind::Bytes => Some(Frame::Binary(parcel.bytes())),
        }
    }
}
