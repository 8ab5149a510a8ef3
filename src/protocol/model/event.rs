//! What a room tells a peer.

use super::{LinkId, LinkMessage, Reason, Recipient, SenderTag};

/// What a room tells a peer.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It is a member now.
    Admitted {
        /// Nobody was before it.
        first: bool,
    },
    /// It asked to settle, and is a member now.
    BecameMember {
        /// It had been one already.
        already: bool,
    },
    /// It is a joiner, bound to a member.
    LinkedToMember {
        /// The link between the two.
        link: LinkId,
    },
    /// A joiner has been bound to it.
    LinkedToJoiner {
        /// The link between the two.
        link: LinkId,
    },
    /// What it asked for cannot be.
    Refused(Reason),
    /// Something came over a link.
    Relayed {
        /// The link.
        link: LinkId,
        /// The end of the link at which the receiver of this event is.
        side: Side,
        /// What came.
        message: LinkMessage,
        /// How the sender speaks.
        sender: SenderTag,
    },
    /// What it sent went nowhere.
    Undeliverable {
        /// To whom it was sent.
        to: Recipient,
        /// Why it could not be delivered.
        reason: Reason,
    },
    /// Nothing will come over a link any more, as the other end is gone.
    LinkEnded {
        /// The link.
        link: LinkId,
        /// The end of the link at which the receiver of this event is.
        side: Side,
        /// The other end closed its connection with the code 1000.
        normal_closure: bool,
    },
    /// It is out of the room, and its connection is to be closed.
    Evicted(Reason),
}

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that asked to be bound.
    Joiner,
    /// The end that was there before.
    Member,
}

impl Side {
    /// Returns the other end.
    pub const fn opposite(self) -> Self {
        match self {
            Side::Joiner => Side::Member,
            Side::Member => Side::Joiner,
        }
    }
}

/// What a peer is in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomRole {
    /// Not in the room.
    None,
    /// An endpoint of links, and not a member.
    Joiner,
    /// A member, which may also be an endpoint of links.
    Member,
}

impl Event {
    /// What the event costs while it waits for its receiver, in bytes: its payload and a fixed share.
    pub fn queued_bytes(&self) -> usize {
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
