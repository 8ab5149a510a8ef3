//! The protocols, and what each of them can express (measured on the Node.js servers). No messages
//! here.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::protocol::dialect::{Confirmation, Dialect, Family, JsonCodec, Keepalive};

/// A protocol that a client may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// A dialect of sigver.
    Sigver(Dialect),
    /// boramalper/signaller: a listener and a connector, paired by the path.
    Signaller,
}

/// The moment at which a client learns that the other has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepartureNotice {
    /// The protocol has no message for it.
    Never,
    /// At once.
    Immediate,
    /// On the next message to the client that has left.
    OnNextSend,
}

/// The capabilities of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolCapabilities {
    /// A member receives a confirmation that it is one.
    pub confirms_member: bool,
    /// A joiner receives a confirmation that it is linked to a member.
    pub confirms_joiner: bool,
    /// A member is notified of a joiner before the joiner's first message.
    pub announces_joiner: bool,
    /// A member's message names the joiner that it is for.
    pub addresses_joiner: bool,
    /// A joiner's first data is part of its request to join.
    pub joins_with_data: bool,
    /// A client is notified that the other sends nothing more.
    pub receives_end: bool,
    /// Notice to a member of a joiner that has left.
    pub joiner_departure: DepartureNotice,
    /// Notice to a joiner of a member that has left.
    pub member_departure: DepartureNotice,
    /// The server sends heartbeats to members.
    pub heartbeats_member: bool,
    /// The server sends heartbeats to joiners that have not reached the group yet.
    pub heartbeats_joiner: bool,
    /// Close code by which clients leave.
    pub close_code: Option<u16>,
}

impl Protocol {
    /// Number of protocols.
    pub const COUNT: usize = Dialect::ALL.len() + 1;

    /// Returns all protocols, oldest first.
    pub fn all() -> impl Iterator<Item = Protocol> {
        Dialect::ALL.into_iter().map(Protocol::Sigver).chain([Protocol::Signaller])
    }

    /// Returns the protocol of this name.
    pub fn from_name(name: &str) -> Option<Protocol> {
        Protocol::all().find(|protocol| protocol.name() == name)
    }

    /// Returns the protocol's name.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Sigver(dialect) => dialect.name(),
            Protocol::Signaller => "signaller",
        }
    }

    /// Returns the protocol's name in a narrow table.
    pub(crate) fn table_label(self) -> &'static str {
        self.name().strip_prefix("sigver-").unwrap_or("sgnl")
    }

    /// Returns true if a member of one protocol and a joiner of the other can meet at all.
    pub(crate) fn is_compatible_with(self, other: Protocol) -> bool {
        self == other || (self != Protocol::Signaller && other != Protocol::Signaller)
    }

    /// Returns true if the protocol's frames are JSON.
    pub fn is_json(self) -> bool {
        matches!(self, Protocol::Sigver(dialect) if dialect.family() == Family::Json)
    }

    /// Returns what the protocol can express.
    pub fn capabilities(self) -> ProtocolCapabilities {
        let silent = ProtocolCapabilities {
            confirms_member: false,
            confirms_joiner: false,
            announces_joiner: false,
            addresses_joiner: true,
            joins_with_data: false,
            receives_end: false,
            joiner_departure: DepartureNotice::Never,
            member_departure: DepartureNotice::Never,
            heartbeats_member: false,
            heartbeats_joiner: false,
            close_code: None,
        };
        let confirms = ProtocolCapabilities { confirms_member: true, confirms_joiner: true, ..silent };
        let notifies = ProtocolCapabilities {
            joiner_departure: DepartureNotice::Immediate,
            member_departure: DepartureNotice::Immediate,
            ..confirms
        };
        let Protocol::Sigver(dialect) = self else {
            // One listener, one connector, and an end that both see.
            return ProtocolCapabilities { close_code: Some(1000), ..notifies };
        };
        let release = dialect.release();
        let heartbeats_member = release.keepalive() != Keepalive::None;
        let heartbeats_joiner = release.has_keepalive_of_joiners();
        let Some(facts) = release.json() else {
            // `lastData` exists in sigver 19, too, but no client of it sets it, and no server forwards it.
            let receives_end = dialect.family() == Family::ProtobufV1;
            return ProtocolCapabilities {
                receives_end,
                close_code: Some(1000),
                heartbeats_member,
                heartbeats_joiner,
                ..notifies
            };
        };
        let capabilities = match (facts.codec, facts.confirmation) {
            (JsonCodec::V1To5, _) => ProtocolCapabilities { announces_joiner: true, ..silent },
            (JsonCodec::V6, _) => {
                ProtocolCapabilities { confirms_joiner: true, addresses_joiner: false, ..silent }
            }
            (JsonCodec::V7To14, Confirmation::None) => ProtocolCapabilities {
                joins_with_data: true,
                member_departure: DepartureNotice::Immediate,
                ..silent
            },
            (JsonCodec::V7To14, Confirmation::IsKeyOk) if facts.opens_by_key => notifies,
            (JsonCodec::V7To14, Confirmation::IsKeyOk | Confirmation::Opened) => ProtocolCapabilities {
                joiner_departure: DepartureNotice::OnNextSend,
                member_departure: DepartureNotice::OnNextSend,
                ..confirms
            },
            (JsonCodec::V7To14, Confirmation::FirstOpener | Confirmation::AnyOpener) => notifies,
        };
        ProtocolCapabilities { heartbeats_member, heartbeats_joiner, ..capabilities }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = || serde::de::Error::custom(format_args!("there is no protocol '{name}'"));
        Protocol::from_name(&name).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let all: Vec<Protocol> = Protocol::all().collect();
        assert_eq!(all.len(), Protocol::COUNT);
        assert!(all.iter().all(|protocol| Protocol::from_name(protocol.name()) == Some(*protocol)));
    }

    #[test]
    fn signaller_is_compatible_with_itself_only() {
        let (signaller, twenty) = (Protocol::Signaller, Protocol::Sigver(Dialect::Sigver20));
        assert!(signaller.is_compatible_with(signaller));
        assert!(twenty.is_compatible_with(Protocol::Sigver(Dialect::Sigver1)));
        assert!(!signaller.is_compatible_with(twenty) && !twenty.is_compatible_with(signaller));
    }
}
