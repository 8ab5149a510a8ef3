//! Messages and close frames of one connection, whatever the transport and the dialect.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

/// A whole message, as it is received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8 text, the form of the JSON dialects.
    Text(ByteString),
    /// Bytes, the form of the protobuf dialects.
    Binary(Bytes),
}

/// A message or close frame, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A message.
    Message(Message),
    /// A binary message in two parts: a relayed payload need not be copied to stand behind its prefix.
    Prefixed(FramePrefix, Bytes),
    /// The last frame of a connection.
    Close(Close),
}

/// The first few bytes of a message, in place: the longest prefix of a content takes 24.
pub type FramePrefix = SmallVec<[u8; 24]>;

/// Code and reason of a close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The WebSocket close code; `None` sends a close frame without code, which the peer sees as 1005.
    pub code: Option<u16>,
    /// The reason, at most 123 bytes of UTF-8 on the wire.
    pub reason: Cow<'static, str>,
}

impl Close {
    /// Longest reason of a close frame, in bytes (RFC 6455 §5.5: 125 less the code).
    pub(crate) const MAX_REASON: usize = 123;

    /// Returns a close with a code and a reason; a reason that is too long for a close frame is cut.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        let mut reason = reason.into();
        if reason.len() > Self::MAX_REASON {
            let cut = (0..=Self::MAX_REASON).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
            reason.to_mut().truncate(cut);
        }
        Close { code: Some(code), reason }
    }

    /// Returns a close frame without code and reason.
    pub const fn empty() -> Self {
        Close { code: None, reason: Cow::Borrowed("") }
    }
}

impl Message {
    /// Returns a text message.
    pub fn text(text: impl Into<ByteString>) -> Self {
        Message::Text(text.into())
    }

    /// Returns a binary message.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Message::Binary(bytes.into())
    }

    /// Length of the payload, in bytes.
    pub fn len(&self) -> usize {
        match self {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
        }
    }

    /// Returns true if the payload has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Outgoing {
    /// Returns the message in one part.
    ///
    /// # Errors
    /// The close frame, if it is one.
    pub fn into_message(self) -> Result<Message, Close> {
        match self {
            Outgoing::Message(message) => Ok(message),
            Outgoing::Prefixed(prefix, rest) => Ok(Message::binary([&prefix[..], &rest].concat())),
            Outgoing::Close(close) => Err(close),
        }
    }
}

impl From<Message> for Outgoing {
    fn from(message: Message) -> Self {
        Outgoing::Message(message)
    }
}

impl From<Close> for Outgoing {
    fn from(close: Close) -> Self {
        Outgoing::Close(close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reason_is_cut_between_characters() {
        let close = Close::new(1008, "é".repeat(100));
        assert_eq!(close.reason, "é".repeat(61));
    }

    #[test]
    fn short_reason_is_kept() {
        assert_eq!(Close::new(1000, "bye").reason, "bye");
        assert_eq!(Close::empty(), Close { code: None, reason: "".into() });
    }
}
