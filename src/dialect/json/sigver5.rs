//! sigver 5: `{"type":"open"|"join","key":K}`, and then whole objects, told apart by an `index`. It contains the
//! frames of sigver 4, whose offers and candidates are such objects too.

use std::collections::{HashMap, VecDeque};

use bytestring::ByteString;
use serde_json::{Map, Value};

use crate::dialect::session::Action;
use crate::dialect::{Dialect, Release, close};
use crate::frame::Frame;
use crate::model::{
    Alone, Command, Event, Join, LinkId, Payload, Pick, Reason, Recipient, Rejoin, RoomKey, Side, Signal,
};

const RELEASE: Release = Release::V5_0_0;

/// The longest key, in bytes. The original has no limit, and other dialects have one of 512 characters.
const MAX_KEY: usize = 4096;

/// How many joiners an opener can answer: the latest ones. The original has no limit.
const MAX_JOINERS: usize = 65_536;

/// The codec of one connection.
#[derive(Debug, Default)]
pub(in crate::dialect) struct Sigver5 {
    joiners: Joiners,
    joiner: bool,
}

/// An opener's joiners by index: their places in the order in which they came, never reused.
#[derive(Debug, Default)]
struct Joiners {
    latest: VecDeque<LinkId>,
    index: HashMap<LinkId, usize>,
    /// How many came before the latest.
    forgotten: usize,
}

impl Joiners {
    /// The index of a joiner, which is a new one if it is not known.
    fn index_of(&mut self, link: LinkId) -> usize {
        if let Some(index) = self.index.get(&link) {
            return *index;
        }
        if self.latest.len() == MAX_JOINERS
            && let Some(oldest) = self.latest.pop_front()
        {
            self.index.remove(&oldest);
            self.forgotten += 1;
        }
        let index = self.forgotten + self.latest.len();
        self.latest.push_back(link);
        self.index.insert(link, index);
        index
    }

    fn at(&self, index: usize) -> Option<LinkId> {
        self.latest.get(index.checked_sub(self.forgotten)?).copied()
    }
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
                Some("open" | "join") if room_key(key).as_str().len() > MAX_KEY => refuse(Reason::KeyTooLong),
                Some("open") => {
                    self.joiners = Joiners::default();
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
        self.joiners.at(index)
    }

    pub(in crate::dialect) fn encode(&mut self, event: Event, out: &mut Vec<Frame>) {
        match event {
            Event::JoinerArrived { link } => {
                self.joiners.index_of(link);
                out.push(Frame::text(ByteString::from_static("{\"type\":\"join\"}")));
            }
            Event::Relayed { link, side, signal: Signal::Data { payload, .. }, .. } => match side {
                Side::Joiner => out.push(forwarded(payload)),
                Side::Member => {
                    let mut attributes = payload.into_attributes();
                    let index = self.joiners.index_of(link);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Origin;

    fn sent(codec: &mut Sigver5, event: Event) -> Vec<Frame> {
        let mut out = Vec::new();
        codec.encode(event, &mut out);
        out
    }

    fn relayed(link: u32, side: Side, text: &'static str) -> Event {
        let payload = Payload::Attributes { text: text.into(), binary: false };
        let signal = Signal::Data { payload, last: false };
        Event::Relayed { link: LinkId(link), side, signal, origin: Origin::default() }
    }

    /// As the original does, which serialises the whole object again (the source of sigver 5.0.0).
    #[test]
    fn an_opener_sees_all_of_a_joiners_attributes_and_its_index() {
        let mut codec = Sigver5::default();
        sent(&mut codec, Event::JoinerArrived { link: LinkId(70) });
        sent(&mut codec, Event::JoinerArrived { link: LinkId(80) });
        assert_eq!(
            sent(&mut codec, relayed(80, Side::Member, r#"{ "type": "offer", "id": 1, "sdp": "v" }"#)),
            [Frame::text(r#"{"type":"offer","id":1,"sdp":"v","index":"1"}"#)]
        );
    }

    #[test]
    fn the_oldest_of_too_many_joiners_is_forgotten() {
        let mut joiners = Joiners::default();
        for link in 1..=MAX_JOINERS as u32 + 2 {
            joiners.index_of(LinkId(link));
        }
        assert_eq!((joiners.at(0), joiners.at(1)), (None, None));
        assert_eq!(joiners.at(2), Some(LinkId(3)));
        assert_eq!(joiners.at(MAX_JOINERS + 1), Some(LinkId(MAX_JOINERS as u32 + 2)));
        assert_eq!(joiners.at(MAX_JOINERS + 2), None);
    }

    #[test]
    fn a_key_without_end_is_refused() {
        let key = "k".repeat(MAX_KEY + 1);
        let frame = Frame::text(format!(r#"{{"type":"open","key":"{key}"}}"#));
        assert!(
            matches!(Sigver5::default().decode(&frame), Action::Close(close) if close.code == Some(1008))
        );
    }
}
