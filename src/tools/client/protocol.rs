//! The seventeen ways of speaking, and what each of them has words for (measured on the originals). No messages here.

use std::fmt;

use crate::protocol::dialect::{Dialect, Family};

/// A way of speaking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// A dialect of sigver.
    Sigver(Dialect),
    /// The path relay.
    Signaller,
}

/// When one is told that the other has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepartureNotice {
    /// There are no words for it.
    Never,
    /// At once.
    Immediate,
    /// When it sends something to who has left.
    OnNextSend,
}

/// What a dialect has words for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolCapabilities {
    /// A member is told that it is one.
    pub admits: bool,
    /// A joiner is told that it is bound to a member.
    pub binds: bool,
    /// A member is told that somebody joins, before the joiner says anything.
    pub announces: bool,
    /// A member says which joiner something is for.
    pub addresses: bool,
    /// A joiner's first data is part of its request to join.
    pub joins_with_data: bool,
    /// Its client says that it has nothing more to say.
    pub says_end: bool,
    /// Its client is told so of the other.
    pub hears_end: bool,
    /// A member is told that a joiner has left.
    pub joiner_left: DepartureNotice,
    /// A joiner is told that its member has left.
    pub member_left: DepartureNotice,
    /// The server asks members again and again whether they are there.
    pub beats_member: bool,
    /// The server asks joiners, too, that have not reached the group yet.
    pub beats_joiner: bool,
    /// The code by which its clients close when they leave.
    pub leaves_with: Option<u16>,
}

impl Protocol {
    /// All of them, oldest first.
    pub fn all() -> impl Iterator<Item = Protocol> {
        Dialect::ALL.into_iter().map(Protocol::Sigver).chain([Protocol::Signaller])
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Protocol> {
        Protocol::all().find(|tongue| tongue.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Sigver(dialect) => dialect.name(),
            Protocol::Signaller => "signaller",
        }
    }

    /// Its name in a narrow table.
    pub fn short(self) -> &'static str {
        self.name().strip_prefix("sigver-").unwrap_or("sgnl")
    }

    /// Whether a member of one and a joiner of the other can meet at all.
    pub fn meets(self, other: Protocol) -> bool {
        self == other || (self != Protocol::Signaller && other != Protocol::Signaller)
    }

    /// Whether its frames are JSON.
    pub fn is_json(self) -> bool {
        matches!(self, Protocol::Sigver(dialect) if dialect.family() == Family::Json)
    }

    /// What it has words for.
    pub fn words(self) -> ProtocolCapabilities {
        let silent = ProtocolCapabilities {
            admits: false,
            binds: false,
            announces: false,
            addresses: true,
            joins_with_data: false,
            says_end: false,
            hears_end: false,
            joiner_left: DepartureNotice::Never,
            member_left: DepartureNotice::Never,
            beats_member: false,
            beats_joiner: false,
            leaves_with: None,
        };
        let answers = ProtocolCapabilities { admits: true, binds: true, ..silent };
        let told = ProtocolCapabilities {
            joiner_left: DepartureNotice::Immediate,
            member_left: DepartureNotice::Immediate,
            ..answers
        };
        let v1 = ProtocolCapabilities { says_end: true, hears_end: true, leaves_with: Some(1000), ..told };
        let Protocol::Sigver(dialect) = self else {
            // One listener, one connector, and an end that both see.
            return ProtocolCapabilities { leaves_with: Some(1000), ..told };
        };
        match dialect {
            Dialect::Sigver1 | Dialect::Sigver4 | Dialect::Sigver5 => {
                ProtocolCapabilities { announces: true, ..silent }
            }
            Dialect::Sigver6 => ProtocolCapabilities { binds: true, addresses: false, ..silent },
            Dialect::Sigver7 => ProtocolCapabilities {
                joins_with_data: true,
                member_left: DepartureNotice::Immediate,
                ..silent
            },
            Dialect::Sigver7_6 => told,
            Dialect::Sigver8 | Dialect::Sigver9 => ProtocolCapabilities {
                joiner_left: DepartureNotice::OnNextSend,
                member_left: DepartureNotice::OnNextSend,
                ..answers
            },
            Dialect::Sigver11 => told,
            Dialect::Sigver13 => ProtocolCapabilities { beats_member: true, beats_joiner: true, ..told },
            Dialect::Sigver15 | Dialect::Sigver15_1 | Dialect::Sigver16 => {
                ProtocolCapabilities { beats_member: true, ..v1 }
            }
            Dialect::Sigver18 => ProtocolCapabilities { beats_member: true, beats_joiner: true, ..v1 },
            // sigver 19 and newer. No client of theirs ever sets `lastData`, and it is never passed on.
            _ => ProtocolCapabilities {
                beats_member: true,
                beats_joiner: true,
                leaves_with: Some(1000),
                ..told
            },
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tongue_has_a_name_of_its_own() {
        let all: Vec<Protocol> = Protocol::all().collect();
        assert_eq!(all.len(), 17);
        assert!(all.iter().all(|tongue| Protocol::of_name(tongue.name()) == Some(*tongue)));
    }

    #[test]
    fn the_relay_meets_only_itself() {
        let twenty = Protocol::Sigver(Dialect::Sigver20);
        assert!(
            Protocol::Signaller.meets(Protocol::Signaller)
                && twenty.meets(Protocol::Sigver(Dialect::Sigver1))
        );
        assert!(!Protocol::Signaller.meets(twenty) && !twenty.meets(Protocol::Signaller));
    }
}
