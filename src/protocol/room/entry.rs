//! Data that a room keeps for each peer and each link.

use super::member::{ArrivalSeq, Member};
use super::small_map::SmallSet;
use super::tried::TriedMembers;
use crate::protocol::model::{LinkId, LinkMessage, NetId, PeerId, Side};

/// A member, an endpoint of links, or both.
#[derive(Debug)]
pub(super) struct PeerEntry<H> {
    pub(super) handle: H,
    /// Place among the members, if the peer is one.
    pub(super) place: Option<ArrivalSeq>,
    pub(super) admitted_by: AdmittedBy,
    /// The link of its latest join, which may have ended since.
    pub(super) joined_via: Option<LinkId>,
    /// Present once the peer was an endpoint of a link: an idle member, of which there are many, never was.
    pub(super) linked: Option<Box<LinkedPeer>>,
}

/// Data of a peer that is, or was, an endpoint of links.
#[derive(Debug, Default)]
pub(super) struct LinkedPeer {
    pub(super) tried: TriedMembers,
    /// All links of which it is an endpoint.
    pub(super) links: SmallSet<LinkId>,
}

/// The command by which a peer became a member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum AdmittedBy {
    /// `Open`.
    Open,
    /// `Join` in an empty room, or `BecomeMember` or `TryAnother` after a join.
    #[default]
    Join,
    /// `Connect`, with the peer's id in the peer-to-peer network.
    Connect(NetId),
}

impl AdmittedBy {
    pub(super) fn net_id(self) -> Option<NetId> {
        match self {
            AdmittedBy::Connect(net_id) => Some(net_id),
            AdmittedBy::Open | AdmittedBy::Join => None,
        }
    }
}

/// A joiner bound to a member.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) joiner: PeerId,
    pub(super) member: PeerId,
    /// The joiner has not sent its last message.
    pub(super) joiner_open: bool,
    /// The member has not sent its last message.
    pub(super) member_open: bool,
    /// Number of the link in its room, in order of creation. It takes the place that alignment leaves.
    pub(super) number: u32,
}

/// The reason why a link does not carry a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkError {
    /// The sender's direction has ended.
    Closed,
    /// The message has no content.
    Empty,
}

impl Link {
    /// Advances the state of the link by a message that the endpoint `from` sends.
    pub(super) fn advance(&mut self, from: Side, message: &LinkMessage) -> Result<(), LinkError> {
        let (sender, receiver) = match from {
            Side::Joiner => (&mut self.joiner_open, &mut self.member_open),
            Side::Member => (&mut self.member_open, &mut self.joiner_open),
        };
        if !*sender {
            return Err(LinkError::Closed);
        }
        match message {
            LinkMessage::Data { last, .. } => *sender = !last,
            LinkMessage::End => *sender = false,
            LinkMessage::Error { closes_both } => {
                *sender = false;
                *receiver &= !closes_both;
            }
            LinkMessage::Empty => return Err(LinkError::Empty),
        }
        Ok(())
    }

    /// Returns true if neither direction is open.
    pub(super) fn is_closed(&self) -> bool {
        !self.joiner_open && !self.member_open
    }

    /// Returns the endpoint opposite to `from`.
    pub(super) fn peer_opposite(&self, from: Side) -> PeerId {
        match from {
            Side::Joiner => self.member,
            Side::Member => self.joiner,
        }
    }

    /// Returns the side at which `peer` is; that of the member if it is at both.
    pub(super) fn side_of(&self, peer: PeerId) -> Option<Side> {
        if self.member == peer { Some(Side::Member) } else { (self.joiner == peer).then_some(Side::Joiner) }
    }
}

impl<H> PeerEntry<H> {
    pub(super) fn new(handle: H) -> Self {
        PeerEntry { handle, place: None, admitted_by: AdmittedBy::default(), joined_via: None, linked: None }
    }

    /// Returns the links of which the peer is an endpoint.
    pub(super) fn links(&self) -> impl Iterator<Item = LinkId> {
        self.linked.iter().flat_map(|linked| linked.links.keys())
    }

    /// Returns true if the peer is an endpoint of no link.
    pub(super) fn is_unlinked(&self) -> bool {
        self.linked.as_ref().is_none_or(|linked| linked.links.is_empty())
    }

    /// Returns true if the peer has tried the member.
    pub(super) fn has_tried(&self, member: Member) -> bool {
        self.linked.as_ref().is_some_and(|linked| linked.tried.contains(member.identity()))
    }

    /// Lets the peer start over with members that it has tried.
    pub(super) fn forget_tried(&mut self) {
        if let Some(linked) = &mut self.linked {
            linked.tried = TriedMembers::default();
        }
    }
}
