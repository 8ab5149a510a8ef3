//! The errors of the JSON dialects, with the close code and text of each release. Texts are byte for byte
//! those of the Node.js servers, typos included. Where a server crashed or reported an internal error, the
//! text is ours, under the nearest code.

use std::borrow::Cow;

use super::Release;
use super::json_text::{JsonSyntaxError, MAX_DEPTH, to_js_string};
use super::key_limit::{KEY_EMPTY, KEY_TOO_LONG};
use super::release::JsonErrorTexts;
use crate::protocol::frame::Close;
use crate::protocol::model::Reason;

/// An error of a client, or of the room it asked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::protocol::dialect) enum JsonError<'a> {
    /// The frame is not JSON.
    NotJson,
    /// The JSON of the frame is nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// No message of the dialect; the text of the frame.
    Unknown(&'a str),
    /// The id is not of the type that ids have.
    BadId,
    /// The key is not a string; its JSON text.
    KeyType(&'a str),
    /// The key is empty.
    KeyEmpty,
    /// The key exceeds the limit of the release.
    KeyTooLong,
    /// The key is opened by another client.
    KeyTaken(&'a str),
    /// No client has opened the key.
    KeyUnknown(&'a str),
    /// No joiner has or had this id.
    UnknownId,
    /// The joiner has disconnected.
    JoinerGone,
    /// The opener of this key has disconnected.
    OpenerGone(&'a str),
    /// Data for a joiner before the client has opened a key.
    BeforeOpen,
    /// Data for an opener before the client has joined.
    BeforeJoin,
    /// A ping was not answered.
    Unresponsive,
    /// A joiner that could not join through the client took its place.
    Replaced,
}

impl From<JsonSyntaxError> for JsonError<'_> {
    fn from(error: JsonSyntaxError) -> Self {
        match error {
            JsonSyntaxError::NotJson => JsonError::NotJson,
            JsonSyntaxError::TooDeep => JsonError::TooDeep,
        }
    }
}

impl<'a> JsonError<'a> {
    /// Converts the reason of a room, for the client that asked for `key`.
    pub(in crate::protocol::dialect) fn from_reason(reason: &Reason, key: &'a str) -> Self {
        match reason {
            Reason::KeyTaken => JsonError::KeyTaken(key),
            Reason::KeyUnknown => JsonError::KeyUnknown(key),
            Reason::KeyEmpty => JsonError::KeyEmpty,
            Reason::KeyTooLong => JsonError::KeyTooLong,
            Reason::UnknownRecipient => JsonError::UnknownId,
            Reason::RecipientGone => JsonError::OpenerGone(key),
            Reason::NotJoined => JsonError::BeforeJoin,
            Reason::Unresponsive => JsonError::Unresponsive,
            Reason::Replaced => JsonError::Replaced,
            Reason::UnknownMessage | Reason::EmptyContent { .. } => JsonError::Unknown(""),
            Reason::DecodeError(_)
            | Reason::WrongFrameKind
            | Reason::SlowConsumer
            | Reason::ReceiverFull
            | Reason::Overloaded
            | Reason::TooManyMembers
            | Reason::TooManyJoiners
            | Reason::MemberKept
            | Reason::KeyForbidden
            | Reason::TokenExpired
            | Reason::TooManyRooms
            | Reason::MessageTimeout
            | Reason::MessageTooBig
            | Reason::NoFirstFrame
            | Reason::ShuttingDown
            | Reason::Moved
            | Reason::Unreachable => JsonError::NotJson,
        }
    }
}

const REPLACED: &str = "A joining peer could not join through this peer, and replaced it";
pub(in crate::protocol::dialect) const TOO_LONG: &str = "The key is longer than 4096 bytes";
/// Number of levels: [`MAX_DEPTH`].
pub(in crate::protocol::dialect) const TOO_DEEP: &str = "The message is nested deeper than 512 levels";
const _: () = assert!(MAX_DEPTH == 512);

/// Returns the close frame by which `release`, one of the JSON family, reports an error.
pub(in crate::protocol::dialect) fn close(release: Release, error: JsonError<'_>) -> Close {
    match release.json().map(|facts| facts.errors) {
        Some(JsonErrorTexts::V1To4) => close_1_to_4(error),
        Some(JsonErrorTexts::V5) => close_5(error),
        Some(JsonErrorTexts::V6) => close_6(error),
        Some(texts @ (JsonErrorTexts::V7_0 | JsonErrorTexts::V7_1)) => close_7(texts, error),
        Some(JsonErrorTexts::V7_6) => close_7_6(error),
        Some(texts @ (JsonErrorTexts::V8_0 | JsonErrorTexts::V8_1)) => close_8(texts, error),
        Some(texts @ (JsonErrorTexts::V9To10 | JsonErrorTexts::V11 | JsonErrorTexts::V13)) => {
            close_9_to_14(texts, error)
        }
        None => Close::empty(),
    }
}

/// sigver 1 to 4 closed with 1000 and no text, or crashed: then the text is ours.
fn close_1_to_4(error: JsonError<'_>) -> Close {
    Close::new(
        1000,
        match error {
            JsonError::Unknown(_) | JsonError::KeyTaken(_) | JsonError::KeyUnknown(_) => "",
            JsonError::NotJson => "the message is not a JSON object",
            JsonError::TooDeep => TOO_DEEP,
            JsonError::UnknownId | JsonError::JoinerGone | JsonError::BadId => {
                "the index is not one of a joined peer"
            }
            JsonError::OpenerGone(_) => "the opener is gone",
            JsonError::BeforeOpen | JsonError::BeforeJoin => "neither opened nor joined",
            JsonError::KeyType(_) | JsonError::KeyEmpty => "there is no key",
            JsonError::KeyTooLong => TOO_LONG,
            JsonError::Unresponsive => "no answer to a ping",
            JsonError::Replaced => REPLACED,
        },
    )
}

/// sigver 5. It crashed on frames that are no JSON object, and on unknown indexes.
fn close_5(error: JsonError<'_>) -> Close {
    const FIRST: &str =
        "The first message received from any socket must contain \"type\" and \"key\" attributes";
    match error {
        JsonError::KeyTaken(_) => Close::new(1008, "Another web socket with the same key has been created"),
        JsonError::KeyUnknown(_) | JsonError::OpenerGone(_) => {
            Close::new(1008, "The provided key is not available")
        }
        JsonError::BeforeJoin | JsonError::BeforeOpen => Close::new(1008, FIRST),
        JsonError::KeyTooLong => Close::new(1008, TOO_LONG),
        JsonError::UnknownId | JsonError::JoinerGone | JsonError::BadId => {
            Close::new(1008, "The index is not one of a joined peer")
        }
        JsonError::Replaced => Close::new(1008, REPLACED),
        JsonError::TooDeep => Close::new(1007, TOO_DEEP),
        JsonError::NotJson
        | JsonError::Unknown(_)
        | JsonError::KeyType(_)
        | JsonError::KeyEmpty
        | JsonError::Unresponsive => Close::new(1007, "Unsupported data format"),
    }
}

fn close_6(error: JsonError<'_>) -> Close {
    match error {
        JsonError::KeyTaken(_) => Close::new(1008, "The key already exists"),
        JsonError::KeyUnknown(_) => Close::new(1008, "The key does not exist"),
        JsonError::BeforeJoin => Close::new(1008, "Joinkey request has not been sent"),
        JsonError::KeyTooLong => Close::new(1008, TOO_LONG),
        JsonError::Replaced => Close::new(1008, REPLACED),
        JsonError::Unknown(_) | JsonError::KeyType(_) | JsonError::KeyEmpty => {
            Close::new(1007, "Unsupported message format")
        }
        JsonError::TooDeep => Close::new(1003, TOO_DEEP),
        // Sent for every internal error.
        JsonError::NotJson
        | JsonError::BadId
        | JsonError::UnknownId
        | JsonError::JoinerGone
        | JsonError::OpenerGone(_)
        | JsonError::BeforeOpen
        | JsonError::Unresponsive => Close::new(1003, "Server accepts only JSON"),
    }
}

/// sigver 7.0, with the codes of the RFC, and 7.1, with its own.
fn close_7(texts: JsonErrorTexts, error: JsonError<'_>) -> Close {
    let (old, new, text) = match error {
        JsonError::NotJson => (1003, 4000, "Server accepts only JSON"),
        JsonError::TooDeep => (1003, 4000, TOO_DEEP),
        JsonError::Unknown(_)
        | JsonError::BadId
        | JsonError::KeyType(_)
        | JsonError::KeyEmpty
        | JsonError::BeforeJoin
        | JsonError::BeforeOpen => (1007, 4001, "Unsupported message format"),
        JsonError::KeyTaken(_) => (1008, 4002, "The key already exists"),
        JsonError::KeyUnknown(_) => (1008, 4003, "Unknown key"),
        JsonError::KeyTooLong => (1008, 4003, TOO_LONG),
        JsonError::UnknownId | JsonError::JoinerGone => (1008, 4004, "Unknown id"),
        JsonError::OpenerGone(_) => (1008, 4004, "The peer is no longer available"),
        JsonError::Unresponsive => (1008, 4004, "no answer to a ping"),
        JsonError::Replaced => (1008, 4004, REPLACED),
    };
    Close::new(if texts == JsonErrorTexts::V7_0 { old } else { new }, text)
}

fn close_7_6(error: JsonError<'_>) -> Close {
    match error {
        JsonError::NotJson => Close::new(4000, "Server accepts only JSON string"),
        JsonError::TooDeep => Close::new(4000, TOO_DEEP),
        JsonError::Unknown(text) => Close::new(4001, format!("Unknown JSON attribute: {text}")),
        JsonError::BadId
        | JsonError::KeyType(_)
        | JsonError::KeyEmpty
        | JsonError::BeforeJoin
        | JsonError::BeforeOpen => Close::new(4001, "Unsupported message format"),
        JsonError::KeyTaken(key) => Close::new(4002, format!("The key {key} exists already")),
        JsonError::KeyUnknown(key) => Close::new(4003, format!("Unknown key: {key}")),
        JsonError::KeyTooLong => Close::new(4003, TOO_LONG),
        JsonError::OpenerGone(key) => Close::new(4004, format!("{key} is no longer available")),
        JsonError::UnknownId | JsonError::JoinerGone => Close::new(4004, "Unknown id"),
        JsonError::Unresponsive => Close::new(4004, "no answer to a ping"),
        JsonError::Replaced => Close::new(4004, REPLACED),
    }
}

const NOT_JSON: &str = "The message is not a JSON string";

/// Returns the text of sigver 8 to 14 about a key that is no string.
fn key_type_text(key: &str) -> String {
    format!("The key {} is not a string", to_js_string(key))
}

/// sigver 8.0, and 8.1, which renamed and renumbered its errors.
fn close_8(texts: JsonErrorTexts, error: JsonError<'_>) -> Close {
    let old = texts == JsonErrorTexts::V8_0;
    let message = if old { "MESSAGE_FORMAT_ERROR" } else { "MESSAGE_ERROR" };
    let (key_code, key_name) = if old { (4011, "KEY_FORMAT_ERROR") } else { (4001, "KEY_ERROR") };
    let (code, name, text): (u16, &str, Cow<'_, str>) = match error {
        JsonError::NotJson => (4000, message, NOT_JSON.into()),
        JsonError::TooDeep => (4000, message, TOO_DEEP.into()),
        JsonError::Unknown(_) => (4000, message, "Unknown message".into()),
        JsonError::BadId => (4000, message, "The joining id is not a number".into()),
        JsonError::KeyTooLong if old => (4010, "KEY_TOO_LONG", KEY_TOO_LONG.into()),
        JsonError::KeyTooLong => (4001, "KEY_ERROR", KEY_TOO_LONG.into()),
        JsonError::KeyType(key) => (key_code, key_name, key_type_text(key).into()),
        JsonError::KeyEmpty => (key_code, key_name, KEY_EMPTY.into()),
        JsonError::KeyTaken(key) if old => {
            (4012, "KEY_EXISTS", format!("The key \"{key}\"\" exists already").into())
        }
        JsonError::KeyTaken(key) => {
            (4010, "KEY_EXISTS", format!("The key \"{key}\" has already been used for open").into())
        }
        JsonError::KeyUnknown(_) => (if old { 4013 } else { 4011 }, "KEY_UNKNOWN", "Unknown key".into()),
        JsonError::OpenerGone(_) => {
            (4020, "OPENER_NO_LONGER_AVAILABLE", "Opener is no longer available".into())
        }
        JsonError::JoinerGone | JsonError::UnknownId => {
            (4021, "JOINING_NO_LONGER_AVAILABLE", "Joining is no longer available".into())
        }
        JsonError::BeforeOpen => (4022, "TRANSMIT_BEFORE_OPEN", "Transmitting data before open".into()),
        JsonError::BeforeJoin => (4023, "TRANSMIT_BEFORE_JOIN", "Transmitting data before join".into()),
        JsonError::Unresponsive => (4024, "PONG_ERROR", "no answer to a ping".into()),
        JsonError::Replaced => (4025, "REPLACED", REPLACED.into()),
    };
    Close::new(code, format!("{name}: {text}"))
}

/// sigver 9 to 14. Up to 11 the code is part of the text.
fn close_9_to_14(texts: JsonErrorTexts, error: JsonError<'_>) -> Close {
    let with_text = texts != JsonErrorTexts::V9To10;
    let (code, name, text): (u16, &str, Cow<'_, str>) = match error {
        JsonError::NotJson => (4000, "MESSAGE_ERROR", NOT_JSON.into()),
        JsonError::TooDeep => (4000, "MESSAGE_ERROR", TOO_DEEP.into()),
        JsonError::Unknown(text) if with_text => {
            (4000, "MESSAGE_ERROR", format!("Unknown message: {text}").into())
        }
        JsonError::Unknown(_) => (4000, "MESSAGE_ERROR", "Unknown message".into()),
        JsonError::BadId if with_text => (4000, "MESSAGE_ERROR", "The joining id is not a string".into()),
        JsonError::BadId => (4000, "MESSAGE_ERROR", "The joining id is not a number".into()),
        JsonError::KeyType(key) => (4001, "KEY_ERROR", key_type_text(key).into()),
        JsonError::KeyEmpty => (4001, "KEY_ERROR", KEY_EMPTY.into()),
        JsonError::KeyTooLong => (4001, "KEY_ERROR", KEY_TOO_LONG.into()),
        JsonError::BeforeOpen => (4010, "TRANSMIT_BEFORE_OPEN", "Transmitting data before open".into()),
        JsonError::BeforeJoin => (4011, "TRANSMIT_BEFORE_JOIN", "Transmitting data before join".into()),
        // The Node.js servers had no text for the rest.
        JsonError::KeyTaken(_) => (4001, "KEY_ERROR", "The key is taken".into()),
        JsonError::KeyUnknown(_) => (4001, "KEY_ERROR", "Unknown key".into()),
        JsonError::UnknownId | JsonError::JoinerGone | JsonError::OpenerGone(_) => {
            (4000, "MESSAGE_ERROR", "The peer is no longer available".into())
        }
        JsonError::Unresponsive => (4002, "PONG_ERROR", "no answer to a ping within 5 seconds".into()),
        JsonError::Replaced => (4003, "REPLACED", REPLACED.into()),
    };
    let numbered = texts != JsonErrorTexts::V13;
    let reason = if numbered { format!("{name}={code}: {text}") } else { format!("{name}: {text}") };
    Close::new(code, reason)
}
