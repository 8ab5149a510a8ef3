//! The payloads that peers send to one another.

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

/// A message that travels over a link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum LinkMessage {
    /// A payload.
    Data {
        /// The payload.
        payload: Payload,
        /// The sender sends nothing more over this link.
        last: bool,
    },
    /// The sender sends nothing more over this link.
    End,
    /// The sender gave up on this link.
    Error {
        /// The sender no longer receives over this link either (sigver 18).
        closes_both: bool,
    },
    /// A content without any field, for which some dialects close the sender if the link is alive.
    Empty,
}

impl LinkMessage {
    /// Length of the payload, in bytes.
    pub fn len(&self) -> usize {
        match self {
            LinkMessage::Data { payload, .. } => payload.len(),
            LinkMessage::End | LinkMessage::Error { .. } | LinkMessage::Empty => 0,
        }
    }

    /// Returns true if the message carries no payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A payload, in the form in which it was sent. The receiver's codec converts it if its dialect needs another
/// form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// Bytes, from a protobuf dialect.
    Bytes(Bytes),
    /// Any JSON value in `JSON.stringify` form, from a dialect that sends data in a member of its own (sigver
    /// 6 to 14).
    Json(ByteString),
    /// A whole JSON object, from a dialect without an envelope for data (sigver 1 to 5).
    ObjectFrame {
        /// Text of the frame as received, with the members that belong to the dialect itself.
        text: ByteString,
        /// The frame was a binary one.
        binary: bool,
    },
}

impl Payload {
    /// Creates a payload from bytes that are part of a frame of `frame_len` bytes. The payload shares the
    /// memory of the frame unless it is a small part of it.
    pub(crate) fn from_frame(bytes: Bytes, frame_len: usize) -> Self {
        Payload::Bytes(if should_share_buffer(bytes.len(), frame_len) {
            bytes
        } else {
            Bytes::copy_from_slice(&bytes)
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Json(text) | Payload::ObjectFrame { text, .. } => text.len(),
        }
    }

    /// Returns true if the payload has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Returns true if a part of `part_len` bytes may share the memory of the whole. A small part that waits for
/// a slow reader would otherwise hold far more memory than its queue accounts for.
pub(crate) fn should_share_buffer(part_len: usize, whole_len: usize) -> bool {
    part_len >= whole_len / 2 || whole_len < 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_part_of_large_frame_is_copied() {
        let frame = Bytes::from(vec![7; 4096]);
        let shares = |part: Bytes| match Payload::from_frame(part, 4096) {
            Payload::Bytes(bytes) => frame.as_ptr_range().contains(&bytes.as_ptr()),
            Payload::Json(_) | Payload::ObjectFrame { .. } => false,
        };
        assert!(shares(frame.slice(10..)));
        assert!(!shares(frame.slice(10..20)));
    }
}
