//! sigver 5: `{"type":"open"|"join","key":K}`, and then whole objects, told apart by an `index`. It contains the
//! frames of sigver 4, whose offers and candidates are such objects too.

use bytestring::ByteString;
use indexmap::IndexSet;
use serde_json::{Map, Value};

use crate::dialect::session::Action;
use crate::dialect::{Dialect, Release, close};
use crate::frame::Frame;
use crate::model::{
    Alone, Command, Event, Join, LinkId, Payload, Pick, Reason, Recipient, Rejoin, RoomKey, Side, Signal,
};

const RELEASE: Release = Release::V5_0_0;

/// The codec of one connection.
#[derive(Debug, Default)]
pub(in crate::dialect) struct Sigver5 {
    /// The opener's joiners by index: their places in the order in which they came, never reused.
    joiners: IndexSet<LinkId>,
    opener: bool,
    joiner: bool,
}

impl Sigver5 {
    pub(in crate::dialect) fn decode(&mut self, frame: &Frame) -> Action {
        let (text, binary) = match frame {
            Frame::Text(text) => (text.clone(), false),
            Frame::Binary(bytes) => match ByteString::try_from(bytes.clone()) {
                Ok(text) => (text, true),
                Err(_) => return refuse(Reason::WrongFrameKind),
            },
            Frame::Close(_) => return Action::Nothing,
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(object)) => self.object(&object, text, binary),
            Ok(Value::Null) | Err(_) => refuse(Reason::Undecodable("".into())),
            Ok(_) => refuse(Reason::NotJoined),
        }
    }

    fn object(&mut self, object: &Map<String, Value>, text: ByteString, binary: bool) -> Action {
        if let (Some(kind), Some(key)) = (object.get("type"), object.get("key")) {
            return match kind.as_str() {
                Some("open") => {
                    self.opener = true;
                    self.joiners.clear();
                    Action::Enter(room_key(key), Command::Open)
                }
                Some("join") => {
                    self.joiner = true;
                    let join = Join { alone: Alone::Refuse, pick: Pick::Oldest, rejoin: Rejoin::KeepHearing };
                    Action::Enter(room_key(key), Command::Join(join))
                }
                _ => refuse(Reason::UnknownMessage),
            };
        }
        let to = match object.get("index") {
            Some(index) => match self.joiner_at(index) {
                Some(link) => Recipient::Joiner(link),
                None => return refuse(Reason::UnknownRecipient),
            },
            None if self.joiner => Recipient::Member,
            None => return refuse(Reason::NotJoined),
        };
        let signal = Signal::Data { payload: Payload::Attributes { text, binary }, last: false };
        Action::Ask(Command::Relay { to, signal, origin: Dialect::Sigver5.origin() })
    }

    /// The joiner that an index names, as a number or in digits.
    fn joiner_at(&self, index: &Value) -> Option<LinkId> {
        let index = match index {
            Value::String(digits) => digits.parse().ok()?,
            Value::Number(number) => usize::try_from(number.as_u64()?).ok()?,
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        self.joiners.get_index(index).copied()
    }

    pub(in crate::dialect) fn encode(&mut self, event: Event, out: &mut Vec<Frame>) {
        match event {
            Event::JoinerArrived { link } => {
                self.joiners.insert(link);
                out.push(Frame::text(ByteString::from_static("{\"type\":\"join\"}")));
            }
            Event::Relayed { link, side, signal: Signal::Data { payload, .. }, .. } => match side {
                Side::Joiner => out.push(forwarded(payload)),
                Side::Member => {
                    let mut attributes = payload.into_attributes();
                    let (index, _) = self.joiners.insert_full(link);
                    attributes.insert("index".to_owned(), index.to_string().into());
                    out.push(Frame::text(Value::Object(attributes).to_string()));
                }
            },
            Event::Refused(reason) | Event::Evicted(reason) => {
                out.push(Frame::Close(close(RELEASE, &reason)))
            }
            // An opener cannot know that a joiner is gone: nobody told it, and the others still need it.
            Event::Undeliverable(Reason::UnknownRecipient) => {}
            Event::Undeliverable(reason) => out.push(Frame::Close(close(RELEASE, &reason))),
            // The dialect has no words for these.
            Event::Admitted
            | Event::Settled { .. }
            | Event::Bound { .. }
            | Event::Relayed { signal: Signal::End | Signal::Fail { .. } | Signal::Empty, .. }
            | Event::LinkEnded { .. } => {}
        }
    }
}

/// What a joiner gets to see: the opener's frame as it is.
fn forwarded(payload: Payload) -> Frame {
    match payload {
        Payload::Attributes { text, binary: false } => Frame::Text(text),
        Payload::Attributes { text, binary: true } => Frame::Binary(text.into_bytes()),
        bytes @ Payload::Bytes(_) => Frame::text(Value::Object(bytes.into_attributes()).to_string()),
    }
}

/// Keys are compared strictly by the original: the number 1 is not the text "1".
fn room_key(key: &Value) -> RoomKey {
    match key {
        Value::String(key) => RoomKey::from(key.as_str()),
        other => RoomKey::from(format!("\0{other}").as_str()),
    }
}

fn refuse(reason: Reason) -> Action {
    Action::Close(close(RELEASE, &reason))
}
