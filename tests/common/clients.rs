//! Synthetic clients, one of each dialect: small state machines that react to what comes as the real clients
//! were measured to, also to what was not meant for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};

use super::protobuf::{
    FieldType as Kind, FieldValue as Value, KnownFields as Fields, Schema, decode, delimited, number,
};

/// The dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    S5,
    S15,
    S16,
    S18,
    S19,
    S20,
}

use Dialect::{S5, S15, S16, S18, S19, S20};

impl Dialect {
    pub const ALL: [Dialect; 6] = [S5, S15, S16, S18, S19, S20];

    /// Returns true if the client sends first.
    pub fn speaks_first(self) -> bool {
        matches!(self, S5 | S19 | S20)
    }

    /// Returns the client's own heartbeat, if it sends any.
    pub fn beats(self) -> Option<&'static [u8]> {
        match self {
            S5 | S15 => None,
            S16 | S18 => Some(&[0x20, 1]),
            S19 | S20 => Some(&[0x08, 1]),
        }
    }

    pub fn current(self) -> bool {
        matches!(self, S19 | S20)
    }
}

/// Role of a client. Only sigver 5 must know it before the server's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    First,
    Joiner,
}

impl Role {
    fn id(self) -> u32 {
        match self {
            Role::First => 11,
            Role::Joiner => 300_000_012,
        }
    }
}

/// Event in a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    /// It is the first.
    First,
    /// It is bound to a member.
    Bound,
    /// It was told that somebody joins.
    Join,
    Offer,
    Answer,
    /// The other end has nothing more to say.
    End,
    /// The other end is gone.
    Gone,
    /// It joined the group, and the server knows.
    Joined,
    /// The server has heard all that it said before it asked.
    Heard,
    /// A frame that no client should receive.
    Wrong(String),
}

/// Frame that a client sends.
#[derive(Clone, Debug)]
pub enum Send {
    Text(String),
    Binary(Vec<u8>),
    Close(u16),
}

/// A client.
pub struct Client {
    pub dialect: Dialect,
    role: Role,
    key: String,
    /// Connects without an answer.
    asked: u32,
    first: bool,
    settling: bool,
    pub did: Vec<Did>,
    pub send: Vec<Send>,
}

const OFFER: &str = "this is the offer";
const ANSWER: &str = "this is the answer";

/// An empty candidate: netflux 1.1 says so that there are no more.
const END_15: [u8; 4] = [0x22, 2, 0x0a, 0];

const CONTENT_A: Schema = &[(1, Kind::Number), (2, Kind::Bytes), (3, Kind::Number), (4, Kind::Number)];
const CONTENT_B: Schema = &[(1, Kind::Number), (2, Kind::Number), (3, Kind::Bytes), (4, Kind::Number)];
const CONTENT_C: Schema = &[(1, Kind::Number), (2, Kind::Number), (3, Kind::Bytes)];
const CONTENT_D: Schema = &[(1, Kind::Number), (2, Kind::Number), (3, Kind::Number), (4, Kind::Bytes)];
const GROUP: Schema = &[(1, Kind::Number), (2, Kind::Number)];
const FIVE: [(u32, Kind); 4] = [(2, Kind::Number), (3, Kind::Number), (4, Kind::Number), (5, Kind::Number)];
const V15: Schema = &[(1, Kind::Message(CONTENT_B)), FIVE[0], FIVE[1], FIVE[2], FIVE[3]];
const V16: Schema = &[(1, Kind::Message(CONTENT_A)), FIVE[0], FIVE[1], FIVE[2]];
const V18: Schema = &[(1, Kind::Message(CONTENT_A)), FIVE[0], FIVE[1], FIVE[2], FIVE[3]];
const V19: Schema = &[(1, Kind::Number), (2, Kind::Message(CONTENT_C)), (3, Kind::Message(GROUP)), FIVE[2]];
const V20: Schema = &[(1, Kind::Number), (2, Kind::Message(CONTENT_D)), (3, Kind::Message(GROUP)), FIVE[2]];
const INNER: Schema = &[(1, Kind::Number), (2, Kind::Number), (3, Kind::Number), (4, Kind::Bytes)];
/// Which part of a client of sigver 19 or 20 a payload is for: none that the real ones have.
const SERVICE: u32 = 999;

impl Client {
    pub fn new(dialect: Dialect, role: Role, key: &str) -> Self {
        Client {
            dialect,
            role,
            key: key.to_owned(),
            asked: 0,
            first: false,
            settling: false,
            did: Vec::new(),
            send: Vec::new(),
        }
    }

    fn wrong(&mut self, what: impl Into<String>) {
        self.did.push(Did::Wrong(what.into()));
    }

    fn binary(&mut self, bytes: Vec<u8>) {
        self.send.push(Send::Binary(bytes));
    }

    fn json(&mut self, json: &Json) {
        self.send.push(Send::Text(json.to_string()));
    }

    /// The library learns that the connection is open.
    pub fn open(&mut self) {
        match (self.dialect, self.role) {
            (S5, Role::First) => self.json(&json!({"type": "open", "key": self.key})),
            (S5, Role::Joiner) => {
                self.json(&json!({"type": "join", "key": self.key}));
                self.json(&json!({ "say": OFFER }));
            }
            (S15 | S16 | S18, _) => {}
            (S19 | S20, _) => self.connect(&[]),
        }
    }

    /// A text message comes. The protobuf clients ignore it.
    pub fn text(&mut self, text: &str) {
        if self.dialect != S5 {
            return;
        }
        let Ok(Json::Object(object)) = serde_json::from_str(text) else {
            return self.wrong(format!("not an object: {text}"));
        };
        if object.get("type").is_some_and(|kind| kind == "join") {
            return self.did.push(Did::Join);
        }
        let payload = match object.get("$bytes") {
            Some(Json::String(base64)) => BASE64.decode(base64).unwrap_or_default(),
            _ => text.as_bytes().to_vec(),
        };
        if payload == END_15 {
            return;
        }
        if contains(&payload, OFFER) {
            self.did.push(Did::Offer);
            match object.get("index") {
                Some(index) => self.json(&json!({"index": index, "say": ANSWER})),
                None => self.wrong(format!("an offer without an index: {text}")),
            }
        } else if contains(&payload, ANSWER) {
            self.did.push(Did::Answer);
        } else {
            self.wrong(format!("of no use: {text}"));
        }
    }

    /// A binary message comes. sigver 5 clients read text only: an error without consequences.
    pub fn bytes(&mut self, bytes: &[u8]) {
        match self.dialect {
            S5 => {}
            S15 => self.v1(bytes, V15),
            S16 => self.v1(bytes, V16),
            S18 => self.v1(bytes, V18),
            S19 => self.current(bytes, V19),
            S20 => self.current(bytes, V20),
        }
    }

    /// sigver 15 to 18: a frame that cannot be decoded is the end.
    fn v1(&mut self, bytes: &[u8], schema: Schema) {
        let Some(message) = decode(bytes, schema) else {
            self.wrong(format!("cannot be decoded: {}", super::to_hex(bytes)));
            return self.send.push(Send::Close(4010));
        };
        match (message.0.last(), self.dialect) {
            (Some((1, Value::Message(content))), _) => self.v1_content(content),
            (Some((2, Value::Number(0))), _) => {
                self.did.push(Did::Bound);
                let offer = self.v1_message(None, OFFER);
                self.binary(offer);
            }
            (Some((2, _)), _) if self.first => {}
            (Some((2, _)), _) => {
                self.first = true;
                self.did.push(Did::First);
            }
            (Some((4, _)), S15) => {
                self.binary(vec![0x28, 1]);
                if std::mem::take(&mut self.settling) {
                    self.did.push(Did::Joined);
                }
            }
            _ => {}
        }
    }

    fn v1_content(&mut self, content: &Fields) {
        let id = content.number(1);
        let (data, error, end) = match (self.dialect, content.0.last()) {
            (S15, _) => {
                let data = content.bytes(3);
                (data, content.number(4) != 0, data.is_empty() || data == END_15)
            }
            (_, Some((2, Value::Bytes(data)))) => (&data[..], false, false),
            (_, Some((3, _))) => (&[][..], true, false),
            (_, Some((4, _))) => (&[][..], false, true),
            _ => (&[][..], false, false),
        };
        match (error, end) {
            // A joiner gives up on it: sigver 15 closes, sigver 18 tries another.
            (true, _) if id == 0 => self.wrong("refused by the member"),
            (true, _) => self.did.push(Did::Gone),
            (false, true) => self.did.push(Did::End),
            // The end as sigver 15 says it, with the data.
            (false, false) if *data == END_15 => {}
            (false, false) if contains(data, OFFER) => {
                self.did.push(Did::Offer);
                let answer = self.v1_message(Some(id), ANSWER);
                self.binary(answer);
                let end = self.v1_end(Some(id));
                self.binary(end);
            }
            (false, false) if contains(data, ANSWER) => {
                self.did.push(Did::Answer);
                let end = self.v1_end(None);
                self.binary(end);
                self.settling = true;
                self.binary(vec![0x18, 1]);
            }
            (false, false) => self.wrong(format!("of no use: {content:?}")),
        }
    }

    /// Returns the payload of protobuf clients: addressed as in sigver 19 and 20, whose frames nest it.
    fn payload(from: u32, to: u32, text: &str) -> Vec<u8> {
        [number(1, from), number(2, to), number(3, SERVICE), delimited(4, text.as_bytes())].concat()
    }

    /// Returns the bytes that netflux writes.
    fn v1_message(&self, id: Option<u32>, text: &str) -> Vec<u8> {
        let payload = Client::payload(self.role.id(), 0, text);
        let id = id.map(|id| number(1, id)).unwrap_or_default();
        let data = match self.dialect {
            S15 => [number(2, 0), delimited(3, &payload)].concat(),
            _ => delimited(2, &payload),
        };
        delimited(1, &[id, data].concat())
    }

    fn v1_end(&self, id: Option<u32>) -> Vec<u8> {
        let id = id.map(|id| number(1, id)).unwrap_or_default();
        let end = match self.dialect {
            S15 => [number(2, 1), delimited(3, &END_15)].concat(),
            _ => number(4, 1),
        };
        delimited(1, &[id, end].concat())
    }

    fn connect(&mut self, members: &[u32]) {
        self.asked += 1;
        let mut group = number(1, self.role.id());
        if !members.is_empty() {
            let members: Vec<u8> = members.iter().map(|id| u8::try_from(*id).unwrap()).collect();
            group.extend(delimited(2, &members));
        }
        self.binary(delimited(3, &group));
    }

    /// sigver 19 and 20: a frame that cannot be decoded, or tells nothing, is ignored.
    fn current(&mut self, bytes: &[u8], schema: Schema) {
        let Some(message) = decode(bytes, schema) else {
            return;
        };
        match message.0.last() {
            Some((2, Value::Message(content))) => self.current_content(content),
            Some((4, Value::Number(connected))) => self.connected(*connected != 0, bytes),
            _ => {}
        }
    }

    fn connected(&mut self, connected: bool, bytes: &[u8]) {
        if self.asked == 0 {
            return self.wrong(format!("an answer to no question: {}", super::to_hex(bytes)));
        }
        self.asked -= 1;
        if self.settling {
            self.settling = false;
            match connected {
                true => self.did.push(Did::Joined),
                false => self.wrong("not believed to have joined"),
            }
        } else if !connected {
            self.did.push(Did::Bound);
            let offer = self.current_message(None, OFFER);
            self.binary(offer);
        } else if !self.first {
            // The group is made, and says so.
            self.first = true;
            self.did.push(Did::First);
            self.connect(&[]);
        }
    }

    fn current_content(&mut self, content: &Fields) {
        let data = content.bytes(if self.dialect == S19 { 3 } else { 4 });
        let (from, to) = match self.dialect {
            S19 => (content.number(1), content.number(1)),
            _ => (content.number(1), content.number(2)),
        };
        if data.is_empty() {
            // Without an id it is nobody's.
            if (from, to) != (0, 0) {
                self.did.push(Did::Gone);
            }
            return;
        }
        let inner = decode(data, INNER).unwrap_or_default();
        let text = match data {
            // From a client of sigver 5.
            [b'{', ..] => data,
            // Netflux drops what cannot be decoded, and what is for no part of it: so does it with another
            // dialect's frame that happens to make sense as a frame of its own.
            _ if inner.number(3) != SERVICE => return,
            _ => inner.bytes(4),
        };
        if contains(text, OFFER) {
            self.did.push(Did::Offer);
            let answer = self.current_message(Some(from), ANSWER);
            self.binary(answer);
        } else if contains(text, ANSWER) {
            self.did.push(Did::Answer);
            self.settling = true;
            self.connect(&[Role::First.id()]);
        }
    }

    /// Returns the bytes that netflux writes, the last field of each message included.
    fn current_message(&self, to: Option<u32>, text: &str) -> Vec<u8> {
        let (from, to) = to.map_or((self.role.id(), 0), |to| (0, to));
        let payload = Client::payload(from, to, text);
        let content = match self.dialect {
            S19 => [number(1, from.max(to)), number(2, 0), delimited(3, &payload)].concat(),
            _ => [number(1, from), number(2, to), number(3, 0), delimited(4, &payload)].concat(),
        };
        delimited(2, &content)
    }

    /// Answers that are still due.
    pub fn unanswered(&self) -> u32 {
        self.asked
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
