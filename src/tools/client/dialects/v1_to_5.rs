//! A client of sigver 1 to 5: `{"type":"open"|"join"}`, then whole objects. Those of 1 to 4 can express
//! offers and candidates only.

use serde_json::{Map, Value, json};

use super::{
    ClientAction, ClientEvent, ClientFrame, JoinerId, Role, SyntheticClient, received, text_frame, unexpected,
};
use crate::protocol::dialect::Dialect;
use crate::tools::client::message::{MessageBody, MessageKind, ReceivedMessage, TestMessage};

/// A client of sigver 1 to 5.
#[derive(Debug)]
pub(crate) struct IndexedClient {
    dialect: Dialect,
    role: Role,
    key: String,
    /// Number of joiners so far: their indexes are below it.
    joiners: u64,
}

impl IndexedClient {
    /// Returns a client that is not connected yet.
    pub(crate) fn new(dialect: Dialect, role: Role, key: &str) -> Self {
        IndexedClient { dialect, role, key: key.to_owned(), joiners: 0 }
    }

    fn sends_any_object(&self) -> bool {
        self.dialect == Dialect::Sigver5
    }

    fn decode(&self, mut object: Map<String, Value>) -> ReceivedMessage {
        let kind = match object.remove("type").as_ref().and_then(Value::as_str) {
            Some("offer") => Some(MessageKind::Offer),
            Some("icecandidate") => Some(MessageKind::Candidate),
            _ => None,
        };
        // Typed messages carry their contents in `data`, as in the tests of the Node.js servers.
        let body = match object.get_mut("data") {
            Some(data) if kind.is_some() => data.take(),
            _ => object.into(),
        };
        match kind {
            Some(_) => ReceivedMessage { kind, body: MessageBody::Json(body) },
            None if self.sends_any_object() => ReceivedMessage::from_json(body),
            // An object without a type is readable, but has no kind.
            None => ReceivedMessage { kind: None, ..ReceivedMessage::from_json(body) },
        }
    }
}

impl SyntheticClient for IndexedClient {
    fn on_open(&mut self, _first: Option<&TestMessage>) -> Vec<ClientAction> {
        let request = if self.role == Role::Member { "open" } else { "join" };
        let key = if self.dialect == Dialect::Sigver1 { "id" } else { "key" };
        vec![ClientAction::Send(text_frame(&json!({"type": request, key: self.key})))]
    }

    fn on_text(&mut self, frame: &str) -> Vec<ClientAction> {
        let Ok(Value::Object(mut object)) = serde_json::from_str(frame) else {
            return vec![unexpected(format!("not an object: {frame}"))];
        };
        if object.get("type").is_some_and(|name| name == "join") {
            self.joiners += 1;
            return vec![ClientAction::Report(ClientEvent::JoinerArrived)];
        }
        let index = object.remove("index").filter(|_| self.role == Role::Member);
        let from = match index {
            None => None,
            Some(index) => {
                let number = index.as_u64().or_else(|| index.as_str()?.parse().ok());
                // An opener counts its joiners. The server of sigver 5.0.0 itself sends another number, and
                // would crash on an answer to it.
                if number.is_none_or(|number| number >= self.joiners) {
                    return vec![unexpected(format!("an index of no joiner: {index}"))];
                }
                Some(JoinerId(index))
            }
        };
        received(from, self.decode(object))
    }

    fn on_binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        vec![unexpected(format!("{} bytes instead of a text", bytes.len()))]
    }

    fn encode(&mut self, to: Option<&JoinerId>, message: &TestMessage) -> Option<ClientFrame> {
        let mut object = Map::new();
        if let Some(JoinerId(index)) = to {
            object.insert("index".to_owned(), index.clone());
        }
        if self.sends_any_object() {
            object.extend(message.to_json()?.as_object()?.clone());
        } else {
            let name = match message.kind {
                MessageKind::Offer => "offer",
                MessageKind::Candidate => "icecandidate",
                MessageKind::Answer | MessageKind::Json | MessageKind::Bytes => return None,
            };
            object.insert("type".to_owned(), name.into());
            object.insert("data".to_owned(), message.body());
        }
        Some(text_frame(&object.into()))
    }
}
