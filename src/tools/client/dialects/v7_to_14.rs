//! A client of sigver 7 to 14: a key is opened or joined, then `{"data":D}` is sent to the member and
//! `{"id":N,"data":D}` to a joiner. Each release looks for one attribute of its own in the answer to the
//! first message.

use serde_json::{Map, Value, json};

use super::{
    ClientAction, ClientEvent, ClientFrame, JoinerId, Role, SyntheticClient, received, text_frame, unexpected,
};
use crate::protocol::dialect::{Confirmation, JsonFacts, Keepalive, Release};
use crate::tools::client::message::{ReceivedMessage, TestMessage};

/// A client of sigver 7 to 14.
#[derive(Debug)]
pub(crate) struct EnvelopeClient {
    facts: JsonFacts,
    /// The server pings.
    pinged: bool,
    role: Role,
    key: String,
    /// True while the answer to the first message has not arrived.
    awaits_answer: bool,
}

impl EnvelopeClient {
    /// Returns a client that is not connected yet.
    pub(crate) fn new(release: Release, facts: JsonFacts, role: Role, key: &str) -> Self {
        let pinged = release.keepalive() != Keepalive::None;
        let awaits_answer = facts.confirmation != Confirmation::None;
        EnvelopeClient { facts, pinged, role, key: key.to_owned(), awaits_answer }
    }

    /// Returns true for sigver 7.0 and 7.1, which answer no request.
    fn is_unanswered(&self) -> bool {
        self.facts.confirmation == Confirmation::None
    }

    /// Returns what the answer to the first message means, if `object` is one.
    fn decode_answer(&self, object: &Map<String, Value>) -> Option<ClientEvent> {
        let flag = |name: &str| object.get(name).and_then(Value::as_bool);
        let first = match self.facts.confirmation {
            Confirmation::None => return None,
            Confirmation::IsKeyOk => match flag("isKeyOk")? {
                true => self.role == Role::Member,
                false => return Some(ClientEvent::Rejected("isKeyOk: false".to_owned())),
            },
            Confirmation::Opened => flag("opened")?,
            Confirmation::FirstOpener | Confirmation::AnyOpener => flag("first")?,
        };
        Some(if first { ClientEvent::BecameMember } else { ClientEvent::LinkedToMember })
    }

    fn on_object(&mut self, mut object: Map<String, Value>, frame: &str) -> Vec<ClientAction> {
        if object.get("ping").is_some() {
            if self.pinged {
                return vec![
                    ClientAction::Send(text_frame(&json!({"pong": true}))),
                    ClientAction::Report(ClientEvent::HeartbeatRequest),
                ];
            }
            return vec![unexpected(format!("unknown: {frame}"))];
        }
        if self.awaits_answer {
            return match self.decode_answer(&object) {
                Some(event) => {
                    self.awaits_answer = false;
                    vec![ClientAction::Report(event)]
                }
                // The client's promise is rejected (netflux 0.10.8 to 1.0.0-rc.14, measured).
                None => vec![unexpected(format!("no answer: {frame}"))],
            };
        }
        let id = object.remove("id");
        match (self.role, id, object.remove("data"), object.remove("unavailable")) {
            (Role::Member, Some(id), Some(data), _) => {
                received(Some(JoinerId(id)), ReceivedMessage::from_json(data))
            }
            (Role::Joiner, _, Some(data), _) => received(None, ReceivedMessage::from_json(data)),
            // An opener closes on a frame without either, and a joiner rejects it (netflux 0.10.3, measured).
            (Role::Member, ..) if self.is_unanswered() => {
                vec![unexpected(format!("unknown: {frame}")), ClientAction::Close(None)]
            }
            (Role::Joiner, ..) if self.is_unanswered() => {
                vec![unexpected(format!("unknown: {frame}"))]
            }
            (Role::Member, id, None, Some(left)) => {
                let from = Some(JoinerId(id.unwrap_or(left)));
                vec![ClientAction::Report(ClientEvent::PeerLeft { from })]
            }
            (Role::Joiner, _, None, Some(_)) => {
                vec![ClientAction::Report(ClientEvent::PeerLeft { from: None })]
            }
            // Other objects are ignored (measured).
            _ => Vec::new(),
        }
    }
}

impl SyntheticClient for EnvelopeClient {
    fn on_open(&mut self, first: Option<&TestMessage>) -> Vec<ClientAction> {
        let open = if self.facts.opens_by_key { "key" } else { "open" };
        let request = match (self.role, first.and_then(TestMessage::to_json)) {
            (Role::Member, _) => json!({open: self.key}),
            (Role::Joiner, Some(data)) if self.is_unanswered() => {
                json!({"join": self.key, "data": data})
            }
            (Role::Joiner, _) => json!({"join": self.key}),
        };
        vec![ClientAction::Send(text_frame(&request))]
    }

    fn on_text(&mut self, frame: &str) -> Vec<ClientAction> {
        match serde_json::from_str(frame) {
            Ok(Value::Object(object)) => self.on_object(object, frame),
            _ => vec![unexpected(format!("not an object: {frame}"))],
        }
    }

    fn on_binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        vec![unexpected(format!("{} bytes instead of a text", bytes.len()))]
    }

    fn encode(&mut self, to: Option<&JoinerId>, message: &TestMessage) -> Option<ClientFrame> {
        let data = message.to_json()?;
        Some(text_frame(&match to {
            Some(JoinerId(id)) => json!({"id": id, "data": data}),
            None => json!({ "data": data }),
        }))
    }
}
