//! The synthetic clients of `sigver::tools::client` with an application on top: a joiner sends an offer, a
//! member answers it, and each logs what happens to it.

use sigver::protocol::dialect::{Dialect, Family, Release};
use sigver::tools::client::dialects::{
    ClientAction, ClientEvent, ClientFrame, JoinerId, Role, SyntheticClient, new_client, new_client_of,
    new_pinging_client,
};
use sigver::tools::client::message::{MessageBody, MessageKind, ReceivedMessage, TestMessage};
use sigver::tools::client::protocol::Protocol;
use sigver::tools::protobuf::{FieldType, Schema, decode, delimited, number};

use Dialect::{Sigver5, Sigver15, Sigver16, Sigver18, Sigver19, Sigver20};

/// One dialect of each kind that a client may have been slow to show.
pub const DIALECTS: [Dialect; 6] = [Sigver5, Sigver15, Sigver16, Sigver18, Sigver19, Sigver20];

/// An event in a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientStep {
    /// The client is the first in the room.
    BecameMember,
    /// The client is linked to a member.
    LinkedToMember,
    /// The client was notified of a joiner.
    JoinerArrived,
    Offer,
    Answer,
    /// The other client sends nothing more.
    End,
    /// The other client has left.
    PeerLeft,
    /// The client joined the group, and the server knows.
    JoinedGroup,
    /// The server has received all that the client sent before it asked.
    Synced,
    /// An event that no client should have to see.
    Failed(String),
}

/// A client and its application.
pub struct Client {
    pub dialect: Dialect,
    role: Role,
    client: Box<dyn SyntheticClient>,
    is_joining: bool,
    pub steps: Vec<ClientStep>,
    /// Frames to send and closes, in order; no reports.
    pub actions: Vec<ClientAction>,
}

const OFFER: &str = "this is the offer";
const ANSWER: &str = "this is the answer";

/// The empty candidate by which clients of sigver 15 end their messages; clients of sigver 5 receive it as
/// bytes.
const LAST_CANDIDATE: [u8; 4] = [0x22, 2, 0x0a, 0];

/// The netflux message in a payload.
const PAYLOAD: Schema =
    &[(1, FieldType::Number), (2, FieldType::Number), (3, FieldType::Number), (4, FieldType::Bytes)];

/// Number of the netflux service that a payload is for; the real clients have no such service.
const SERVICE: u32 = 999;

impl Client {
    pub fn new(dialect: Dialect, role: Role, key: &str) -> Self {
        Client {
            dialect,
            role,
            client: new_client(Protocol::Sigver(dialect), role, key),
            is_joining: false,
            steps: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// Returns a client of this release.
    pub fn of_release(release: Release, role: Role, key: &str) -> Self {
        Client { client: new_client_of(release, role, key), ..Client::new(release.dialect(), role, key) }
    }

    /// Returns a client of netflux 1.2.0-beta.1 to 2.0.3.
    pub fn pinging(role: Role) -> Self {
        Client { client: new_pinging_client(role), ..Client::new(Sigver15, role, "") }
    }

    /// Handles the opening of the connection, as the library learns of it.
    pub fn open(&mut self) {
        let actions = self.client.on_open(None);
        self.handle(actions);
        if (self.dialect, self.role) == (Sigver5, Role::Joiner) {
            self.send(None, OFFER);
        }
    }

    /// Handles a text frame.
    pub fn text(&mut self, text: &str) {
        let actions = self.client.on_text(text);
        self.handle(actions);
    }

    /// Handles a binary frame. Clients of sigver 5 read text only: an error without consequences.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.dialect != Sigver5 {
            let actions = self.client.on_binary(bytes);
            self.handle(actions);
        }
    }

    /// Returns the heartbeat that the client sends every five seconds, if any.
    pub fn heartbeat(&self) -> Option<ClientFrame> {
        self.client.heartbeat()
    }

    fn handle(&mut self, actions: Vec<ClientAction>) {
        for action in actions {
            match action {
                ClientAction::Report(event) => self.react(event),
                action => self.actions.push(action),
            }
        }
    }

    fn react(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::BecameMember
                if is_protobuf_v2(self.dialect) && std::mem::take(&mut self.is_joining) =>
            {
                self.steps.push(ClientStep::JoinedGroup);
            }
            ClientEvent::BecameMember => self.steps.push(ClientStep::BecameMember),
            ClientEvent::LinkedToMember => {
                self.steps.push(ClientStep::LinkedToMember);
                self.send(None, OFFER);
            }
            ClientEvent::JoinerArrived => self.steps.push(ClientStep::JoinerArrived),
            ClientEvent::Message { from, message } => self.receive(from.as_ref(), &message),
            ClientEvent::End { .. } => self.steps.push(ClientStep::End),
            ClientEvent::PeerLeft { .. } if self.role == Role::Member => {
                self.steps.push(ClientStep::PeerLeft)
            }
            ClientEvent::HeartbeatRequest => {
                if self.dialect == Sigver15 && std::mem::take(&mut self.is_joining) {
                    self.steps.push(ClientStep::JoinedGroup);
                }
            }
            other => self.steps.push(ClientStep::Failed(format!("{other:?}"))),
        }
    }

    fn receive(&mut self, from: Option<&JoinerId>, message: &ReceivedMessage) {
        if let MessageBody::Bytes(bytes) = &message.body {
            // netflux drops messages that it cannot decode and those for no service. A client of sigver 19 or
            // 20 does so with a frame of another dialect that happens to be a frame of its own.
            let is_dropped = is_protobuf_v2(self.dialect)
                && decode(bytes, PAYLOAD).is_none_or(|payload| payload.number(3) != SERVICE);
            if is_dropped || *bytes == LAST_CANDIDATE {
                return;
            }
        }
        if message.body.contains(OFFER.as_bytes()) {
            self.steps.push(ClientStep::Offer);
            if self.dialect == Sigver5 && from.is_none() {
                return self.steps.push(ClientStep::Failed("an offer without an index".to_owned()));
            }
            self.send(from, ANSWER);
            let end = self.client.encode_end(from);
            self.actions.extend(end.map(ClientAction::Send));
        } else if message.body.contains(ANSWER.as_bytes()) {
            self.steps.push(ClientStep::Answer);
            self.is_joining = true;
            let frames = [self.client.encode_end(None), self.client.encode_joined()];
            self.actions.extend(frames.into_iter().flatten().map(ClientAction::Send));
        } else {
            self.steps.push(ClientStep::Failed(format!("unknown message: {message:?}")));
        }
    }

    /// Sends a text: clients of sigver 5 in JSON, the others in a netflux message.
    fn send(&mut self, to: Option<&JoinerId>, text: &str) {
        let sender = if self.role == Role::Member { 11 } else { 300_000_012 };
        let recipient = to.and_then(|to| to.0.as_u64()).and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        let (from, to_id) = match to {
            Some(_) if is_protobuf_v2(self.dialect) => (0, recipient),
            _ => (sender, 0),
        };
        let message = match self.dialect {
            Sigver5 => TestMessage::new(MessageKind::Json, text),
            _ => TestMessage::from_bytes(
                [number(1, from), number(2, to_id), number(3, SERVICE), delimited(4, text.as_bytes())]
                    .concat(),
            ),
        };
        let frame = self.client.encode(to, &message);
        self.actions.extend(frame.map(ClientAction::Send));
    }
}

/// Returns true for the dialects whose clients send first, in protobuf.
pub fn is_protobuf_v2(dialect: Dialect) -> bool {
    dialect.family() == Family::ProtobufV2
}
