//! A client of sigver 19 or newer: the client sends first, and ignores what it cannot decode.

use super::{ClientAction, ClientEvent, ClientFrame, JoinerId, Role, SyntheticClient, received, unexpected};
use crate::protocol::dialect::{ContentLayout, Dialect};
use crate::tools::client::message::{ReceivedMessage, TestMessage};
use crate::tools::protobuf::{FieldType, FieldValue, KnownFields, Schema, decode, delimited, number};

const NUMBER: FieldType = FieldType::Number;
/// Fields of a content of sigver 19.
const CONTENT_19: Schema = &[(1, NUMBER), (2, NUMBER), (3, FieldType::Bytes)];
/// Fields of a content of sigver 20.
const CONTENT_20: Schema = &[(1, NUMBER), (2, NUMBER), (3, NUMBER), (4, FieldType::Bytes)];
const GROUP: Schema = &[(1, NUMBER), (2, NUMBER)];

/// Field numbers of a dialect.
#[derive(Debug)]
struct Fields {
    message: Schema,
    /// Fields of a content: the ids, the mark of the last one, and the data.
    ids: &'static [u32],
    last: u32,
    data: u32,
}

const V19: Fields = Fields {
    message: &[(1, NUMBER), (2, FieldType::Message(CONTENT_19)), (3, FieldType::Message(GROUP)), (4, NUMBER)],
    ids: &[1],
    last: 2,
    data: 3,
};

const V20: Fields = Fields {
    message: &[(1, NUMBER), (2, FieldType::Message(CONTENT_20)), (3, FieldType::Message(GROUP)), (4, NUMBER)],
    ids: &[1, 2],
    last: 3,
    data: 4,
};

/// Returns the field numbers of a dialect, by the layout of its contents.
fn fields(dialect: Dialect) -> &'static Fields {
    match dialect.content_layout() {
        Some(ContentLayout::V19) => &V19,
        // Older dialects have clients of their own.
        None | Some(ContentLayout::V15_0 | ContentLayout::V15_1 | ContentLayout::V20) => &V20,
    }
}

/// netflux id of members.
const MEMBER_ID: u8 = 11;
/// netflux id of joiners.
const JOINER_ID: u32 = 300_000_012;

/// A client of sigver 19 or newer.
#[derive(Debug)]
pub(crate) struct V2Client {
    fields: &'static Fields,
    role: Role,
    /// Number of `connect` messages without an answer.
    unanswered: u32,
    is_member: bool,
    /// True while the answer to [`encode_joined`](SyntheticClient::encode_joined) has not arrived.
    is_joining: bool,
}

impl V2Client {
    /// Returns a client that is not connected yet.
    pub(crate) fn new(dialect: Dialect, role: Role) -> Self {
        V2Client { fields: fields(dialect), role, unanswered: 0, is_member: false, is_joining: false }
    }

    fn id(&self) -> u32 {
        match self.role {
            Role::Member => MEMBER_ID.into(),
            Role::Joiner => JOINER_ID,
        }
    }

    /// Returns a `connect` with the ids of these members.
    fn connect(&mut self, members: &[u8]) -> ClientFrame {
        self.unanswered += 1;
        let members = if members.is_empty() { Vec::new() } else { delimited(2, members) };
        ClientFrame::Binary(delimited(3, &[number(1, self.id()), members].concat()))
    }

    fn on_connected(&mut self, connected: bool) -> Vec<ClientAction> {
        if self.unanswered == 0 {
            return vec![unexpected("an answer to no question")];
        }
        self.unanswered -= 1;
        match connected {
            true if std::mem::take(&mut self.is_joining) => {
                self.is_member = true;
                vec![ClientAction::Report(ClientEvent::BecameMember)]
            }
            false if self.is_joining => {
                vec![unexpected("the server does not accept that the client has joined")]
            }
            false => vec![ClientAction::Report(ClientEvent::LinkedToMember)],
            true if self.is_member => Vec::new(),
            true => {
                // A client that made a group sends `connect` once more (netflux 4.3, measured).
                self.is_member = true;
                let connect = self.connect(&[]);
                vec![ClientAction::Report(ClientEvent::BecameMember), ClientAction::Send(connect)]
            }
        }
    }

    fn on_content(&self, content: &KnownFields) -> Vec<ClientAction> {
        if self.fields.ids.iter().all(|id| content.number(*id) == 0) {
            // A content without an id belongs to no link.
            return Vec::new();
        }
        let from = (self.role == Role::Member).then(|| JoinerId::from_number(content.number(1)));
        match content.bytes(self.fields.data) {
            [] => vec![ClientAction::Report(ClientEvent::PeerLeft { from })],
            data => received(from, ReceivedMessage::from_bytes(data)),
        }
    }
}

impl SyntheticClient for V2Client {
    fn on_open(&mut self, _first: Option<&TestMessage>) -> Vec<ClientAction> {
        vec![ClientAction::Send(self.connect(&[]))]
    }

    /// Ignores the frame (measured).
    fn on_text(&mut self, _text: &str) -> Vec<ClientAction> {
        Vec::new()
    }

    fn on_binary(&mut self, bytes: &[u8]) -> Vec<ClientAction> {
        let Some(message) = decode(bytes, self.fields.message) else { return Vec::new() };
        match message.0.last() {
            Some((1, _)) => vec![ClientAction::Report(ClientEvent::HeartbeatRequest)],
            Some((2, FieldValue::Message(content))) => self.on_content(content),
            Some((4, FieldValue::Number(connected))) => self.on_connected(*connected != 0),
            _ => Vec::new(),
        }
    }

    fn encode(&mut self, to: Option<&JoinerId>, message: &TestMessage) -> Option<ClientFrame> {
        let data = message.bytes();
        let (from, to) = to.map_or((self.id(), 0), |to| (0, to.number()));
        // The last field of each message is always written (netflux, measured).
        let ids = match self.fields.ids {
            [id] => number(*id, from.max(to)),
            ids => ids.iter().zip([from, to]).flat_map(|(field, id)| number(*field, id)).collect(),
        };
        let content = [ids, number(self.fields.last, 0), delimited(self.fields.data, &data)].concat();
        Some(ClientFrame::Binary(delimited(2, &content)))
    }

    fn encode_joined(&mut self) -> Option<ClientFrame> {
        self.is_joining = true;
        Some(self.connect(&[MEMBER_ID]))
    }

    fn heartbeat(&self) -> Option<ClientFrame> {
        Some(ClientFrame::Binary(vec![0x08, 1]))
    }
}
