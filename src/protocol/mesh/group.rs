//! The groups of netflux clients that understand each other, and a row of facts per group.

use std::ops::RangeInclusive;
use std::time::Duration;

use strum::VariantArray;

/// Clients that understand each other's messages over data channels. The names are those of
/// `PeerProtocol`, which signaling finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
pub enum MeshGroup {
    /// netflux 0.10.3.
    Netflux0,
    /// netflux 0.10.8 to 1.0.
    Netflux1,
    /// netflux 1.1.0-beta.7 to 2.0.
    Netflux2,
    /// netflux 2.1 and 3.0.
    Netflux3,
    /// netflux 4.
    Netflux4,
}

/// The side that chooses the id of a peer that joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdChoice {
    /// The member through which the peer joins.
    Member,
    /// The peer itself.
    Own,
}

/// Facts of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshFacts {
    /// Longest part of a user message in one frame, in bytes. A longer message is sent in chunks of this
    /// length.
    pub chunk_length: u32,
    /// The side that chooses the id of a peer that joins.
    pub id_choice: IdChoice,
    /// Ids that its clients choose.
    pub ids: RangeInclusive<u32>,
    /// Interval of heartbeats on every channel, if there are any. Three missed ones end the channel.
    pub heartbeat: Option<Duration>,
    /// Maximum duration until a channel that a client was asked for is ready. Then it is closed, and the
    /// client is asked again: netflux 0.10.3 ignores a channel that takes longer than two seconds.
    pub request_timeout: Option<Duration>,
    /// Shortest duration after the loss of a channel before a client can take in the same peer again: netflux
    /// 0.10.8 and 1.0 remove a peer a second time, by its id, once ICE ends the lost connection.
    pub relink_delay: Duration,
    /// True if a client reports to its application that a message was sent to all members.
    pub tells_broadcast: bool,
    /// True if a client sends through a member what it sends to a peer to which it has no channel yet.
    pub relays_messages: bool,
    /// True if a client that joined lets no other join through it: such a client can be reached through its
    /// neighbours only.
    pub some_joiners_accept_none: bool,
    /// True if a client that lets another in waits for it to become a member, even when its channel has
    /// closed, and has those that join later wait as well (netflux 0.10.8 and 1.0, source).
    pub waits_for_lost_joiners: bool,
}

const HEARTBEAT: Option<Duration> = Some(Duration::from_secs(3));

const NETFLUX_0: MeshFacts = MeshFacts {
    chunk_length: 16_365,
    id_choice: IdChoice::Member,
    ids: 1..=u32::MAX,
    heartbeat: None,
    request_timeout: Some(Duration::from_millis(2_200)),
    relink_delay: Duration::ZERO,
    tells_broadcast: true,
    relays_messages: false,
    some_joiners_accept_none: true,
    waits_for_lost_joiners: false,
};
const NETFLUX_1: MeshFacts = MeshFacts {
    request_timeout: Some(Duration::from_secs(8)),
    relink_delay: Duration::from_secs(10),
    waits_for_lost_joiners: true,
    ..NETFLUX_0
};
/// Id 1 means a peer whose id is not known.
const NETFLUX_2: MeshFacts = MeshFacts {
    chunk_length: 15_000,
    id_choice: IdChoice::Member,
    ids: 2..=0x7fff_ffff,
    heartbeat: None,
    request_timeout: None,
    relink_delay: Duration::ZERO,
    tells_broadcast: true,
    relays_messages: false,
    some_joiners_accept_none: false,
    waits_for_lost_joiners: false,
};
const NETFLUX_3: MeshFacts = MeshFacts {
    id_choice: IdChoice::Own,
    ids: 2..=u32::MAX,
    heartbeat: HEARTBEAT,
    tells_broadcast: false,
    relays_messages: true,
    ..NETFLUX_2
};
const NETFLUX_4: MeshFacts = MeshFacts { ids: 0x8000_0000..=u32::MAX, ..NETFLUX_3 };

impl MeshGroup {
    /// All groups, from the oldest.
    pub const ALL: &'static [MeshGroup] = MeshGroup::VARIANTS;

    /// Returns the facts of this group.
    pub const fn facts(self) -> &'static MeshFacts {
        match self {
            MeshGroup::Netflux0 => &NETFLUX_0,
            MeshGroup::Netflux1 => &NETFLUX_1,
            MeshGroup::Netflux2 => &NETFLUX_2,
            MeshGroup::Netflux3 => &NETFLUX_3,
            MeshGroup::Netflux4 => &NETFLUX_4,
        }
    }

    /// Returns true if its frames are protobuf; else a binary header and JSON.
    pub(super) const fn is_protobuf(self) -> bool {
        match self {
            MeshGroup::Netflux0 | MeshGroup::Netflux1 => false,
            MeshGroup::Netflux2 | MeshGroup::Netflux3 | MeshGroup::Netflux4 => true,
        }
    }
}
