//! Messages of a client of sigver 7 to 14.

use std::fmt::Display;

use bytestring::ByteString;
use serde_json::Value;

use super::capabilities::ErrorStyle;
use super::{LastRequest, OpenerConfirmation, PONG, V7To14Codec};
use crate::protocol::dialect::Release;
use crate::protocol::dialect::json::joiner_index::JoinerIndex;
use crate::protocol::dialect::json::js_semantics::{is_truthy, room_key, string_content, to_js_string};
use crate::protocol::dialect::json::json_text::{JsonObject, JsonValue};
use crate::protocol::dialect::json::{JsonError, MAX_KEY_BYTES, close, text_of};
use crate::protocol::dialect::session::Action;
use crate::protocol::frame::{Close, Frame};
use crate::protocol::model::{
    Command, Join, LinkId, LinkMessage, MemberChoice, Open, Payload, Recipient, RejoinPolicy, RoomKey,
    WhenEmpty,
};

/// Longest key of sigver 8 to 14, in UTF-16 units.
const MAX_KEY_UNITS: usize = 512;

/// A message of a client. Values are JSON texts.
enum ClientMessage<'a> {
    Open {
        key: &'a str,
    },
    /// A request to join, with data for the opener (7.0 and 7.1).
    Join {
        key: &'a str,
        data: Option<ByteString>,
    },
    Ping {
        value: &'a str,
    },
    Pong,
    ToMember {
        data: ByteString,
    },
    ToJoiner {
        id: &'a str,
        data: ByteString,
    },
    /// A message for a joiner that has no data.
    WithoutData,
    Unknown,
}

impl V7To14Codec {
    pub(in crate::protocol::dialect) fn decode(&mut self, frame: &Frame) -> Action {
        let text = match frame {
            Frame::Close(_) | Frame::Headed(..) => return Action::Nothing,
            Frame::Binary(_) if !self.capabilities.accepts_binary_json.any => {
                return self.refuse(JsonError::NotJson);
            }
            Frame::Binary(_) | Frame::Text(_) => text_of(frame),
        };
        let Some(text) = text else { return self.refuse(JsonError::NotJson) };
        let object = match JsonValue::parse(text.clone()) {
            Some(JsonValue::Object(object)) => object,
            Some(JsonValue::Other(value)) => return self.no_object(&value, &text),
            None => return self.refuse(JsonError::NotJson),
        };
        match self.message(&object) {
            ClientMessage::Open { key } => self.enter(LastRequest::Open, key),
            ClientMessage::Join { key, data } => match (self.enter(LastRequest::Join, key), data) {
                (enter @ Action::Enter(..), Some(data)) => {
                    Action::Several(vec![enter, self.relay(Recipient::Member, data)])
                }
                (action, _) => action,
            },
            ClientMessage::Ping { value } if is_truthy(value) => {
                Action::Reply(Frame::text(ByteString::from_static(PONG)))
            }
            ClientMessage::Pong => {
                self.keepalive.answered();
                Action::Nothing
            }
            ClientMessage::ToMember { data } => self.to_member(data, &text),
            ClientMessage::ToJoiner { id, data } => self.to_joiner(id, data, &text),
            // The server forwards it, and the joiner ignores it.
            ClientMessage::WithoutData if self.opened && self.capabilities.joiner_index.any => {
                Action::Nothing
            }
            ClientMessage::Ping { .. } | ClientMessage::WithoutData | ClientMessage::Unknown => {
                self.refuse(JsonError::Unknown(&text))
            }
        }
    }

    /// Recognizes a message: by all of its members from sigver 8 on, by one of them before.
    fn message<'a>(&self, object: &'a JsonObject) -> ClientMessage<'a> {
        let capabilities = &self.capabilities;
        let alone = object.len() == 1;
        let ignores_others = capabilities.opens_by_key.any;
        if ignores_others && let Some(key) = object.get("key") {
            return ClientMessage::Open { key };
        }
        if alone
            && !capabilities.opens_by_key.all
            && let Some(key) = object.get("open")
        {
            return ClientMessage::Open { key };
        }
        if (alone || ignores_others)
            && let Some(key) = object.get("join")
        {
            return ClientMessage::Join { key, data: object.share("data") };
        }
        if alone && capabilities.pings.any {
            if let Some(value) = object.get("ping") {
                return ClientMessage::Ping { value };
            }
            if object.has("pong") {
                return ClientMessage::Pong;
            }
        }
        match (object.get("id"), object.share("data")) {
            (Some(id), Some(data)) if object.len() == 2 || ignores_others => {
                ClientMessage::ToJoiner { id, data }
            }
            (None, Some(data)) if alone || ignores_others => ClientMessage::ToMember { data },
            (Some(_), None) => ClientMessage::WithoutData,
            (Some(_) | None, Some(_)) | (None, None) => ClientMessage::Unknown,
        }
    }

    /// Decodes a JSON value that is no object. `text` is the frame as received.
    fn no_object(&self, value: &str, text: &str) -> Action {
        let capabilities = &self.capabilities;
        if capabilities.error_style == ErrorStyle::Sigver7 && value == "null" {
            return self.refuse(JsonError::NotJson);
        }
        let is_list = value.starts_with('[');
        if !is_list && capabilities.numeric_ids.all {
            return Action::Nothing;
        }
        if !is_list && capabilities.error_style == ErrorStyle::Sigver11 {
            return Action::Close(Close::empty());
        }
        self.refuse(JsonError::Unknown(text))
    }

    fn enter(&mut self, request: LastRequest, key: &str) -> Action {
        let capabilities = &self.capabilities;
        if capabilities.opens_by_key.any {
            if room_key(key).as_str().len() > MAX_KEY_BYTES {
                return self.refuse(JsonError::KeyTooLong);
            }
        } else if request == LastRequest::Open && !is_truthy(key) && capabilities.ignores_falsy_open.all {
            return Action::Nothing;
        } else {
            match string_content(key).as_deref() {
                Some("") => return self.refuse(JsonError::KeyEmpty),
                Some(key) if key.encode_utf16().count() > MAX_KEY_UNITS => {
                    return self.refuse(JsonError::KeyTooLong);
                }
                Some(_) => {}
                None => return self.refuse(JsonError::KeyType(key)),
            }
        }
        self.key = match string_content(key) {
            Some(key) => (&*key).into(),
            None => to_js_string(&serde_json::from_str::<Value>(key).unwrap_or_default()).into(),
        };
        self.last_request = request;
        match request {
            LastRequest::Open => self.open_room(room_key(key)),
            LastRequest::Join => self.join(room_key(key)),
        }
    }

    fn open_room(&mut self, room: RoomKey) -> Action {
        self.opened = true;
        self.opener_confirmation = OpenerConfirmation::NotNeeded;
        if let Some(joiners) = &mut self.joiners {
            *joiners = JoinerIndex::default();
        }
        let enter = Action::Enter(
            room,
            Command::Open(Open {
                exclusive: self.capabilities.refuses_keys.all,
                keep_other_rooms: !self.capabilities.opens_by_key.any,
            }),
        );
        if self.joined && self.capabilities.pings.all {
            self.joined = false;
            return Action::Several(vec![Action::Ask(Command::Unlink), enter]);
        }
        enter
    }

    fn join(&mut self, room: RoomKey) -> Action {
        self.joined = true;
        let capabilities = &self.capabilities;
        let join = Join {
            when_empty: if capabilities.joiner_becomes_member.all {
                WhenEmpty::BecomeMember
            } else if capabilities.joiner_becomes_member.any {
                WhenEmpty::BecomeTentativeMember
            } else {
                WhenEmpty::Refuse
            },
            choice: MemberChoice::Oldest,
            rejoin: if capabilities.string_ids.all {
                RejoinPolicy::Reuse
            } else {
                RejoinPolicy::KeepReceiving
            },
        };
        Action::Enter(room, Command::Join(join))
    }

    /// Relays data to the joiner of this id.
    fn to_joiner(&mut self, id: &str, data: ByteString, text: &str) -> Action {
        let capabilities = self.capabilities;
        let is_string = id.starts_with('"');
        let is_number = id.starts_with(|start: char| start == '-' || start.is_ascii_digit());
        if capabilities.string_ids.all && !is_string || capabilities.numeric_ids.all && !is_number {
            return self.refuse(JsonError::BadId);
        }
        if !self.opened {
            // The id of a message from a joiner is ignored.
            if self.joined && capabilities.string_ids.any {
                return self.relay(Recipient::Member, data);
            }
            return match capabilities.error_style {
                ErrorStyle::Sigver7 => self.unknown_joiner(id),
                ErrorStyle::Sigver7_6 => self.refuse(JsonError::Unknown(text)),
                ErrorStyle::Sigver8 => self.refuse(JsonError::BeforeOpen),
                ErrorStyle::Sigver11 => Action::Nothing,
            };
        }
        self.opener_confirmation = OpenerConfirmation::NotNeeded;
        match self.joiner(id) {
            Some(link) => self.relay(Recipient::Joiner(link), data),
            None if self.joined && capabilities.string_ids.all => self.relay(Recipient::Member, data),
            None => self.unknown_joiner(id),
        }
    }

    /// Relays data to the opener.
    fn to_member(&self, data: ByteString, text: &str) -> Action {
        if self.joined {
            return self.relay(Recipient::Member, data);
        }
        match self.capabilities.error_style {
            ErrorStyle::Sigver7 => self.refuse(JsonError::Unknown(text)),
            ErrorStyle::Sigver8 => self.refuse(JsonError::BeforeJoin),
            ErrorStyle::Sigver7_6 | ErrorStyle::Sigver11 => Action::Nothing,
        }
    }

    fn relay(&self, to: Recipient, data: ByteString) -> Action {
        let message = LinkMessage::Data { payload: Payload::Json(data), last: false };
        Action::Ask(Command::Relay { to, message, sender: self.capabilities.likeliest.dialect().tag() })
    }

    /// Returns the joiner of an id.
    fn joiner(&self, id: &str) -> Option<LinkId> {
        let string = string_content(id);
        if let Some(joiners) = &self.joiners {
            return joiners.get(string.as_deref().unwrap_or(id).parse().ok()?);
        }
        let link = match string {
            Some(digits) => u32::from_str_radix(&digits, 16),
            None => id.parse(),
        };
        link.ok().map(LinkId)
    }

    /// Answers a message for an id that is no joiner's.
    fn unknown_joiner(&self, id: &str) -> Action {
        match self.capabilities.likeliest {
            Release::V7_0_0 => return self.refuse(JsonError::UnknownId),
            Release::V7_1_0 if self.capabilities.joiner_index.all => {
                return Action::Reply(Frame::text(format!("{{\"id\":{id},\"unavailable\":true}}")));
            }
            _ => {}
        }
        match self.undeliverable(&id) {
            Some(Frame::Close(close)) => Action::Close(close),
            Some(frame) => Action::Reply(frame),
            None => Action::Nothing,
        }
    }

    /// Returns the frame for an opener whose joiner has disconnected or never was.
    pub(super) fn undeliverable(&self, id: &impl Display) -> Option<Frame> {
        if self.capabilities.closes_if_undeliverable.all {
            return Some(Frame::Close(close(self.capabilities.likeliest, JsonError::JoinerGone)));
        }
        self.capabilities.reports_undeliverable.all.then(|| Frame::text(format!("{{\"unavailable\":{id}}}")))
    }

    fn refuse(&self, error: JsonError<'_>) -> Action {
        Action::Close(close(self.capabilities.likeliest, error))
    }
}
