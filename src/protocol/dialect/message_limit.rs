//! The limits of messages that a dialect reports by its own close frames.

use super::json_errors::{TOO_DEEP, TOO_LONG};
use super::key_limit::KEY_TOO_LONG;
use super::protobuf::GROUPS_TOO_DEEP;
use crate::protocol::frame::Close;

/// A limit of messages that a dialect reports by its own close frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageLimit {
    /// Nesting of JSON, or of groups of protobuf.
    Depth,
    /// Length of a room key.
    KeyLength,
}

impl MessageLimit {
    /// Returns the limit that a close frame of a dialect reports.
    ///
    /// The text decides, for counts only: a text that quotes a client may report a limit that was not
    /// reached.
    pub(crate) fn from_close(close: &Close) -> Option<Self> {
        let ends_with = |texts: &[&str]| texts.iter().any(|text| close.reason.ends_with(*text));
        if ends_with(&[TOO_DEEP, GROUPS_TOO_DEEP]) {
            Some(MessageLimit::Depth)
        } else if ends_with(&[KEY_TOO_LONG, TOO_LONG]) {
            Some(MessageLimit::KeyLength)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::json_errors::{JsonError, close};
    use crate::protocol::dialect::{Dialect, Family, Release, close_frame_for};
    use crate::protocol::model::Reason;

    #[test]
    fn close_frames_of_all_releases_report_the_limit() {
        for release in Dialect::ALL.into_iter().flat_map(|dialect| dialect.releases().collect::<Vec<_>>()) {
            let of = |reason| MessageLimit::from_close(&close_frame_for(release, &reason));
            assert_eq!(of(Reason::KeyTooLong), Some(MessageLimit::KeyLength), "{release:?}");
            assert_eq!(of(Reason::KeyEmpty), None, "{release:?}");
            assert_eq!(of(Reason::UnknownMessage), None, "{release:?}");
            if is_json(release) {
                let close = close(release, JsonError::TooDeep);
                assert_eq!(MessageLimit::from_close(&close), Some(MessageLimit::Depth), "{release:?}");
            }
        }
    }

    fn is_json(release: Release) -> bool {
        release.dialect().family() == Family::Json
    }
}
