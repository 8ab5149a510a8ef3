//! A client of sigver 15 to 18: it waits for the server's first word. A frame that it cannot decode is the end.

use super::{Client, ClientAction, ClientEvent, Frame, Id, Role, parcel, strange};
use crate::protocol::dialect::Dialect;
use crate::tools::client::message::{ReceivedMessage, TestMessage};
use crate::tools::client::protobuf::{Fields, Kind, Schema, Value, decode, delimited, number};

const CONTENT_A: Schema = &[(1, Kind::Number), (2, Kind::Bytes), (3, Kind::Number), (4, Kind::Number)];
const CONTENT_B: Schema = &[(1, Kind::Number), (2, Kind::Number), (3, Kind::Bytes), (4, Kind::Number)];
const FLAGS: [(u32, Kind); 4] = [(2, Kind::Number), (3, Kind::Number), (4, Kind::Number), (5, Kind::Number)];
const V15: Schema = &[(1, Kind::Message(CONTENT_B)), FLAGS[0], FLAGS[1], FLAGS[2], FLAGS[3]];
const V16: Schema = &[(1, Kind::Message(CONTENT_A)), FLAGS[0], FLAGS[1], FLAGS[2]];
const V18: Schema = &[(1, Kind::Message(CONTENT_A)), FLAGS[0], FLAGS[1], FLAGS[2], FLAGS[3]];

/// An empty candidate: the clients of 15.0 say so that there are no more (netflux 1.1.0-beta.8, measured).
const NO_MORE: [u8; 4] = [0x22, 2, 0x0a, 0];

/// The client.
#[derive(Debug)]
pub struct V1 {
    dialect: Dialect,
    role: Role,
    member: bool,
}

impl V1 {
    /// A client that connects.
    pub fn new(dialect: Dialect, role: Role) -> Self {
        V1 { dialect, role, member: false }
    }

    fn schema(&self) -> Schema {
        match self.dialect {
            Dialect::Sigver15 => V15,
            Dialect::Sigver16 => V16,
            // Fields as in 18, with other names for them.
            _ => V18,
        }
    }

    fn content(&self, content: &Fields) -> Vec<ClientAction> {
        let from = (self.role == Role::Member).then(|| Id::number(content.number(1)));
        let end = |from| vec![ClientAction::Hear(ClientEvent::End { from })];
        let gone = |from| vec![ClientAction::Hear(ClientEvent::Gone { from })];
        if self.dialect == Dialect::Sigver15 {
            let data = content.bytes(3);
            return match () {
                () if content.number(4) != 0 => gone(from),
                () if data.is_empty() || data == NO_MORE => end(from),
                () => parcel(from, ReceivedMessage::of_bytes(data)),
            };
        }
        match content.0.last() {
            Some((2, Value::Bytes(data))) => parcel(from, ReceivedMessage::of_bytes(data)),
            Some((3, _)) => gone(from),
            Some((4, _)) => end(from),
            _ => vec![strange(format!("a content without anything: {content:?}"))],
        }
    }

    fn message(to: Option<&Id>, fields: &[u8]) -> Frame {
        // A joiner writes no id (netflux, measured).
        let id = to.map(|id| number(1, id.as_number())).unwrap_or_default();
        Frame::Binary(delimited(1, &[&id, fields].concat()))
    }
}

impl Client for V1 {
    fn opened(&mut self, _first: Option<&TestMessage>) -> Vec<ClientAction> {
        Vec::new()
    }

    /// Ignored (measured).
    fn text(&mut self, _text: &str) -> Vec<ClientAction> {
        Vec::new()
    }

    fn binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        let Some(message) = decode(bytes, self.schema()) else {
            return vec![
                strange(format!("cannot be decoded: {bytes:02x?}")),
                ClientAction::Close(Some(4010)),
            ];
        };
        let pings = matches!(self.dialect, Dialect::Sigver15 | Dialect::Sigver15_1);
        match message.0.last() {
            Some((1, Value::Message(content))) => self.content(content),
            Some((2, Value::Number(0))) => vec![ClientAction::Hear(ClientEvent::Bound)],
            Some((2, _)) if !std::mem::replace(&mut self.member, true) => {
                vec![ClientAction::Hear(ClientEvent::Member)]
            }
            Some((4, _)) if pings => {
                vec![ClientAction::Send(Frame::Binary(vec![0x28, 1])), ClientAction::Hear(ClientEvent::Beat)]
            }
            Some((4, _)) => vec![ClientAction::Hear(ClientEvent::Beat)],
            _ => Vec::new(),
        }
    }

    fn say(&mut self, to: Option<&Id>, parcel: &TestMessage) -> Option<Frame> {
        let data = parcel.bytes();
        let fields = match self.dialect {
            // It always writes whether this is the end.
            Dialect::Sigver15 => [number(2, 0), delimited(3, &data)].concat(),
            _ => delimited(2, &data),
        };
        Some(V1::message(to, &fields))
    }

    fn end(&mut self, to: Option<&Id>) -> Option<Frame> {
        let fields = match self.dialect {
            Dialect::Sigver15 => [number(2, 1), delimited(3, &NO_MORE)].concat(),
            _ => number(4, 1),
        };
        Some(V1::message(to, &fields))
    }

    fn beat(&self) -> Option<Frame> {
        matches!(self.dialect, Dialect::Sigver16 | Dialect::Sigver18).then(|| Frame::Binary(vec![0x20, 1]))
    }
}
