//! Reasons to refuse a command or to end a connection. Their close codes and texts are in
//! `dialect::close_frame`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{LinkId, Side};

/// The reason why a connection ends or a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The room key is empty.
    KeyEmpty,
    /// The room key is longer than the dialect allows.
    KeyTooLong,
    /// The room has a member already, and the dialect allows one.
    KeyTaken,
    /// The room is empty.
    KeyUnknown,
    /// The frame cannot be decoded, with the error text.
    DecodeError(Cow<'static, str>),
    /// The frame can be decoded, but is no message of the dialect.
    UnknownMessage,
    /// A text frame where the dialect requires a binary one, or the reverse.
    WrongFrameKind,
    /// A message without content, sent by this end of a link.
    EmptyContent {
        /// The link it was sent over.
        link: LinkId,
        /// The end that sent it.
        from: Side,
    },
    /// The id or index names no joiner of the sender.
    UnknownRecipient,
    /// The recipient disconnected.
    RecipientGone,
    /// Data before a join.
    NotJoined,
    /// The peer did not answer in time.
    Unresponsive,
    /// A joiner replaced the peer, through which no joiner could enter the room.
    Replaced,
    /// The peer does not read, and its send queue is full.
    SlowConsumer,
    /// The receiver of the peer's messages does not read them, and its queue is full.
    ReceiverFull,
    /// The server has no memory for what the peer sends.
    Overloaded,
    /// The room has as many members as the server allows.
    TooManyMembers,
    /// There are as many rooms as the server allows.
    TooManyRooms,
    /// The rest of a message did not arrive before the timeout.
    MessageTimeout,
    /// The message is longer than the server allows.
    MessageTooBig,
    /// No message arrived before the timeout.
    NoFirstFrame,
    /// The server is shutting down.
    ShuttingDown,
    /// The room moves to another node of the cluster: the client is to connect again.
    Moved,
    /// The node that has the room cannot be reached, or it is not known which one has it.
    Unreachable,
    /// The room has as many peers that are no members as the server allows.
    TooManyJoiners,
    /// The token of the peer is not for the room.
    KeyForbidden,
    /// The token of the peer has expired.
    TokenExpired,
    /// The peer would replace the only member of the room, which the server does not let it.
    MemberKept,
}
