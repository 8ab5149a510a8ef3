//! A client of sigver 6: one offer to the member, one answer to the joiner; nothing else can be expressed.

use serde_json::{Value, json};

use super::{
    ClientAction, ClientEvent, ClientFrame, JoinerId, Role, SyntheticClient, received, text_frame, unexpected,
};
use crate::tools::client::message::{MessageBody, MessageKind, ReceivedMessage, TestMessage};

/// A client of sigver 6.
#[derive(Debug)]
pub(crate) struct Sigver6Client {
    role: Role,
    key: String,
    /// True while a joiner has not sent its offer, or a member not answered the offers since its last answer.
    may_send: bool,
}

impl Sigver6Client {
    /// Returns a client that is not connected yet.
    pub(crate) fn new(role: Role, key: &str) -> Self {
        Sigver6Client { role, key: key.to_owned(), may_send: role == Role::Joiner }
    }
}

impl SyntheticClient for Sigver6Client {
    fn on_open(&mut self, _first: Option<&TestMessage>) -> Vec<ClientAction> {
        let key = if self.role == Role::Member { "key" } else { "joinkey" };
        vec![ClientAction::Send(text_frame(&json!({key: self.key})))]
    }

    fn on_text(&mut self, frame: &str) -> Vec<ClientAction> {
        let Ok(Value::Object(mut object)) = serde_json::from_str(frame) else {
            return vec![unexpected(format!("not an object: {frame}"))];
        };
        if object.contains_key("reachable") {
            return vec![ClientAction::Report(ClientEvent::LinkedToMember)];
        }
        let (name, kind) = match self.role {
            Role::Member => ("offer", MessageKind::Offer),
            Role::Joiner => ("answer", MessageKind::Answer),
        };
        // Objects without the one awaited attribute are ignored.
        let Some(body) = object.remove(name) else { return Vec::new() };
        self.may_send |= self.role == Role::Member;
        received(None, ReceivedMessage { kind: Some(kind), body: MessageBody::Json(body) })
    }

    fn on_binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        vec![unexpected(format!("{} bytes instead of a text", bytes.len()))]
    }

    fn encode(&mut self, _to: Option<&JoinerId>, message: &TestMessage) -> Option<ClientFrame> {
        let kind = if self.role == Role::Member { MessageKind::Answer } else { MessageKind::Offer };
        (message.kind == kind && std::mem::take(&mut self.may_send))
            .then(|| text_frame(&json!({kind.name(): message.body()})))
    }
}
