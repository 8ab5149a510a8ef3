//! Synthetic clients, one of each dialect: small state machines that say what a real client says, and make of what
//! comes what the real ones were measured to, also of what was not meant for them. No sockets, tasks or clocks here.

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
use crate::protocol::dialect::{Dialect, Family};

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To be the first, the opener.
    Member,
    /// To be bound to a member.
    Joiner,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

/// What a client does of its own accord when something comes.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientAction {
    /// It sends something.
    Send(Frame),
    /// It understands something.
    Hear(ClientEvent),
    /// It closes, with this code if any.
    Close(Option<u16>),
}

/// What a client understands.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// It is a member now.
    Member,
    /// It is bound to a member.
    Bound,
    /// It may not come in.
    Refused(String),
    /// Somebody joins.
    Arrival,
    /// Something from another.
    TestMessage {
        /// From whom, as a member knows its joiners.
        from: Option<Id>,
        /// What.
        got: ReceivedMessage,
    },
    /// The other has nothing more to say.
    End {
        /// Who.
        from: Option<Id>,
    },
    /// The other has left.
    Gone {
        /// Who.
        from: Option<Id>,
    },
    /// The server asks whether it is there.
    Beat,
    /// What a real client would not survive, or take for an error.
    Strange(String),
    /// Everything that was sent before was read by the server.
    Fence,
    /// The connection has ended, with this code and reason.
    Closed(Option<u16>, String),
}

/// What a member calls a joiner, as the server called it.
#[derive(Clone, Debug, PartialEq)]
pub struct Id(pub Value);

/// A client.
pub trait Client: Send {
    /// The connection is open. A joiner whose request to join carries data sends this.
    fn opened(&mut self, first: Option<&TestMessage>) -> Vec<ClientAction>;

    /// A text comes.
    fn text(&mut self, text: &str) -> Vec<ClientAction>;

    /// Bytes come.
    fn binary(&mut self, bytes: &[u8]) -> Vec<ClientAction>;

    /// How it says this to the other, a member to one of its joiners; `None` if it has no words for it.
    fn say(&mut self, to: Option<&Id>, parcel: &TestMessage) -> Option<Frame>;

    /// How it says that it has nothing more to say.
    fn end(&mut self, _to: Option<&Id>) -> Option<Frame> {
        None
    }

    /// What it says every five seconds.
    fn beat(&self) -> Option<Frame> {
        None
    }
}

/// A client of this kind, for the room of this key.
pub fn client(tongue: Protocol, role: Role, key: &str) -> Box<dyn Client> {
    let Protocol::Sigver(dialect) = tongue else { return Box::new(signaller::Relay) };
    match (dialect.family(), dialect) {
        (Family::ProtobufV1, _) => Box::new(v15_to_18::V1::new(dialect, role)),
        (Family::ProtobufV2, _) => Box::new(v19_to_20::Current::new(dialect, role)),
        (Family::Json, Dialect::Sigver1 | Dialect::Sigver4 | Dialect::Sigver5) => {
            Box::new(v1_to_5::Indexed::new(dialect, role, key))
        }
        (Family::Json, Dialect::Sigver6) => Box::new(v6::Sigver6::new(role, key)),
        (Family::Json, _) => Box::new(v7_to_14::Envelope::new(dialect, role, key)),
    }
}

/// The path that a client of this kind connects to.
pub fn path(tongue: Protocol, role: Role, key: &str) -> String {
    match (tongue, role) {
        (Protocol::Signaller, Role::Member) => format!("/listen/{key}"),
        (Protocol::Signaller, Role::Joiner) => format!("/connect/{key}"),
        _ if tongue.is_json() => "/".to_owned(),
        _ => format!("/{key}"),
    }
}

impl Id {
    /// A number.
    pub fn number(number: u32) -> Self {
        Id(number.into())
    }

    /// The number it is, or 0.
    fn as_number(&self) -> u32 {
        self.0.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
    }
}

fn text(value: &Value) -> Frame {
    Frame::Text(value.to_string())
}

fn strange(what: impl Into<String>) -> ClientAction {
    ClientAction::Hear(ClientEvent::Strange(what.into()))
}

fn parcel(from: Option<Id>, got: ReceivedMessage) -> Vec<ClientAction> {
    if got.is_empty() {
        return Vec::new();
    }
    vec![ClientAction::Hear(ClientEvent::TestMessage { from, got })]
}
