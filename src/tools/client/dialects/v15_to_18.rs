//! A client of sigver 15 to 18: the server sends first. A frame that the client cannot decode makes it close.

use super::{ClientAction, ClientEvent, ClientFrame, JoinerId, Role, SyntheticClient, received, unexpected};
use crate::protocol::dialect::{ContentLayout, Release};
use crate::tools::client::message::{ReceivedMessage, TestMessage};
use crate::tools::protobuf::{FieldType, FieldValue, KnownFields, Schema, decode, delimited, number};

const NUMBER: FieldType = FieldType::Number;
const CONTENT_15_0: Schema = &[(1, NUMBER), (2, NUMBER), (3, FieldType::Bytes), (4, NUMBER)];
const CONTENT_15_1: Schema = &[(1, NUMBER), (2, FieldType::Bytes), (3, NUMBER), (4, NUMBER)];
const FLAGS: [(u32, FieldType); 4] = [(2, NUMBER), (3, NUMBER), (4, NUMBER), (5, NUMBER)];
const V15_0: Schema = &[(1, FieldType::Message(CONTENT_15_0)), FLAGS[0], FLAGS[1], FLAGS[2], FLAGS[3]];
const V16: Schema = &[(1, FieldType::Message(CONTENT_15_1)), FLAGS[0], FLAGS[1], FLAGS[2]];
/// The fields of 15.1 are the same, under other names.
const V18: Schema = &[(1, FieldType::Message(CONTENT_15_1)), FLAGS[0], FLAGS[1], FLAGS[2], FLAGS[3]];

/// An empty candidate, by which clients of 15.0 end their messages (netflux 1.1.0-beta.8, measured).
const LAST_CANDIDATE: [u8; 4] = [0x22, 2, 0x0a, 0];

/// Fields of a message that differ between the releases.
#[derive(Clone, Copy, Debug)]
struct Fields {
    /// `joined` or `stable`.
    joined: u32,
    /// `ping` or `heartbeat`.
    ping: u32,
    pong: u32,
}

const FIELDS: Fields = Fields { joined: 3, ping: 4, pong: 5 };
const FIELDS_15_0_0: Fields = Fields { joined: 5, ping: 3, pong: 4 };

/// A client of sigver 15 to 18.
#[derive(Debug)]
pub(crate) struct V1Client {
    role: Role,
    /// Contents are those of 15.0.
    has_content_15_0: bool,
    /// The client answers pings, and sends no heartbeats.
    has_pong: bool,
    schema: Schema,
    fields: Fields,
    is_member: bool,
    /// The client pings the server when it connects (netflux 1.2.0-beta.1 to 2.0.3).
    pings: bool,
    awaits_pong: bool,
}

impl V1Client {
    /// Returns a client that is not connected yet.
    pub(crate) fn new(release: Release, role: Role) -> Self {
        let has_content_15_0 = release.dialect().content_layout() == Some(ContentLayout::V15_0);
        let has_pong = release.pings();
        let schema = match (has_content_15_0, has_pong || release.has_try_another()) {
            (true, _) => V15_0,
            (false, true) => V18,
            (false, false) => V16,
        };
        V1Client {
            role,
            has_content_15_0,
            has_pong,
            schema,
            fields: if release == Release::V15_0_0 { FIELDS_15_0_0 } else { FIELDS },
            is_member: false,
            pings: false,
            awaits_pong: false,
        }
    }

    /// Returns the client, which pings the server when it connects.
    pub(crate) fn with_pings(self) -> Self {
        V1Client { pings: true, ..self }
    }

    fn on_content(&self, content: &KnownFields) -> Vec<ClientAction> {
        let from = (self.role == Role::Member).then(|| JoinerId::from_number(content.number(1)));
        let end = |from| vec![ClientAction::Report(ClientEvent::End { from })];
        let left = |from| vec![ClientAction::Report(ClientEvent::PeerLeft { from })];
        if self.has_content_15_0 {
            let data = content.bytes(3);
            return match () {
                () if content.number(4) != 0 => left(from),
                () if data.is_empty() || data == LAST_CANDIDATE => end(from),
                () => received(from, ReceivedMessage::from_bytes(data)),
            };
        }
        match content.0.last() {
            Some((2, FieldValue::Bytes(data))) => received(from, ReceivedMessage::from_bytes(data)),
            Some((3, _)) => left(from),
            Some((4, _)) => end(from),
            _ => vec![unexpected(format!("an empty content: {content:?}"))],
        }
    }

    fn content_frame(to: Option<&JoinerId>, fields: &[u8]) -> ClientFrame {
        // A joiner writes no id (netflux, measured).
        let id = to.map(|id| number(1, id.number())).unwrap_or_default();
        ClientFrame::Binary(delimited(1, &[&id, fields].concat()))
    }
}

impl SyntheticClient for V1Client {
    fn on_open(&mut self, _first: Option<&TestMessage>) -> Vec<ClientAction> {
        self.awaits_pong = self.pings;
        self.pings.then(|| ClientAction::Send(flag(self.fields.ping))).into_iter().collect()
    }

    /// Ignores the frame (measured).
    fn on_text(&mut self, _text: &str) -> Vec<ClientAction> {
        Vec::new()
    }

    fn on_binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        let Some(message) = decode(bytes, self.schema) else {
            return vec![
                unexpected(format!("cannot be decoded: {bytes:02x?}")),
                ClientAction::Close(Some(4010)),
            ];
        };
        let Fields { ping, pong, .. } = self.fields;
        match message.0.last() {
            Some((1, FieldValue::Message(content))) => self.on_content(content),
            Some((2, FieldValue::Number(0))) => vec![ClientAction::Report(ClientEvent::LinkedToMember)],
            Some((2, _)) if !std::mem::replace(&mut self.is_member, true) => {
                vec![ClientAction::Report(ClientEvent::BecameMember)]
            }
            Some((field, _)) if *field == ping && self.has_pong => {
                vec![ClientAction::Send(flag(pong)), ClientAction::Report(ClientEvent::HeartbeatRequest)]
            }
            Some((field, _)) if *field == ping => vec![ClientAction::Report(ClientEvent::HeartbeatRequest)],
            Some((field, _)) if *field == pong && self.pings && !std::mem::take(&mut self.awaits_pong) => {
                vec![unexpected("a pong without a ping")]
            }
            _ => Vec::new(),
        }
    }

    fn encode(&mut self, to: Option<&JoinerId>, message: &TestMessage) -> Option<ClientFrame> {
        let data = message.bytes();
        let fields = if self.has_content_15_0 {
            // These clients always write whether this is the end.
            [number(2, 0), delimited(3, &data)].concat()
        } else {
            delimited(2, &data)
        };
        Some(V1Client::content_frame(to, &fields))
    }

    fn encode_end(&mut self, to: Option<&JoinerId>) -> Option<ClientFrame> {
        let fields = if self.has_content_15_0 {
            [number(2, 1), delimited(3, &LAST_CANDIDATE)].concat()
        } else {
            number(4, 1)
        };
        Some(V1Client::content_frame(to, &fields))
    }

    fn encode_joined(&mut self) -> Option<ClientFrame> {
        Some(flag(self.fields.joined))
    }

    fn heartbeat(&self) -> Option<ClientFrame> {
        (!self.has_pong).then(|| flag(self.fields.ping))
    }
}

/// Returns a message of one field that is true.
fn flag(field: u32) -> ClientFrame {
    ClientFrame::Binary(number(field, 1))
}
