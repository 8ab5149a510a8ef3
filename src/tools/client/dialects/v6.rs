//! A client of sigver 6: one offer goes up, one answer down, and nothing else has words.

use serde_json::{Value, json};

use super::{Client, ClientAction, ClientEvent, Frame, Id, Role, parcel, strange, text};
use crate::tools::client::message::{Body, MessageKind, ReceivedMessage, TestMessage};

/// The client.
#[derive(Debug)]
pub struct Sigver6 {
    role: Role,
    key: String,
    /// What it may still say: a joiner one offer, a member one answer to the offers since its last one.
    may_say: bool,
}

impl Sigver6 {
    /// A client that connects.
    pub fn new(role: Role, key: &str) -> Self {
        Sigver6 { role, key: key.to_owned(), may_say: role == Role::Joiner }
    }
}

impl Client for Sigver6 {
    fn opened(&mut self, _first: Option<&TestMessage>) -> Vec<ClientAction> {
        let key = if self.role == Role::Member { "key" } else { "joinkey" };
        vec![ClientAction::Send(text(&json!({key: self.key})))]
    }

    fn text(&mut self, frame: &str) -> Vec<ClientAction> {
        let Ok(Value::Object(mut object)) = serde_json::from_str(frame) else {
            return vec![strange(format!("not an object: {frame}"))];
        };
        if object.contains_key("reachable") {
            return vec![ClientAction::Hear(ClientEvent::Bound)];
        }
        let (name, shape) = match self.role {
            Role::Member => ("offer", MessageKind::Offer),
            Role::Joiner => ("answer", MessageKind::Answer),
        };
        // It looks for the one thing it waits for, and for nothing else.
        let Some(body) = object.remove(name) else { return Vec::new() };
        self.may_say |= self.role == Role::Member;
        parcel(None, ReceivedMessage { shape: Some(shape), body: Body::Json(body) })
    }

    fn binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        vec![strange(format!("{} bytes instead of a text", bytes.len()))]
    }

    fn say(&mut self, _to: Option<&Id>, parcel: &TestMessage) -> Option<Frame> {
        let shape = if self.role == Role::Member { MessageKind::Answer } else { MessageKind::Offer };
        (parcel.shape == shape && std::mem::take(&mut self.may_say))
            .then(|| text(&json!({shape.name(): parcel.body()})))
    }
}
