//! What a room keeps of a peer and of a link. Data only; the rules are the room's.

use super::select::{Identity, Place};
use super::table::Set;
use crate::model::{LinkId, NetId, PeerId};

/// A peer in the room: a member, an end of links, or both.
#[derive(Debug)]
pub(super) struct Peer<H> {
    pub(super) handle: H,
    /// Its place among the members, if it is one.
    pub(super) place: Option<Place>,
    /// How it became a member.
    pub(super) way: Way,
    /// The link over which it joined last.
    pub(super) uplink: Option<LinkId>,
    pub(super) tried: Vec<Identity>,
    /// All links it has an end of.
    pub(super) links: Set<LinkId>,
}

/// How a peer becomes a member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Way {
    /// By a key of its own.
    Opened,
    /// As the first, or after it had joined.
    #[default]
    Settled,
    /// By saying who it is.
    Attached(NetId),
}

impl Way {
    /// The id it claims to have.
    pub(super) fn claim(self) -> Option<NetId> {
        match self {
            Way::Attached(claim) => Some(claim),
            Way::Opened | Way::Settled => None,
        }
    }
}

/// A joiner bound to a member.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) joiner: PeerId,
    pub(super) member: PeerId,
    /// Whether the joiner still sends.
    pub(super) upward: bool,
    /// Whether the member still sends.
    pub(super) downward: bool,
}

impl<H> Peer<H> {
    pub(super) fn new(handle: H) -> Self {
        Peer {
            handle,
            place: None,
            way: Way::default(),
            uplink: None,
            tried: Vec::new(),
            links: Set::default(),
        }
    }
}
