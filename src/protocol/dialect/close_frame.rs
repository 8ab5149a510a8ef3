//! The close frames of each release. Texts are measured on the Node.js servers, misspellings included; where
//! a server had none (it crashed, or never closed), ours describe the error, with a code of the release.

use std::borrow::Cow;

use super::Release;
use super::json_errors::{self, JsonError};
use super::key_limit::{KEY_EMPTY, KEY_TOO_LONG};
use super::release::{CloseFrames, EmptyContentClose, FamilyFacts};
use crate::protocol::frame::Close;
use crate::protocol::model::{LinkId, Reason, Side};

/// Returns the close frame for `reason` in the codes and texts of `release`.
pub(crate) fn close_frame_for(release: Release, reason: &Reason) -> Close {
    match reason {
        // No Node.js server had these: the same in all dialects.
        Reason::SlowConsumer => Close::new(1008, "too much waits to be read by this client"),
        Reason::ReceiverFull => Close::new(1008, "too much waits to be read by the receiver"),
        Reason::Overloaded => Close::new(1013, "the server holds too much for its clients, try again later"),
        Reason::TooManyMembers | Reason::TooManyJoiners => {
            Close::new(1013, "the room has as many clients as this server allows")
        }
        Reason::MemberKept => {
            Close::new(1013, "the only member of the room is not replaced, try again later")
        }
        Reason::TooManyRooms => {
            Close::new(1013, "there are as many rooms as this server allows, try again later")
        }
        Reason::KeyForbidden => Close::new(1008, "the token is not for this key"),
        Reason::TokenExpired => Close::new(1008, "the token has expired"),
        Reason::MessageTimeout => Close::new(1008, "the rest of a message did not arrive in time"),
        Reason::MessageTooBig => Close::new(1009, "the message is longer than this server allows"),
        Reason::NoFirstFrame => Close::new(1008, "the first message did not arrive in time"),
        Reason::ShuttingDown => Close::new(1001, "the server is shutting down"),
        Reason::Moved => Close::new(1012, "the room moves to another node, connect again"),
        Reason::Unreachable => Close::new(1013, "the room cannot be reached now, try again later"),
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
        | Reason::Replaced => match &release.facts().family {
            FamilyFacts::Json(_) => json_errors::close(release, JsonError::from_reason(reason, "")),
            FamilyFacts::ProtobufV1(facts) => protobuf_frame(&facts.close, reason),
            FamilyFacts::ProtobufV2(facts) => protobuf_frame(&facts.close, reason),
        },
    }
}

fn protobuf_frame(frames: &CloseFrames, reason: &Reason) -> Close {
    let key_error = |text: &str| Close::new(frames.key.0, format!("{}: {text}", frames.key.1));
    let (code, text) = match reason {
        Reason::KeyEmpty => return key_error(KEY_EMPTY),
        Reason::KeyTooLong => return key_error(KEY_TOO_LONG),
        Reason::DecodeError(text) => {
            return frames.decode_error.map_or_else(Close::empty, |code| Close::new(code, text.clone()));
        }
        Reason::EmptyContent { link, from } => match frames.empty_content {
            EmptyContentClose::NoCode => return Close::empty(),
            EmptyContentClose::UnknownMessage => frames.unknown_message,
            EmptyContentClose::Text { code, name, member } => {
                let sender = sender(*from, *link, member);
                let text = format!("{name}: Unknown message type \"undefined\" from {sender}");
                return Close::new(code, text);
            }
        },
        Reason::WrongFrameKind => frames.wrong_frame_kind,
        Reason::Unresponsive => frames.unresponsive,
        Reason::Replaced => frames.replaced,
        Reason::UnknownMessage
        | Reason::UnknownRecipient
        | Reason::RecipientGone
        | Reason::NotJoined
        | Reason::KeyTaken
        | Reason::KeyUnknown
        | Reason::SlowConsumer
        | Reason::ReceiverFull
        | Reason::Overloaded
        | Reason::TooManyMembers
        | Reason::TooManyJoiners
        | Reason::MemberKept
        | Reason::TooManyRooms
        | Reason::KeyForbidden
        | Reason::TokenExpired
        | Reason::MessageTimeout
        | Reason::MessageTooBig
        | Reason::NoFirstFrame
        | Reason::ShuttingDown
        | Reason::Moved
        | Reason::Unreachable => frames.unknown_message,
    };
    Close::new(code, text)
}

fn sender(side: Side, link: LinkId, member: &'static str) -> Cow<'static, str> {
    match side {
        Side::Joiner => format!("the {} joining peer", link.0).into(),
        Side::Member => member.into(),
    }
}
