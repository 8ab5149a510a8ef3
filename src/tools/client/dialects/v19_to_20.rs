//! A client of sigver 19 or 20: it speaks first, and ignores what it cannot decode.

use super::{Client, ClientAction, ClientEvent, Frame, Id, Role, parcel, strange};
use crate::protocol::dialect::Dialect;
use crate::tools::client::message::{ReceivedMessage, TestMessage};
use crate::tools::client::protobuf::{Fields, Kind, Schema, Value, decode, delimited, number};

const CONTENT_C: Schema = &[(1, Kind::Number), (2, Kind::Number), (3, Kind::Bytes)];
const CONTENT_D: Schema = &[(1, Kind::Number), (2, Kind::Number), (3, Kind::Number), (4, Kind::Bytes)];
const GROUP: Schema = &[(1, Kind::Number), (2, Kind::Number)];
const V19: Schema =
    &[(1, Kind::Number), (2, Kind::Message(CONTENT_C)), (3, Kind::Message(GROUP)), (4, Kind::Number)];
const V20: Schema =
    &[(1, Kind::Number), (2, Kind::Message(CONTENT_D)), (3, Kind::Message(GROUP)), (4, Kind::Number)];

/// The client.
#[derive(Debug)]
pub struct Current {
    dialect: Dialect,
    role: Role,
    /// Connects without an answer.
    asked: u32,
    member: bool,
}

impl Current {
    /// A client that connects.
    pub fn new(dialect: Dialect, role: Role) -> Self {
        Current { dialect, role, asked: 0, member: false }
    }

    fn id(&self) -> u32 {
        match self.role {
            Role::Member => 11,
            Role::Joiner => 300_000_012,
        }
    }

    fn connect(&mut self) -> ClientAction {
        self.asked += 1;
        ClientAction::Send(Frame::Binary(delimited(3, &number(1, self.id()))))
    }

    fn connected(&mut self, connected: bool) -> Vec<ClientAction> {
        if self.asked == 0 {
            return vec![strange("an answer to no question")];
        }
        self.asked -= 1;
        match connected {
            false => vec![ClientAction::Hear(ClientEvent::Bound)],
            true if self.member => Vec::new(),
            true => {
                // The group is made, and says so once more (netflux 4.3, measured).
                self.member = true;
                vec![ClientAction::Hear(ClientEvent::Member), self.connect()]
            }
        }
    }

    fn content(&self, content: &Fields) -> Vec<ClientAction> {
        let (data, ids) = match self.dialect {
            Dialect::Sigver19 => (content.bytes(3), content.number(1)),
            _ => (content.bytes(4), content.number(1).max(content.number(2))),
        };
        if ids == 0 {
            // It is nobody's.
            return Vec::new();
        }
        let from = (self.role == Role::Member).then(|| Id::number(content.number(1)));
        match data {
            [] => vec![ClientAction::Hear(ClientEvent::Gone { from })],
            data => parcel(from, ReceivedMessage::of_bytes(data)),
        }
    }
}

impl Client for Current {
    fn opened(&mut self, _first: Option<&TestMessage>) -> Vec<ClientAction> {
        vec![self.connect()]
    }

    /// Ignored (measured).
    fn text(&mut self, _text: &str) -> Vec<ClientAction> {
        Vec::new()
    }

    fn binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        let schema = if self.dialect == Dialect::Sigver19 { V19 } else { V20 };
        let Some(message) = decode(bytes, schema) else { return Vec::new() };
        match message.0.last() {
            Some((1, _)) => vec![ClientAction::Hear(ClientEvent::Beat)],
            Some((2, Value::Message(content))) => self.content(content),
            Some((4, Value::Number(connected))) => self.connected(*connected != 0),
            _ => Vec::new(),
        }
    }

    fn say(&mut self, to: Option<&Id>, parcel: &TestMessage) -> Option<Frame> {
        let data = parcel.bytes();
        let (from, to) = to.map_or((self.id(), 0), |to| (0, to.as_number()));
        // The last field of each message is always written (netflux, measured).
        let content = match self.dialect {
            Dialect::Sigver19 => [number(1, from.max(to)), number(2, 0), delimited(3, &data)].concat(),
            _ => [number(1, from), number(2, to), number(3, 0), delimited(4, &data)].concat(),
        };
        Some(Frame::Binary(delimited(2, &content)))
    }

    fn beat(&self) -> Option<Frame> {
        Some(Frame::Binary(vec![0x08, 1]))
    }
}
