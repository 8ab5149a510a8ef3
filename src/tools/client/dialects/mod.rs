//! Synthetic clients, one for each dialect: small state machines that send what a real client sends, and
//! react to what they receive as the real ones were measured to, also to what was not meant for them. No
//! sockets, tasks or clocks.

mod signaller;
#[cfg(test)]
mod tests;
mod v15_to_18;
mod v19_to_20;
mod v1_to_5;
mod v6;
mod v7_to_14;

use serde_json::Value;

use super::message::{ReceivedMessage, TestMessage};
use super::protocol::Protocol;
use crate::protocol::dialect::{Family, JsonCodec, Release};

/// The role that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first in the room.
    Member,
    /// A client that is to be linked to a member.
    Joiner,
}

/// A data frame that a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame {
    /// A text frame.
    Text(String),
    /// A binary frame.
    Binary(Vec<u8>),
}

/// A client's reaction to what it received.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientAction {
    /// The client sends a frame.
    Send(ClientFrame),
    /// The client reports an event to its application.
    Report(ClientEvent),
    /// The client closes the connection, with a code if any.
    Close(Option<u16>),
}

/// An event that a client reports.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// The client is a member now.
    BecameMember,
    /// The client is linked to a member.
    LinkedToMember,
    /// The client is rejected, with this reason.
    Rejected(String),
    /// A joiner asks to join.
    JoinerArrived,
    /// A message from the other client.
    Message {
        /// The sender, at a member.
        from: Option<JoinerId>,
        /// The message.
        message: ReceivedMessage,
    },
    /// The other client sends nothing more.
    End {
        /// The sender, at a member.
        from: Option<JoinerId>,
    },
    /// The other client has left.
    PeerLeft {
        /// The client that left, at a member.
        from: Option<JoinerId>,
    },
    /// A heartbeat of the server.
    HeartbeatRequest,
    /// Something that would end a real client, or that it would report as an error.
    Unexpected(String),
    /// The server has read everything that was sent before.
    Synced,
    /// The connection was closed, with this code and reason.
    Closed(Option<u16>, String),
}

/// The name of a joiner at its member, as the server gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinerId(pub Value);

/// A client of one dialect.
pub trait SyntheticClient: Send {
    /// Handles the opening of the connection. `first` is the message that a joiner sends with its request to
    /// join, if its dialect has that.
    fn on_open(&mut self, first: Option<&TestMessage>) -> Vec<ClientAction>;

    /// Handles a text frame.
    fn on_text(&mut self, text: &str) -> Vec<ClientAction>;

    /// Handles a binary frame.
    fn on_binary(&mut self, bytes: &[u8]) -> Vec<ClientAction>;

    /// Encodes a message to the other client, a member's to the joiner `to`; `None` if the dialect cannot
    /// express it.
    fn encode(&mut self, to: Option<&JoinerId>, message: &TestMessage) -> Option<ClientFrame>;

    /// Encodes that nothing more follows; `None` if the dialect cannot express it.
    fn encode_end(&mut self, _to: Option<&JoinerId>) -> Option<ClientFrame> {
        None
    }

    /// Encodes that a joiner has reached the group through its member; `None` if the dialect cannot express
    /// it.
    fn encode_joined(&mut self) -> Option<ClientFrame> {
        None
    }

    /// Encodes the heartbeat that the client sends every five seconds; `None` if it sends none.
    fn heartbeat(&self) -> Option<ClientFrame> {
        None
    }
}

/// Returns a client of this protocol and role for the room `key`.
pub fn new_client(protocol: Protocol, role: Role, key: &str) -> Box<dyn SyntheticClient> {
    match protocol {
        Protocol::Sigver(dialect) => new_client_of(dialect.release(), role, key),
        Protocol::Signaller => Box::new(signaller::SignallerClient),
    }
}

/// Returns a client of this release and role for the room `key`.
pub fn new_client_of(release: Release, role: Role, key: &str) -> Box<dyn SyntheticClient> {
    if let Some(facts) = release.json() {
        return match facts.codec {
            JsonCodec::V1To5 => Box::new(v1_to_5::IndexedClient::new(release.dialect(), role, key)),
            JsonCodec::V6 => Box::new(v6::Sigver6Client::new(role, key)),
            JsonCodec::V7To14 => Box::new(v7_to_14::EnvelopeClient::new(release, *facts, role, key)),
        };
    }
    match release.family() {
        Family::ProtobufV2 => Box::new(v19_to_20::V2Client::new(release.dialect(), role)),
        Family::ProtobufV1 | Family::Json => Box::new(v15_to_18::V1Client::new(release, role)),
    }
}

/// Returns a client of netflux 1.2.0-beta.1 to 2.0.3: one of sigver 15 that also pings the server, as soon as
/// it is connected.
pub fn new_pinging_client(role: Role) -> Box<dyn SyntheticClient> {
    Box::new(v15_to_18::V1Client::new(Release::V15_0_4, role).with_pings())
}

/// Returns the path that a client of this protocol and role connects to for the room `key`.
pub fn request_path(protocol: Protocol, role: Role, key: &str) -> String {
    match (protocol, role) {
        (Protocol::Signaller, Role::Member) => format!("/listen/{key}"),
        (Protocol::Signaller, Role::Joiner) => format!("/connect/{key}"),
        _ if protocol.is_json() => "/".to_owned(),
        _ => format!("/{key}"),
    }
}

impl JoinerId {
    /// Returns a numeric id.
    pub fn from_number(number: u32) -> Self {
        JoinerId(number.into())
    }

    /// Returns the number that the id is, or 0.
    fn number(&self) -> u32 {
        self.0.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
    }
}

fn text_frame(value: &Value) -> ClientFrame {
    ClientFrame::Text(value.to_string())
}

fn unexpected(what: impl Into<String>) -> ClientAction {
    ClientAction::Report(ClientEvent::Unexpected(what.into()))
}

fn received(from: Option<JoinerId>, message: ReceivedMessage) -> Vec<ClientAction> {
    if message.is_empty() {
        return Vec::new();
    }
    vec![ClientAction::Report(ClientEvent::Message { from, message })]
}
