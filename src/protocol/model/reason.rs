//! Why something was refused or ended. Codes and texts are a dialect's: see `dialect::closing`.

use std::borrow::Cow;

use super::{LinkId, Side};

/// Why a connection ends, or a wish is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The room key is empty.
    KeyEmpty,
    /// The room key is longer than the dialect allows.
    KeyTooLong,
    /// The room has a member already, and the dialect allows one.
    KeyTaken,
    /// Nobody is in the room.
    KeyUnknown,
    /// The frame cannot be decoded; how, in words.
    DecodeError(Cow<'static, str>),
    /// The frame can be decoded, and means nothing.
    UnknownMessage,
    /// Text where the dialect wants bytes, or the other way round.
    WrongFrameKind,
    /// A content with nothing in it, sent by this end of a link.
    EmptyContent {
        /// The link it was sent over.
        link: LinkId,
        /// The end that sent it.
        from: Side,
    },
    /// The id or index names no joiner of the sender.
    UnknownRecipient,
    /// There was such a peer, and it is gone.
    RecipientGone,
    /// Data, and no join before it.
    NotJoined,
    /// The peer did not answer in time.
    Unresponsive,
    /// A joiner took the peer's place, as the room was closed to newcomers through it.
    Replaced,
    /// The peer does not read what it is sent, and too much waits for it.
    SlowConsumer,
    /// The message is longer than the server allows.
    MessageTooBig,
    /// Nothing came that would tell what the peer wants.
    NoFirstFrame,
    /// The server stops.
    ShuttingDown,
}
