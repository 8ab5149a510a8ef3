//! A client of sigver 7 to 14: a key is opened or joined, then `{"data":D}` goes up and `{"id":N,"data":D}` down. Each
//! generation looks for one attribute of its own in the answer.

use serde_json::{Map, Value, json};

use super::{Client, ClientAction, ClientEvent, Frame, Id, Role, parcel, strange, text};
use crate::protocol::dialect::Dialect;
use crate::tools::client::message::{ReceivedMessage, TestMessage};

/// The client.
#[derive(Debug)]
pub struct Envelope {
    dialect: Dialect,
    role: Role,
    key: String,
    /// It waits for the answer to its first message.
    asks: bool,
}

impl Envelope {
    /// A client that connects.
    pub fn new(dialect: Dialect, role: Role, key: &str) -> Self {
        Envelope { dialect, role, key: key.to_owned(), asks: dialect != Dialect::Sigver7 }
    }

    /// What the answer to its first message tells, if this is one.
    fn answer(&self, object: &Map<String, Value>) -> Option<ClientEvent> {
        let said = |name: &str| object.get(name).and_then(Value::as_bool);
        match (self.dialect, self.role) {
            (Dialect::Sigver7_6 | Dialect::Sigver8, role) => Some(match (said("isKeyOk")?, role) {
                (true, Role::Member) => ClientEvent::Member,
                (true, Role::Joiner) => ClientEvent::Bound,
                (false, _) => ClientEvent::Refused("isKeyOk: false".to_owned()),
            }),
            (Dialect::Sigver9, _) => {
                Some(if said("opened")? { ClientEvent::Member } else { ClientEvent::Bound })
            }
            _ => Some(if said("first")? { ClientEvent::Member } else { ClientEvent::Bound }),
        }
    }

    fn object(&mut self, mut object: Map<String, Value>, frame: &str) -> Vec<ClientAction> {
        if object.get("ping").is_some() {
            if self.dialect == Dialect::Sigver13 {
                return vec![
                    ClientAction::Send(text(&json!({"pong": true}))),
                    ClientAction::Hear(ClientEvent::Beat),
                ];
            }
            return vec![strange(format!("unknown: {frame}"))];
        }
        if self.asks {
            return match self.answer(&object) {
                Some(heard) => {
                    self.asks = false;
                    vec![ClientAction::Hear(heard)]
                }
                // Its promise is rejected (netflux 0.10.8 to 1.0.0-rc.14, measured).
                None => vec![strange(format!("no answer: {frame}"))],
            };
        }
        let id = object.remove("id");
        match (self.role, id, object.remove("data"), object.remove("unavailable")) {
            (Role::Member, Some(id), Some(data), _) => parcel(Some(Id(id)), ReceivedMessage::of_value(data)),
            (Role::Joiner, _, Some(data), _) => parcel(None, ReceivedMessage::of_value(data)),
            // An opener closes on a frame without either, and a joiner rejects it (netflux 0.10.3, measured).
            (Role::Member, ..) if self.dialect == Dialect::Sigver7 => {
                vec![strange(format!("unknown: {frame}")), ClientAction::Close(None)]
            }
            (Role::Joiner, ..) if self.dialect == Dialect::Sigver7 => {
                vec![strange(format!("unknown: {frame}"))]
            }
            (Role::Member, id, None, Some(gone)) => {
                vec![ClientAction::Hear(ClientEvent::Gone { from: Some(Id(id.unwrap_or(gone))) })]
            }
            (Role::Joiner, _, None, Some(_)) => vec![ClientAction::Hear(ClientEvent::Gone { from: None })],
            // The rest is ignored (measured).
            _ => Vec::new(),
        }
    }
}

impl Client for Envelope {
    fn opened(&mut self, first: Option<&TestMessage>) -> Vec<ClientAction> {
        let open = if self.dialect < Dialect::Sigver8 { "key" } else { "open" };
        let message = match (self.role, first.and_then(TestMessage::value)) {
            (Role::Member, _) => json!({open: self.key}),
            (Role::Joiner, Some(data)) if self.dialect == Dialect::Sigver7 => {
                json!({"join": self.key, "data": data})
            }
            (Role::Joiner, _) => json!({"join": self.key}),
        };
        vec![ClientAction::Send(text(&message))]
    }

    fn text(&mut self, frame: &str) -> Vec<ClientAction> {
        match serde_json::from_str(frame) {
            Ok(Value::Object(object)) => self.object(object, frame),
            _ => vec![strange(format!("not an object: {frame}"))],
        }
    }

    fn binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        vec![strange(format!("{} bytes instead of a text", bytes.len()))]
    }

    fn say(&mut self, to: Option<&Id>, parcel: &TestMessage) -> Option<Frame> {
        let data = parcel.value()?;
        Some(text(&match to {
            Some(Id(id)) => json!({"id": id, "data": data}),
            None => json!({ "data": data }),
        }))
    }
}
