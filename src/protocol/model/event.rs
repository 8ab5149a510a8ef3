//! Events that a room sends to a peer.

use serde::{Deserialize, Serialize};

use super::{LinkId, LinkMessage, Reason, Recipient, SenderTag, Side};

/// An event for one peer of a room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The peer is a member now.
    Admitted {
        /// There was no member before.
        first: bool,
    },
    /// The peer asked to become a member, and is one now.
    BecameMember {
        /// The peer had been one already.
        already: bool,
    },
    /// The peer is a joiner, linked to a member.
    LinkedToMember {
        /// The link between the two.
        link: LinkId,
    },
    /// A joiner was linked to the peer.
    LinkedToJoiner {
        /// The link between the two.
        link: LinkId,
    },
    /// The command of the peer was refused.
    Refused(Reason),
    /// A message arrived over a link.
    Relayed {
        /// The link.
        link: LinkId,
        /// The receiver's end of the link.
        side: Side,
        /// The message.
        message: LinkMessage,
        /// The dialect of the sender.
        sender: SenderTag,
    },
    /// A message of the peer could not be delivered.
    Undeliverable {
        /// The recipient named by the peer.
        to: Recipient,
        /// The reason.
        reason: Reason,
    },
    /// The other end of a link disconnected, so that no message will arrive over it.
    LinkEnded {
        /// The link.
        link: LinkId,
        /// The receiver's end of the link.
        side: Side,
        /// The other end closed its connection with the code 1000.
        normal_closure: bool,
    },
    /// The peer was removed from the room, and its connection is to be closed.
    Evicted(Reason),
}

/// The role of a peer in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum RoomRole {
    /// Not in the room.
    None,
    /// An endpoint of links, and not a member.
    Joiner,
    /// A member, which may also be an endpoint of links.
    Member,
}

impl Event {
    /// Returns the size of the event while it is queued, in bytes: that of its payload and a fixed share.
    pub(crate) fn queued_bytes(&self) -> usize {
        let payload = match self {
            Event::Relayed { message, .. } => message.len(),
            Event::Admitted { .. }
            | Event::BecameMember { .. }
            | Event::LinkedToMember { .. }
            | Event::LinkedToJoiner { .. }
            | Event::Refused(_)
            | Event::Undeliverable { .. }
            | Event::LinkEnded { .. }
            | Event::Evicted(_) => 0,
        };
        size_of::<Event>().saturating_add(payload)
    }
}
