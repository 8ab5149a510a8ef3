//! What a room keeps of a peer and of a link. Data only; the rules are the room's.

use super::members::{ArrivalSeq, Identity};
use super::small_map::SmallSet;
use crate::protocol::model::{LinkId, NetId, PeerId};

/// A peer in the room: a member, an end of links, or both.
#[derive(Debug)]
pub(super) struct PeerEntry<H> {
    pub(super) handle: H,
    /// Its place among the members, if it is one.
    pub(super) place: Option<ArrivalSeq>,
    /// How it became a member.
    pub(super) way: AdmittedBy,
    /// The link over which it joined last.
    pub(super) joined_via: Option<LinkId>,
    pub(super) tried: Vec<Identity>,
    /// All links it has an end of.
    pub(super) links: SmallSet<LinkId>,
}

/// How a peer becomes a member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum AdmittedBy {
    /// By a key of its own.
    Opened,
    /// As the first, or after it had joined.
    #[default]
    Settled,
    /// By saying who it is.
    Attached(NetId),
}

impl AdmittedBy {
    /// The id it claims to have.
    pub(super) fn claim(self) -> Option<NetId> {
        match self {
            AdmittedBy::Attached(claim) => Some(claim),
            AdmittedBy::Opened | AdmittedBy::Settled => None,
        }
    }
}

/// A joiner bound to a member.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) joiner: PeerId,
    pub(super) member: PeerId,
    /// Whether the joiner still sends.
    pub(super) joiner_open: bool,
    /// Whether the member still sends.
    pub(super) member_open: bool,
}

impl<H> PeerEntry<H> {
    pub(super) fn new(handle: H) -> Self {
        PeerEntry {
            handle,
            place: None,
            way: AdmittedBy::default(),
            joined_via: None,
            tried: Vec::new(),
            links: SmallSet::default(),
        }
    }
}
