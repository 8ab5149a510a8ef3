//! What is wrong, in the numbers and words of each JSON release. Texts are measured on the originals, their slips of
//! the pen included; where an original crashed or told of an accident of its own, ours say so in its code.

use std::borrow::Cow;

use serde_json::Value;

use super::sent::in_words;
use crate::dialect::Release;
use crate::frame::Close;
use crate::model::Reason;

/// What is wrong.
#[derive(Clone, Copy, Debug)]
pub(in crate::dialect) enum Fault<'a> {
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

impl<'a> Fault<'a> {
    /// What a room's reason is to the client that asked for `key`.
    pub(in crate::dialect) fn of(reason: &Reason, key: &'a str) -> Self {
        match reason {
            Reason::KeyTaken => Fault::KeyTaken(key),
            Reason::KeyUnknown => Fault::KeyUnknown(key),
            Reason::KeyEmpty => Fault::KeyEmpty,
            Reason::KeyTooLong => Fault::KeyTooLong,
            Reason::UnknownRecipient => Fault::UnknownId,
            Reason::RecipientGone => Fault::OpenerGone(key),
            Reason::NotJoined => Fault::BeforeJoin,
            Reason::Unresponsive => Fault::Unresponsive,
            Reason::Replaced => Fault::Replaced,
            Reason::UnknownMessage | Reason::EmptyContent { .. } => Fault::Unknown(""),
            Reason::Undecodable(_)
            | Reason::WrongFrameKind
            | Reason::TooSlow
            | Reason::TooBig
            | Reason::Silent
            | Reason::ShuttingDown => Fault::NotJson,
        }
    }
}

const REPLACED: &str = "A joining peer could not join through this peer, and replaced it";
const TOO_LONG: &str = "The key is longer than 4096 bytes";

/// The close frame that says what is wrong in the words of `release`, which is of the JSON family.
pub(in crate::dialect) fn close(release: Release, fault: Fault<'_>) -> Close {
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
fn first(fault: Fault<'_>) -> Close {
    Close::new(
        1000,
        match fault {
            Fault::Unknown(_) | Fault::KeyTaken(_) | Fault::KeyUnknown(_) => "",
            Fault::NotJson => "the message is not a JSON object",
            Fault::UnknownId | Fault::JoinerGone | Fault::BadId => "the index is not one of a joined peer",
            Fault::OpenerGone(_) => "the opener is gone",
            Fault::BeforeOpen | Fault::BeforeJoin => "neither opened nor joined",
            Fault::KeyType(_) | Fault::KeyEmpty => "there is no key",
            Fault::KeyTooLong => TOO_LONG,
            Fault::Unresponsive => "no answer to a ping",
            Fault::Replaced => REPLACED,
        },
    )
}

/// sigver 5. It crashed where it says 1007 for a frame that is no JSON object, and for unknown indexes.
fn five(fault: Fault<'_>) -> Close {
    const FIRST: &str =
        "The first message received from any socket must contain \"type\" and \"key\" attributes";
    match fault {
        Fault::KeyTaken(_) => Close::new(1008, "Another web socket with the same key has been created"),
        Fault::KeyUnknown(_) | Fault::OpenerGone(_) => Close::new(1008, "The provided key is not available"),
        Fault::BeforeJoin | Fault::BeforeOpen => Close::new(1008, FIRST),
        Fault::KeyTooLong => Close::new(1008, TOO_LONG),
        Fault::UnknownId | Fault::JoinerGone | Fault::BadId => {
            Close::new(1008, "The index is not one of a joined peer")
        }
        Fault::Replaced => Close::new(1008, REPLACED),
        Fault::NotJson | Fault::Unknown(_) | Fault::KeyType(_) | Fault::KeyEmpty | Fault::Unresponsive => {
            Close::new(1007, "Unsupported data format")
        }
    }
}

fn six(fault: Fault<'_>) -> Close {
    match fault {
        Fault::KeyTaken(_) => Close::new(1008, "The key already exists"),
        Fault::KeyUnknown(_) => Close::new(1008, "The key does not exist"),
        Fault::BeforeJoin => Close::new(1008, "Joinkey request has not been sent"),
        Fault::KeyTooLong => Close::new(1008, TOO_LONG),
        Fault::Replaced => Close::new(1008, REPLACED),
        Fault::Unknown(_) | Fault::KeyType(_) | Fault::KeyEmpty => {
            Close::new(1007, "Unsupported message format")
        }
        // What it says whenever something goes wrong inside it.
        Fault::NotJson
        | Fault::BadId
        | Fault::UnknownId
        | Fault::JoinerGone
        | Fault::OpenerGone(_)
        | Fault::BeforeOpen
        | Fault::Unresponsive => Close::new(1003, "Server accepts only JSON"),
    }
}

/// sigver 7.0, with the codes of the RFC, and 7.1, with its own.
fn seven(release: Release, fault: Fault<'_>) -> Close {
    let (old, new, text) = match fault {
        Fault::NotJson => (1003, 4000, "Server accepts only JSON"),
        Fault::Unknown(_)
        | Fault::BadId
        | Fault::KeyType(_)
        | Fault::KeyEmpty
        | Fault::BeforeJoin
        | Fault::BeforeOpen => (1007, 4001, "Unsupported message format"),
        Fault::KeyTaken(_) => (1008, 4002, "The key already exists"),
        Fault::KeyUnknown(_) => (1008, 4003, "Unknown key"),
        Fault::KeyTooLong => (1008, 4003, TOO_LONG),
        Fault::UnknownId | Fault::JoinerGone => (1008, 4004, "Unknown id"),
        Fault::OpenerGone(_) => (1008, 4004, "The peer is no longer available"),
        Fault::Unresponsive => (1008, 4004, "no answer to a ping"),
        Fault::Replaced => (1008, 4004, REPLACED),
    };
    Close::new(if release == Release::V7_0_0 { old } else { new }, text)
}

fn seven_six(fault: Fault<'_>) -> Close {
    match fault {
        Fault::NotJson => Close::new(4000, "Server accepts only JSON string"),
        Fault::Unknown(text) => Close::new(4001, format!("Unknown JSON attribute: {text}")),
        Fault::BadId | Fault::KeyType(_) | Fault::KeyEmpty | Fault::BeforeJoin | Fault::BeforeOpen => {
            Close::new(4001, "Unsupported message format")
        }
        Fault::KeyTaken(key) => Close::new(4002, format!("The key {key} exists already")),
        Fault::KeyUnknown(key) => Close::new(4003, format!("Unknown key: {key}")),
        Fault::KeyTooLong => Close::new(4003, TOO_LONG),
        Fault::OpenerGone(key) => Close::new(4004, format!("{key} is no longer available")),
        Fault::UnknownId | Fault::JoinerGone => Close::new(4004, "Unknown id"),
        Fault::Unresponsive => Close::new(4004, "no answer to a ping"),
        Fault::Replaced => Close::new(4004, REPLACED),
    }
}

const NOT_JSON: &str = "The message is not a JSON string";
const TOO_LONG_512: &str = "The key length exceeds the limit of 512 characters";

/// What is wrong with a key, in the words of sigver 8 to 14.
fn about_key(fault: Fault<'_>) -> Cow<'static, str> {
    match fault {
        Fault::KeyType(key) => format!("The key {} is not a string", in_words(key)).into(),
        Fault::KeyEmpty => "The key  is an empty string".into(),
        _ => TOO_LONG_512.into(),
    }
}

/// sigver 8.0, and 8.1, which named and numbered its errors anew.
fn eight(release: Release, fault: Fault<'_>) -> Close {
    let old = release == Release::V8_0_2;
    let message = if old { "MESSAGE_FORMAT_ERROR" } else { "MESSAGE_ERROR" };
    let (code, name, text): (u16, &str, Cow<'_, str>) = match fault {
        Fault::NotJson => (4000, message, NOT_JSON.into()),
        Fault::Unknown(_) => (4000, message, "Unknown message".into()),
        Fault::BadId => (4000, message, "The joining id is not a number".into()),
        Fault::KeyTooLong if old => (4010, "KEY_TOO_LONG", TOO_LONG_512.into()),
        Fault::KeyType(_) | Fault::KeyEmpty if old => (4011, "KEY_FORMAT_ERROR", about_key(fault)),
        Fault::KeyType(_) | Fault::KeyEmpty | Fault::KeyTooLong => (4001, "KEY_ERROR", about_key(fault)),
        Fault::KeyTaken(key) if old => {
            (4012, "KEY_EXISTS", format!("The key \"{key}\"\" exists already").into())
        }
        Fault::KeyTaken(key) => {
            (4010, "KEY_EXISTS", format!("The key \"{key}\" has already been used for open").into())
        }
        Fault::KeyUnknown(_) => (if old { 4013 } else { 4011 }, "KEY_UNKNOWN", "Unknown key".into()),
        Fault::OpenerGone(_) => (4020, "OPENER_NO_LONGER_AVAILABLE", "Opener is no longer available".into()),
        Fault::JoinerGone | Fault::UnknownId => {
            (4021, "JOINING_NO_LONGER_AVAILABLE", "Joining is no longer available".into())
        }
        Fault::BeforeOpen => (4022, "TRANSMIT_BEFORE_OPEN", "Transmitting data before open".into()),
        Fault::BeforeJoin => (4023, "TRANSMIT_BEFORE_JOIN", "Transmitting data before join".into()),
        Fault::Unresponsive => (4024, "PONG_ERROR", "no answer to a ping".into()),
        Fault::Replaced => (4025, "REPLACED", REPLACED.into()),
    };
    Close::new(code, format!("{name}: {text}"))
}

/// sigver 9 to 14: the code is part of the text up to 11.
fn nine(release: Release, fault: Fault<'_>) -> Close {
    let with_text = release >= Release::V11_0_0;
    let (code, name, text): (u16, &str, Cow<'_, str>) = match fault {
        Fault::NotJson => (4000, "MESSAGE_ERROR", NOT_JSON.into()),
        Fault::Unknown(text) if with_text => {
            (4000, "MESSAGE_ERROR", format!("Unknown message: {text}").into())
        }
        Fault::Unknown(_) => (4000, "MESSAGE_ERROR", "Unknown message".into()),
        Fault::BadId if with_text => (4000, "MESSAGE_ERROR", "The joining id is not a string".into()),
        Fault::BadId => (4000, "MESSAGE_ERROR", "The joining id is not a number".into()),
        Fault::KeyType(_) | Fault::KeyEmpty | Fault::KeyTooLong => (4001, "KEY_ERROR", about_key(fault)),
        Fault::BeforeOpen => (4010, "TRANSMIT_BEFORE_OPEN", "Transmitting data before open".into()),
        Fault::BeforeJoin => (4011, "TRANSMIT_BEFORE_JOIN", "Transmitting data before join".into()),
        // From here on the originals had no words.
        Fault::KeyTaken(_) => (4001, "KEY_ERROR", "The key is taken".into()),
        Fault::KeyUnknown(_) => (4001, "KEY_ERROR", "Unknown key".into()),
        Fault::UnknownId | Fault::JoinerGone | Fault::OpenerGone(_) => {
            (4000, "MESSAGE_ERROR", "The peer is no longer available".into())
        }
        Fault::Unresponsive => (4002, "PONG_ERROR", "no answer to a ping within 5 seconds".into()),
        Fault::Replaced => (4003, "REPLACED", REPLACED.into()),
    };
    let numbered = release <= Release::V11_0_0;
    let reason = if numbered { format!("{name}={code}: {text}") } else { format!("{name}: {text}") };
    Close::new(code, reason)
}
