//! What a peer can ask of a room.

use super::{LinkMessage, NetId, SenderTag};
use crate::protocol::model::LinkId;

/// What a peer asks of the room it names, or is in.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Become a member.
    Open(Open),
    /// Be bound to a member.
    Join(Join),
    /// Become a member or be bound to one, depending on the members the peer says it is connected to.
    Connect(Connect),
    /// The joiner has reached the group: become a member.
    BecomeMember,
    /// The member the joiner is bound to did not help: be bound to another.
    TryAnother,
    /// Undo what was done for the peer on a wrong guess about its dialect: its binding, and what it tried. A
    /// membership stays, as the room's order of arrival should not depend on a guess.
    RevertAssumption,
    /// Give up the link by which the peer joined; nobody is told (sigver 13).
    Unlink,
    /// Answer the other end of a link in the stead of the peer, which knows nothing of it.
    ReplyOnBehalf {
        /// The link, of which the peer is one end.
        link: LinkId,
        /// What.
        message: LinkMessage,
        /// In what dialect.
        sender: SenderTag,
    },
    /// Hand something to the other end of a link.
    Relay {
        /// To whom.
        to: Recipient,
        /// What.
        message: LinkMessage,
        /// How the sender speaks.
        sender: SenderTag,
    },
}

/// How to become a member by a key of one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// As the only one: refused with [`KeyTaken`](super::Reason::KeyTaken) when there is one. A member that is
    /// [unproven](WhenEmpty::BecomeTentativeMember) does not count.
    pub exclusive: bool,
    /// Beside the rooms it is a member of already, instead of in their place.
    pub keep_other_rooms: bool,
}

/// How to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// What becomes of a joiner that finds nobody.
    pub when_empty: WhenEmpty,
    /// Which member it is bound to.
    pub choice: MemberChoice,
    /// What becomes of the link it had before.
    pub rejoin: RejoinPolicy,
}

/// What becomes of a joiner that finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenEmpty {
    /// It is refused with [`KeyUnknown`](super::Reason::KeyUnknown).
    Refuse,
    /// It becomes the first member.
    BecomeMember,
    /// It becomes a member that is not known to take itself for one: joiners are bound to it only while there is no
    /// other, until it has answered one of them or opened the room.
    BecomeTentativeMember,
}

/// Which member a joiner is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChoice {
    /// The one that has been a member the longest.
    Oldest,
    /// Any, each as likely as the other (sigver 17).
    Random,
}

/// What becomes of the link that a joiner had before it was bound anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejoinPolicy {
    /// It is gone, in both directions; nobody is told.
    Replace,
    /// The joiner no longer sends over it, but still hears the member (sigver 5).
    KeepReceiving,
    /// If it leads to the same member it is kept, and no other is made (sigver 11).
    Reuse,
}

/// A peer says who it is in the peer-to-peer network, and whom it is connected to there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Its own id.
    pub net_id: NetId,
    /// The members it is connected to.
    pub connected_to: Vec<NetId>,
    /// It is to be preferred when a member is chosen for a joiner.
    pub preferred: bool,
    /// When it replaces a member that blocked the room: whether it hears of its own admission (true) or of the
    /// end of its link to that member (false) first.
    pub admit_before_unlink: bool,
}

/// The other end of a link, as the sender names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The joiner at the other end of that link, of which the sender is the member.
    Joiner(LinkId),
    /// The member that the sender is bound to.
    Member,
    /// The joiner of that link if the sender is its member, else the member that the sender is bound to.
    JoinerOrMember(LinkId),
}
