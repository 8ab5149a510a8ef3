//! Commands that a peer sends to a room.

use serde::{Deserialize, Serialize};

use super::{LinkId, LinkMessage, NetId, SenderTag};

/// A command to the room that the peer names, or is in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Become a member.
    Open(Open),
    /// Be linked to a member.
    Join(Join),
    /// Become a member or be linked to one, depending on the members that the peer is connected to.
    Connect(Connect),
    /// The joiner has reached the group: become a member.
    BecomeMember,
    /// The joiner could not connect to the group through its member: be linked to another.
    TryAnother,
    /// Revert the commands sent under a wrong assumption about the peer's dialect: its link, and the members
    /// it tried. A membership stays, so that the order of arrival does not depend on the assumption.
    RevertAssumption,
    /// Remove the link by which the peer joined, without an event (sigver 13).
    Unlink,
    /// Reply to the other end of a link on behalf of the peer, whose client does not know of it.
    ReplyOnBehalf {
        /// A link of which the peer is an endpoint.
        link: LinkId,
        /// The reply.
        message: LinkMessage,
        /// The dialect of the reply.
        sender: SenderTag,
    },
    /// Forward a message to the other end of a link.
    Relay {
        /// The receiver.
        to: Recipient,
        /// The message.
        message: LinkMessage,
        /// The dialect of the sender.
        sender: SenderTag,
    },
}

impl Command {
    /// Returns the size of the command while it waits, in bytes: that of its payload and a fixed share.
    pub(crate) fn queued_bytes(&self) -> usize {
        let payload = match self {
            Command::Relay { message, .. } | Command::ReplyOnBehalf { message, .. } => message.len(),
            Command::Connect(connect) => connect.connected_to.len().saturating_mul(size_of::<u32>()),
            Command::Open(_)
            | Command::Join(_)
            | Command::BecomeMember
            | Command::TryAnother
            | Command::RevertAssumption
            | Command::Unlink => 0,
        };
        size_of::<Command>().saturating_add(payload)
    }

    /// Returns true if the command may change the role of its peer in the room.
    #[cfg(feature = "cluster")]
    pub(crate) const fn changes_role(&self) -> bool {
        match self {
            Command::Relay { .. } | Command::ReplyOnBehalf { .. } => false,
            Command::Open(_)
            | Command::Join(_)
            | Command::Connect(_)
            | Command::BecomeMember
            | Command::TryAnother
            | Command::RevertAssumption
            | Command::Unlink => true,
        }
    }
}

/// The way to become a member by a key that the peer chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Refused with [`KeyTaken`](super::Reason::KeyTaken) if there is a member, except for a
    /// [tentative](WhenEmpty::BecomeTentativeMember) one.
    pub exclusive: bool,
    /// The peer stays a member of the rooms it opened before.
    pub keep_other_rooms: bool,
}

/// The way to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The consequence of an empty room.
    pub when_empty: WhenEmpty,
    /// The member to be linked to.
    pub choice: MemberChoice,
    /// The consequence for the link of the previous join.
    pub rejoin: RejoinPolicy,
}

impl Join {
    /// Returns true if the joiner needs a member: without one it is refused, or waits for other joiners. A
    /// joiner of sigver 11 to 14, which has such links, opens the key itself when it is refused.
    pub(crate) fn needs_member(&self) -> bool {
        match self.when_empty {
            WhenEmpty::Refuse => self.rejoin != RejoinPolicy::Reuse,
            WhenEmpty::BecomeTentativeMember => true,
            WhenEmpty::BecomeMember => false,
        }
    }
}

/// The consequence of joining an empty room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum WhenEmpty {
    /// The joiner is refused with [`KeyUnknown`](super::Reason::KeyUnknown).
    Refuse,
    /// The joiner becomes the first member.
    BecomeMember,
    /// The joiner becomes a member that may not act as one: other joiners are linked to it only while it is
    /// the only member, until it has answered one of them or opened the room.
    BecomeTentativeMember,
}

/// The member that a joiner is linked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum MemberChoice {
    /// The one that has been a member the longest.
    Oldest,
    /// Any member, each with the same probability (sigver 17).
    Random,
}

/// The consequence of joining again for the link of the previous join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum RejoinPolicy {
    /// The link is removed in both directions, without an event.
    Replace,
    /// The joiner no longer sends over it, but still receives from the member (sigver 5).
    KeepReceiving,
    /// The link is kept, and no other is created, if it leads to the same member (sigver 11).
    Reuse,
}

/// The identity of a peer in the peer-to-peer network, and its connections there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The peer's own id.
    pub net_id: NetId,
    /// The members it is connected to.
    pub connected_to: Vec<NetId>,
    /// The peer is preferred when a member is chosen for a joiner.
    pub preferred: bool,
    /// A peer that replaces a blocking member receives its own admission before the end of its link to that
    /// member, instead of after it.
    pub admit_before_unlink: bool,
}

/// The other end of a link, as the sender names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum Recipient {
    /// The joiner at the other end of that link, of which the sender is the member.
    Joiner(LinkId),
    /// The member that the sender is linked to.
    Member,
    /// The joiner of that link if the sender is its member, otherwise the member that the sender is linked
    /// to.
    JoinerOrMember(LinkId),
}
