//! What travels over one connection, whatever the transport: text, bytes, and the end of it.
//!
//! The only type that transports and dialects share. No meaning lives here.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

/// One whole message, or the end of the connection.
#[derive(Clone, Debug)]
pub enum Frame {
    /// UTF-8 text, as the JSON dialects speak.
    Text(ByteString),
    /// Bytes, as the protobuf dialects speak.
    Binary(Bytes),
    /// Bytes to a client, in two parts: what is relayed need not be copied to stand behind its head. A client's own are
    /// never so.
    Headed(Head, Bytes),
    /// The last frame of a connection.
    Close(Close),
}

/// The first few bytes of a message, in place: the longest head of a content takes 24.
pub type Head = SmallVec<[u8; 24]>;

/// Why a connection is closed, in numbers and words the peer gets to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The WebSocket close code; `None` sends a close frame without code, which the peer sees as 1005.
    pub code: Option<u16>,
    /// The reason, at most 123 bytes of UTF-8 on the wire.
    pub reason: Cow<'static, str>,
}

impl Close {
    /// The longest reason a close frame has room for, in bytes (RFC 6455 §5.5: 125 less the code).
    pub const MAX_REASON: usize = 123;

    /// A close with a code and a reason; a reason that is too long for a close frame is cut.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        let mut reason = reason.into();
        if reason.len() > Self::MAX_REASON {
            let cut = (0..=Self::MAX_REASON).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
            reason.to_mut().truncate(cut);
        }
        Close { code: Some(code), reason }
    }

    /// A close frame with nothing in it.
    pub const fn empty() -> Self {
        Close { code: None, reason: Cow::Borrowed("") }
    }
}

impl Frame {
    /// A text frame.
    pub fn text(text: impl Into<ByteString>) -> Self {
        Frame::Text(text.into())
    }

    /// A binary frame.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Frame::Binary(bytes.into())
    }
}

/// Frames are equal if they are the same on the wire.
impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Frame::Text(one), Frame::Text(other)) => one == other,
            (Frame::Close(one), Frame::Close(other)) => one == other,
            (Frame::Binary(_) | Frame::Headed(..), Frame::Binary(_) | Frame::Headed(..)) => {
                let parts = |frame: &Self| match frame {
                    Frame::Headed(head, rest) => (head.clone(), rest.clone()),
                    Frame::Binary(bytes) => (Head::new(), bytes.clone()),
                    Frame::Text(_) | Frame::Close(_) => (Head::new(), Bytes::new()),
                };
                let ((head, rest), (other_head, other_rest)) = (parts(self), parts(other));
                head.iter().chain(&rest).eq(other_head.iter().chain(&other_rest))
            }
            _ => false,
        }
    }
}

impl Eq for Frame {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let close = Close::new(1008, "é".repeat(100));
        assert_eq!(close.reason, "é".repeat(61));
    }

    #[test]
    fn parts_do_not_matter() {
        let headed = |head: &[u8], rest: &'static [u8]| Frame::Headed(head.into(), Bytes::from_static(rest));
        assert_eq!(headed(b"ab", b"c"), Frame::binary(&b"abc"[..]));
        assert_eq!(Frame::binary(&b"abc"[..]), headed(b"", b"abc"));
        assert_eq!(headed(b"a", b"bc"), headed(b"ab", b"c"));
        assert_ne!(headed(b"a", b"b"), headed(b"a", b"c"));
        assert_ne!(headed(b"a", b"b"), Frame::text("ab"));
    }

    #[test]
    fn a_short_reason_stays() {
        assert_eq!(Close::new(1000, "bye").reason, "bye");
        assert_eq!(Close::empty(), Close { code: None, reason: "".into() });
    }
}
