//! A client of sigver 1 to 5: `{"type":"open"|"join"}`, then whole objects. Those of 1 to 4 have words for offers and
//! candidates only.

use serde_json::{Map, Value, json};

use super::{Client, ClientAction, ClientEvent, Frame, Id, Role, parcel, strange, text};
use crate::protocol::dialect::Dialect;
use crate::tools::client::message::{Body, MessageKind, ReceivedMessage, TestMessage};

/// The client.
#[derive(Debug)]
pub struct Indexed {
    dialect: Dialect,
    role: Role,
    key: String,
    /// How many have joined: their indexes are below it.
    joiners: u64,
}

impl Indexed {
    /// A client that connects.
    pub fn new(dialect: Dialect, role: Role, key: &str) -> Self {
        Indexed { dialect, role, key: key.to_owned(), joiners: 0 }
    }

    fn any_object(&self) -> bool {
        self.dialect == Dialect::Sigver5
    }

    fn got(&self, mut object: Map<String, Value>) -> ReceivedMessage {
        let shape = match object.remove("type").as_ref().and_then(Value::as_str) {
            Some("offer") => Some(MessageKind::Offer),
            Some("icecandidate") => Some(MessageKind::Candidate),
            _ => None,
        };
        // Typed messages carry their contents in `data`, as in the tests of the originals.
        let body = match object.get_mut("data") {
            Some(data) if shape.is_some() => data.take(),
            _ => object.into(),
        };
        match shape {
            Some(_) => ReceivedMessage { shape, body: Body::Json(body) },
            None if self.any_object() => ReceivedMessage::of_value(body),
            // All that it can do with something that has no type is to look into it.
            None => ReceivedMessage { shape: None, ..ReceivedMessage::of_value(body) },
        }
    }
}

impl Client for Indexed {
    fn opened(&mut self, _first: Option<&TestMessage>) -> Vec<ClientAction> {
        let kind = if self.role == Role::Member { "open" } else { "join" };
        let key = if self.dialect == Dialect::Sigver1 { "id" } else { "key" };
        vec![ClientAction::Send(text(&json!({"type": kind, key: self.key})))]
    }

    fn text(&mut self, frame: &str) -> Vec<ClientAction> {
        let Ok(Value::Object(mut object)) = serde_json::from_str(frame) else {
            return vec![strange(format!("not an object: {frame}"))];
        };
        if object.get("type").is_some_and(|kind| kind == "join") {
            self.joiners += 1;
            return vec![ClientAction::Hear(ClientEvent::Arrival)];
        }
        let index = object.remove("index").filter(|_| self.role == Role::Member);
        let from = match index {
            None => None,
            Some(index) => {
                let number = index.as_u64().or_else(|| index.as_str()?.parse().ok());
                // An opener counts its joiners. sigver 5.0.0 itself shows it another number, by which an answer would
                // crash the server.
                if number.is_none_or(|number| number >= self.joiners) {
                    return vec![strange(format!("an index of no joiner: {index}"))];
                }
                Some(Id(index))
            }
        };
        parcel(from, self.got(object))
    }

    fn binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        vec![strange(format!("{} bytes instead of a text", bytes.len()))]
    }

    fn say(&mut self, to: Option<&Id>, parcel: &TestMessage) -> Option<Frame> {
        let mut object = Map::new();
        if let Some(Id(index)) = to {
            object.insert("index".to_owned(), index.clone());
        }
        if self.any_object() {
            object.extend(parcel.value()?.as_object()?.clone());
        } else {
            let kind = match parcel.shape {
                MessageKind::Offer => "offer",
                MessageKind::Candidate => "icecandidate",
                MessageKind::Answer | MessageKind::Json | MessageKind::Bytes => return None,
            };
            object.insert("type".to_owned(), kind.into());
            object.insert("data".to_owned(), parcel.body());
        }
        Some(text(&object.into()))
    }
}
