//! Why a connection ends, in the numbers and words of each release. Texts are measured on the originals, their
//! slips of the pen included; where an original had none (it crashed, or never closed), ours say so in its code.

use std::borrow::Cow;

use super::json::{self, JsonError};
use super::{Family, Release};
use crate::protocol::frame::Close;
use crate::protocol::model::{Reason, Side};

/// The close frame that says `reason` in the words of `release`.
pub fn close(release: Release, reason: &Reason) -> Close {
    if let Some(close) = common(reason) {
        return close;
    }
    match release.dialect().family() {
        Family::Json => json::close(release, JsonError::from_reason(reason, "")),
        Family::ProtobufV1 => v1(release, reason),
        Family::ProtobufV2 => current(release, reason),
    }
}

/// What no original knew, and is said alike in all dialects.
fn common(reason: &Reason) -> Option<Close> {
    Some(match reason {
        Reason::SlowConsumer => Close::new(1008, "too much waits to be read by this client"),
        Reason::MessageTooBig => Close::new(1009, "the message is longer than this server allows"),
        Reason::NoFirstFrame => Close::new(1008, "no message told what this client wants"),
        Reason::ShuttingDown => Close::new(1001, "the server is shutting down"),
        Reason::KeyEmpty
        | Reason::KeyTooLong
        | Reason::KeyTaken
        | Reason::KeyUnknown
        | Reason::DecodeError(_)
        | Reason::UnknownMessage
        | Reason::WrongFrameKind
        | Reason::EmptyContent { .. }
        | Reason::UnknownRecipient
        | Reason::RecipientGone
        | Reason::NotJoined
        | Reason::Unresponsive
        | Reason::Replaced => return None,
    })
}

const EMPTY: &str = "The key  is an empty string";
const TOO_LONG: &str = "The key length exceeds the limit of 512 characters";

/// sigver 15 to 18.
fn v1(release: Release, reason: &Reason) -> Close {
    let early = release < Release::V17_0_1;
    let key = |text: &str| {
        let code = match release {
            Release::V17_0_1 => "ERR_KEY",
            Release::V18_0_0 => "4001",
            _ => "KEY_ERROR",
        };
        Close::new(4001, format!("{code}: {text}"))
    };
    match reason {
        Reason::KeyEmpty => key(EMPTY),
        Reason::KeyTooLong => key(TOO_LONG),
        Reason::DecodeError(text) if !early => Close::new(4003, text.clone()),
        // Up to 16 the code was read off an error that had none: an empty close frame.
        Reason::DecodeError(_) | Reason::EmptyContent { .. } if early => Close::empty(),
        Reason::EmptyContent { link, from } => {
            let whose: Cow<'_, str> = match (from, release) {
                (Side::Joiner, _) => format!("the {} joining peer", link.0).into(),
                (Side::Member, Release::V18_0_0) => "a group member".into(),
                (Side::Member, _) => "a network member".into(),
            };
            let code = if release == Release::V18_0_0 { "4003" } else { "ERR_MESSAGE" };
            Close::new(4003, format!("{code}: Unknown message type \"undefined\" from {whose}"))
        }
        Reason::Unresponsive => Close::new(
            4002,
            match release {
                Release::V15_0_2 => "Pong not received in 4000 seconds",
                Release::V15_0_1 | Release::V15_0_4 | Release::V15_1_0 => {
                    "Signaling: pong not received in 5000 milliseconds"
                }
                _ => "Too many missed hearbeats",
            },
        ),
        Reason::Replaced => Close::new(4004, "prevent other peers from joining the group"),
        Reason::DecodeError(_)
        | Reason::UnknownMessage
        | Reason::WrongFrameKind
        | Reason::UnknownRecipient
        | Reason::RecipientGone
        | Reason::NotJoined
        | Reason::KeyTaken
        | Reason::KeyUnknown
        | Reason::SlowConsumer
        | Reason::MessageTooBig
        | Reason::NoFirstFrame
        | Reason::ShuttingDown => Close::new(4003, "the message means nothing here"),
    }
}

/// sigver 19 and 20.
fn current(release: Release, reason: &Reason) -> Close {
    match reason {
        Reason::KeyEmpty => Close::new(4741, format!("4741: {EMPTY}")),
        Reason::KeyTooLong => Close::new(4741, format!("4741: {TOO_LONG}")),
        Reason::DecodeError(text) => Close::new(4743, text.clone()),
        Reason::WrongFrameKind if release == Release::V20_1_0 => Close::new(4743, "Wrong data type"),
        Reason::Unresponsive => Close::new(4742, "Too many missed hearbeats"),
        Reason::Replaced => Close::new(4744, "replaced by a peer as prevented him from joining the group"),
        Reason::WrongFrameKind
        | Reason::UnknownMessage
        | Reason::EmptyContent { .. }
        | Reason::UnknownRecipient
        | Reason::RecipientGone
        | Reason::NotJoined
        | Reason::KeyTaken
        | Reason::KeyUnknown
        | Reason::SlowConsumer
        | Reason::MessageTooBig
        | Reason::NoFirstFrame
        | Reason::ShuttingDown => Close::new(4743, "Wrong message format or unknown message"),
    }
}
