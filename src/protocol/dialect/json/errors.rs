//! What is wrong, in the numbers and words of each JSON release. Texts are measured on the originals, their slips of
//! the pen included; where an original crashed or told of an accident of its own, ours say so in its code.

use std::borrow::Cow;

use serde_json::Value;

use super::js_semantics::in_words;
use crate::protocol::dialect::Release;
use crate::protocol::frame::Close;
use crate::protocol::model::Reason;

/// What is wrong.
#[derive(Clone, Copy, Debug)]
pub(in crate::protocol::dialect) enum JsonError<'a> {
    /// The frame is not JSON.
    NotJson,
    /// It is, and means nothing; the text.
    Unknown(&'a str),
    /// The id is not of the type that ids have.
    BadId,
    /// The key is not a string.
    KeyType(&'a Value),
    KeyEmpty,
    KeyTooLong,
    /// Somebody has opened the key.
    KeyTaken(&'a str),
    /// Nobody has.
    KeyUnknown(&'a str),
    /// No joiner has, or ever had, this id.
    UnknownId,
    /// The joiner has gone.
    JoinerGone,
    /// The opener of this key has gone.
    OpenerGone(&'a str),
    /// Data for a joiner from one who has not opened.
    BeforeOpen,
    /// Data for an opener from one who has not joined.
    BeforeJoin,
    /// A ping was not answered.
    Unresponsive,
    /// A joiner that could not join through it took its place.
    Replaced,
}

impl<'a> JsonError<'a> {
    /// What a room's reason is to the client that asked for `key`.
    pub(in crate::protocol::dialect) fn of(reason: &Reason, key: &'a str) -> Self {
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
            | Reason::MessageTooBig
            | Reason::NoFirstFrame
            | Reason::ShuttingDown => JsonError::NotJson,
        }
    }
}

const REPLACED: &str = "A joining peer could not join through this peer, and replaced it";
const TOO_LONG: &str = "The key is longer than 4096 bytes";

/// The close frame that says what is wrong in the words of `release`, which is of the JSON family.
pub(in crate::protocol::dialect) fn close(release: Release, fault: JsonError<'_>) -> Close {
    match release {
        Release::V3_0_0 | Release::V4_0_0 => first(fault),
        Release::V5_0_0 => five(fault),
        Release::V6_0_0 => six(fault),
        Release::V7_0_0 | Release::V7_1_0 => seven(release, fault),
        Release::V7_6_4 => seven_six(fault),
        Release::V8_0_2 | Release::V8_1_0 => eight(release, fault),
        Release::V9_1_0 | Release::V10_1_0 | Release::V11_0_0 | Release::V14_0_0 => nine(release, fault),
        Release::V15_0_1
        | Release::V15_0_2
        | Release::V15_0_4
        | Release::V15_1_0
        | Release::V16_0_0
        | Release::V17_0_1
        | Release::V18_0_0
        | Release::V19_0_0
        | Release::V19_1_2
        | Release::V20_0_2
        | Release::V20_1_0 => Close::empty(),
    }
}

/// sigver 1 to 4 closed with 1000 and no words, or crashed: then ours has words.
fn first(fault: JsonError<'_>) -> Close {
    Close::new(
        1000,
        match fault {
            JsonError::Unknown(_) | JsonError::KeyTaken(_) | JsonError::KeyUnknown(_) => "",
            JsonError::NotJson => "the message is not a JSON object",
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

/// sigver 5. It crashed where it says 1007 for a frame that is no JSON object, and for unknown indexes.
fn five(fault: JsonError<'_>) -> Close {
    const FIRST: &str =
        "The first message received from any socket must contain \"type\" and \"key\" attributes";
    match fault {
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
        JsonError::NotJson
        | JsonError::Unknown(_)
        | JsonError::KeyType(_)
        | JsonError::KeyEmpty
        | JsonError::Unresponsive => Close::new(1007, "Unsupported data format"),
    }
}

fn six(fault: JsonError<'_>) -> Close {
    match fault {
        JsonError::KeyTaken(_) => Close::new(1008, "The key already exists"),
        JsonError::KeyUnknown(_) => Close::new(1008, "The key does not exist"),
        JsonError::BeforeJoin => Close::new(1008, "Joinkey request has not been sent"),
        JsonError::KeyTooLong => Close::new(1008, TOO_LONG),
        JsonError::Replaced => Close::new(1008, REPLACED),
        JsonError::Unknown(_) | JsonError::KeyType(_) | JsonError::KeyEmpty => {
            Close::new(1007, "Unsupported message format")
        }
        // What it says whenever something goes wrong inside it.
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
fn seven(release: Release, fault: JsonError<'_>) -> Close {
    let (old, new, text) = match fault {
        JsonError::NotJson => (1003, 4000, "Server accepts only JSON"),
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
    Close::new(if release == Release::V7_0_0 { old } else { new }, text)
}

fn seven_six(fault: JsonError<'_>) -> Close {
    match fault {
        JsonError::NotJson => Close::new(4000, "Server accepts only JSON string"),
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
const TOO_LONG_512: &str = "The key length exceeds the limit of 512 characters";

/// What is wrong with a key, in the words of sigver 8 to 14.
fn about_key(fault: JsonError<'_>) -> Cow<'static, str> {
    match fault {
        JsonError::KeyType(key) => format!("The key {} is not a string", in_words(key)).into(),
        JsonError::KeyEmpty => "The key  is an empty string".into(),
        _ => TOO_LONG_512.into(),
    }
}

/// sigver 8.0, and 8.1, which named and numbered its errors anew.
fn eight(release: Release, fault: JsonError<'_>) -> Close {
    let old = release == Release::V8_0_2;
    let message = if old { "MESSAGE_FORMAT_ERROR" } else { "MESSAGE_ERROR" };
    let (code, name, text): (u16, &str, Cow<'_, str>) = match fault {
        JsonError::NotJson => (4000, message, NOT_JSON.into()),
        JsonError::Unknown(_) => (4000, message, "Unknown message".into()),
        JsonError::BadId => (4000, message, "The joining id is not a number".into()),
        JsonError::KeyTooLong if old => (4010, "KEY_TOO_LONG", TOO_LONG_512.into()),
        JsonError::KeyType(_) | JsonError::KeyEmpty if old => (4011, "KEY_FORMAT_ERROR", about_key(fault)),
        JsonError::KeyType(_) | JsonError::KeyEmpty | JsonError::KeyTooLong => {
            (4001, "KEY_ERROR", about_key(fault))
        }
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

/// sigver 9 to 14: the code is part of the text up to 11.
fn nine(release: Release, fault: JsonError<'_>) -> Close {
    let with_text = release >= Release::V11_0_0;
    let (code, name, text): (u16, &str, Cow<'_, str>) = match fault {
        JsonError::NotJson => (4000, "MESSAGE_ERROR", NOT_JSON.into()),
        JsonError::Unknown(text) if with_text => {
            (4000, "MESSAGE_ERROR", format!("Unknown message: {text}").into())
        }
        JsonError::Unknown(_) => (4000, "MESSAGE_ERROR", "Unknown message".into()),
        JsonError::BadId if with_text => (4000, "MESSAGE_ERROR", "The joining id is not a string".into()),
        JsonError::BadId => (4000, "MESSAGE_ERROR", "The joining id is not a number".into()),
        JsonError::KeyType(_) | JsonError::KeyEmpty | JsonError::KeyTooLong => {
            (4001, "KEY_ERROR", about_key(fault))
        }
        JsonError::BeforeOpen => (4010, "TRANSMIT_BEFORE_OPEN", "Transmitting data before open".into()),
        JsonError::BeforeJoin => (4011, "TRANSMIT_BEFORE_JOIN", "Transmitting data before join".into()),
        // From here on the originals had no words.
        JsonError::KeyTaken(_) => (4001, "KEY_ERROR", "The key is taken".into()),
        JsonError::KeyUnknown(_) => (4001, "KEY_ERROR", "Unknown key".into()),
        JsonError::UnknownId | JsonError::JoinerGone | JsonError::OpenerGone(_) => {
            (4000, "MESSAGE_ERROR", "The peer is no longer available".into())
        }
        JsonError::Unresponsive => (4002, "PONG_ERROR", "no answer to a ping within 5 seconds".into()),
        JsonError::Replaced => (4003, "REPLACED", REPLACED.into()),
    };
    let numbered = release <= Release::V11_0_0;
    let reason = if numbered { format!("{name}={code}: {text}") } else { format!("{name}: {text}") };
    Close::new(code, reason)
}
