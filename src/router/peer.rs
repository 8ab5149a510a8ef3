//! What a room keeps of a peer and of a link. Data only; the rules are the room's.

use indexmap::IndexSet;

use super::select::Identity;
use crate::model::{LinkId, NetId, PeerId};

/// A peer in the room: a member, an end of links, or both.
#[derive(Debug)]
pub(super) struct Peer<H> {
    pub(super) handle: H,
    /// Its place among the members, if it is one.
    pub(super) place: Option<u64>,
    pub(super) claim: Option<NetId>,
    /// The link over which it joined last.
    pub(super) uplink: Option<LinkId>,
    pub(super) tried: Vec<Identity>,
    /// All links it has an end of.
    pub(super) links: IndexSet<LinkId>,
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
        Peer { handle, place: None, claim: None, uplink: None, tried: Vec::new(), links: IndexSet::new() }
    }
}
