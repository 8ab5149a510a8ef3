//! Messages of a client of sigver 7 to 14.

use bytestring::ByteString;

use super::capabilities::ErrorStyle;
use super::{LastRequest, OpenerConfirmation, PONG, PROBE_JOINER, V7To14Codec};
use crate::protocol::dialect::OutputSink;
use crate::protocol::dialect::json::joiner_index::JoinerIndex;
use crate::protocol::dialect::json::js_semantics::{is_truthy, room_key, string_content};
use crate::protocol::dialect::json::{MAX_KEY_BYTES, text_of};
use crate::protocol::dialect::json_errors::{JsonError, close};
use crate::protocol::dialect::json_text::{JsonObject, JsonValue, to_js_string};
use crate::protocol::dialect::key_limit::is_too_long;
use crate::protocol::dialect::release::UnknownJoiner;
use crate::protocol::frame::{Close, Message};
use crate::protocol::model::{
    Command, Join, LinkId, LinkMessage, MemberChoice, Open, Payload, Recipient, RejoinPolicy, RoomKey,
    WhenEmpty,
};

/// A message of a client. Values are JSON texts.
enum ClientMessage<'a> {
    Open {
        key: &'a str,
    },
    /// A request to join, which may have data for the opener (7.0 and 7.1).
    Join {
        key: &'a str,
    },
    Ping {
        value: &'a str,
    },
    Pong,
    ToMember {
        data: &'a str,
    },
    ToJoiner {
        id: &'a str,
        data: &'a str,
    },
    /// A message for a joiner that has no data.
    WithoutData,
    Unknown,
}

impl V7To14Codec {
    /// Decodes a message from the client. `json` is its value, if it is parsed already.
    pub(in crate::protocol::dialect) fn decode(
        &mut self,
        message: &Message,
        json: Option<JsonValue>,
        out: &mut dyn OutputSink,
    ) {
        if matches!(message, Message::Binary(_)) && !self.capabilities.opens_by_key.any {
            return self.refuse(JsonError::NotJson, out);
        }
        let Some(text) = text_of(message) else { return self.refuse(JsonError::NotJson, out) };
        let object = match json.map_or_else(|| JsonValue::parse(text.clone()), Ok) {
            Ok(JsonValue::Object(object)) => object,
            Ok(JsonValue::Other(value)) => return self.no_object(&value, &text, out),
            Err(error) => return self.refuse(error.into(), out),
        };
        match self.recognize(&object) {
            ClientMessage::Open { key } => {
                self.enter(LastRequest::Open, key, out);
            }
            ClientMessage::Join { key } => {
                if self.enter(LastRequest::Join, key, out)
                    && let Some(data) = object.share("data")
                {
                    self.relay(Recipient::Member, data, out);
                }
            }
            ClientMessage::Ping { value } if is_truthy(value) => out.static_text(PONG),
            ClientMessage::Pong => self.keepalive.on_reply(),
            ClientMessage::ToMember { data } => self.relay_to_member(object.share_value(data), &text, out),
            ClientMessage::ToJoiner { id, data } => {
                self.relay_to_joiner(id, object.share_value(data), &text, out)
            }
            // Not for the joiner, and no reason to close the room.
            ClientMessage::WithoutData if self.opened && self.capabilities.joiner_index.any => {}
            ClientMessage::Ping { .. } | ClientMessage::WithoutData | ClientMessage::Unknown => {
                self.refuse(JsonError::Unknown(&text), out);
            }
        }
    }

    /// Recognizes a message: by all of its members from sigver 8 on, by one of them before.
    fn recognize<'a>(&self, object: &'a JsonObject) -> ClientMessage<'a> {
        let [mut key, mut open, mut join, mut ping, mut pong, mut id, mut data] = [None; 7];
        for (name, value) in object.iter() {
            *match name {
                "key" => &mut key,
                "open" => &mut open,
                "join" => &mut join,
                "ping" => &mut ping,
                "pong" => &mut pong,
                "id" => &mut id,
                "data" => &mut data,
                _ => continue,
            } = Some(value);
        }
        let capabilities = &self.capabilities;
        let ignores_others = capabilities.opens_by_key.any;
        let is_whole = |members: usize| ignores_others || object.len() == members;
        let alone = object.len() == 1;
        let by_open = open.filter(|_| alone && !capabilities.opens_by_key.all);
        if let Some(key) = key.filter(|_| ignores_others).or(by_open) {
            return ClientMessage::Open { key };
        }
        if let Some(key) = join.filter(|_| is_whole(1)) {
            return ClientMessage::Join { key };
        }
        if alone && capabilities.pings.any {
            if let Some(value) = ping {
                return ClientMessage::Ping { value };
            }
            if pong.is_some() {
                return ClientMessage::Pong;
            }
        }
        match (id, data) {
            (Some(id), Some(data)) if is_whole(2) => ClientMessage::ToJoiner { id, data },
            (None, Some(data)) if is_whole(1) => ClientMessage::ToMember { data },
            (Some(_), None) => ClientMessage::WithoutData,
            (Some(_) | None, Some(_)) | (None, None) => ClientMessage::Unknown,
        }
    }

    /// Decodes a JSON value that is no object. `text` is the message as received.
    fn no_object(&self, value: &str, text: &str, out: &mut dyn OutputSink) {
        let capabilities = &self.capabilities;
        if capabilities.error_style == ErrorStyle::Sigver7 && value == "null" {
            return self.refuse(JsonError::NotJson, out);
        }
        let is_list = value.starts_with('[');
        if !is_list && capabilities.numeric_ids.all {
            return;
        }
        if !is_list && capabilities.error_style == ErrorStyle::Sigver11 {
            return out.close(Close::empty());
        }
        self.refuse(JsonError::Unknown(text), out);
    }

    /// Enters the room with this key. Returns false if the key is refused or ignored.
    fn enter(&mut self, request: LastRequest, key: &str, out: &mut dyn OutputSink) -> bool {
        let any_key = self.capabilities.opens_by_key.any;
        if !any_key
            && request == LastRequest::Open
            && !is_truthy(key)
            && self.capabilities.ignores_falsy_open.all
        {
            return false;
        }
        let string = string_content(key);
        let error = match string.as_deref() {
            _ if any_key => (room_key(key).as_str().len() > MAX_KEY_BYTES).then_some(JsonError::KeyTooLong),
            Some("") => Some(JsonError::KeyEmpty),
            Some(key) => (is_too_long(key)).then_some(JsonError::KeyTooLong),
            None => Some(JsonError::KeyType(key)),
        };
        if let Some(error) = error {
            self.refuse(error, out);
            return false;
        }
        self.key = match string {
            Some(key) => (&*key).into(),
            None => to_js_string(key).into(),
        };
        self.last_request = request;
        match request {
            LastRequest::Open => self.open_room(room_key(key), out),
            LastRequest::Join => self.join(room_key(key), out),
        }
        true
    }

    fn open_room(&mut self, room: RoomKey, out: &mut dyn OutputSink) {
        self.opened = true;
        self.opener_confirmation = OpenerConfirmation::NotNeeded;
        self.joiners = self.capabilities.joiner_index.any.then(JoinerIndex::default);
        self.identity_probed = false;
        if self.joined && self.capabilities.pings.all {
            self.joined = false;
            out.ask(Command::Unlink);
        }
        let open = Open {
            exclusive: self.capabilities.refuses_keys.all,
            keep_other_rooms: !self.capabilities.opens_by_key.any,
        };
        out.enter(room, Command::Open(open));
    }

    fn join(&mut self, room: RoomKey, out: &mut dyn OutputSink) {
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
        out.enter(room, Command::Join(join));
    }

    /// Relays data to the joiner of this id.
    fn relay_to_joiner(&mut self, id: &str, data: ByteString, text: &str, out: &mut dyn OutputSink) {
        let capabilities = self.capabilities;
        let is_string = id.starts_with('"');
        let is_number = id.starts_with(|start: char| start == '-' || start.is_ascii_digit());
        if capabilities.string_ids.all && !is_string || capabilities.numeric_ids.all && !is_number {
            return self.refuse(JsonError::BadId, out);
        }
        if !self.opened {
            // The id of a message from a joiner is ignored.
            if self.joined && capabilities.string_ids.any {
                return self.relay(Recipient::Member, data, out);
            }
            return match capabilities.error_style {
                ErrorStyle::Sigver7 => self.unknown_joiner(id, out),
                ErrorStyle::Sigver7_6 => self.refuse(JsonError::Unknown(text), out),
                ErrorStyle::Sigver8 => self.refuse(JsonError::BeforeOpen, out),
                ErrorStyle::Sigver11 => {}
            };
        }
        self.opener_confirmation = OpenerConfirmation::NotNeeded;
        match self.joiner(id) {
            Some(PROBE_JOINER) if self.identity_probed => {}
            Some(link) => self.relay(Recipient::Joiner(link), data, out),
            None if self.joined && capabilities.string_ids.all => self.relay(Recipient::Member, data, out),
            None => self.unknown_joiner(id, out),
        }
    }

    /// Relays data to the opener.
    fn relay_to_member(&self, data: ByteString, text: &str, out: &mut dyn OutputSink) {
        if self.joined {
            return self.relay(Recipient::Member, data, out);
        }
        match self.capabilities.error_style {
            ErrorStyle::Sigver7 => self.refuse(JsonError::Unknown(text), out),
            ErrorStyle::Sigver8 => self.refuse(JsonError::BeforeJoin, out),
            ErrorStyle::Sigver7_6 | ErrorStyle::Sigver11 => {}
        }
    }

    fn relay(&self, to: Recipient, data: ByteString, out: &mut dyn OutputSink) {
        let message = LinkMessage::Data { payload: Payload::Json(data), last: false };
        out.ask(Command::Relay { to, message, sender: self.capabilities.sender });
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
    fn unknown_joiner(&self, id: &str, out: &mut dyn OutputSink) {
        match self.capabilities.most_likely_joiner {
            Some(UnknownJoiner::CloseUnknownId) => self.refuse(JsonError::UnknownId, out),
            Some(UnknownJoiner::IdUnavailable) if self.capabilities.joiner_index.all => {
                out.text(format!("{{\"id\":{id},\"unavailable\":true}}"));
            }
            _ => self.undeliverable(id, out),
        }
    }

    /// Reports to an opener that its joiner has disconnected or never was.
    pub(super) fn undeliverable(&self, id: &str, out: &mut dyn OutputSink) {
        if self.capabilities.closes_if_undeliverable.all {
            self.refuse(JsonError::JoinerGone, out);
        } else if self.capabilities.reports_undeliverable.all {
            out.text(format!("{{\"unavailable\":{id}}}"));
        }
    }

    fn refuse(&self, error: JsonError<'_>, out: &mut dyn OutputSink) {
        out.close(close(self.capabilities.most_likely, error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::Release;
    use crate::protocol::dialect::json::JsonClient;
    use crate::protocol::dialect::{Dialect, Family, Output, ReleaseSet};
    use crate::protocol::frame::Outgoing;

    const JSON: [Release; 9] = [
        Release::V7_0_0,
        Release::V7_1_0,
        Release::V7_6_4,
        Release::V8_0_2,
        Release::V8_1_0,
        Release::V9_1_0,
        Release::V10_1_0,
        Release::V11_0_0,
        Release::V14_0_0,
    ];

    fn decoded(release: Release, text: &'static str) -> Vec<Output> {
        let releases: ReleaseSet = [release].into_iter().collect();
        let mut codec = V7To14Codec::new(releases.of_family(Family::Json), release, JsonClient::default());
        codec.opened = true;
        codec.joined = true;
        if let Some(joiners) = &mut codec.joiners {
            joiners.index_or_insert(LinkId(70));
        }
        let mut out = Vec::new();
        codec.decode(&Message::text(text), None, &mut out);
        out
    }

    /// Returns the recipient and the data of the message that is relayed.
    fn relayed(release: Release, text: &'static str) -> Option<(Recipient, String)> {
        match decoded(release, text).pop() {
            Some(Output::Ask(Command::Relay { to, message: LinkMessage::Data { payload, .. }, .. })) => {
                Some((to, payload.into_json().to_string()))
            }
            _ => None,
        }
    }

    #[test]
    fn data_is_relayed_as_stringified() {
        for release in JSON {
            for (text, data) in [
                (r#"{"data":{"a":1}}"#, r#"{"a":1}"#),
                (r#" { "data" : { "a" : 1.50, "a" : 2.0 } } "#, r#"{"a":2}"#),
                (r#"{"\u0064ata":"\u00e9\/"}"#, "\"é/\""),
                (r#"{"data":null}"#, "null"),
            ] {
                assert_eq!(
                    relayed(release, text),
                    Some((Recipient::Member, data.to_owned())),
                    "{release} {text}"
                );
            }
        }
    }

    #[test]
    fn joiners_are_named_by_index_number_or_string() {
        let joiner = Some((Recipient::Joiner(LinkId(70)), "1".to_owned()));
        for release in JSON {
            let text = if release.dialect() == Dialect::Sigver7 {
                r#"{"id":0,"data":1}"#
            } else if release < Release::V11_0_0 {
                r#"{"data":1,"id":70}"#
            } else {
                r#"{"id":"00000046", "data":1.0}"#
            };
            assert_eq!(relayed(release, text), joiner, "{release}");
        }
    }

    #[test]
    fn unknown_members_are_ignored_up_to_7_6() {
        for release in JSON {
            let is_relayed = relayed(release, r#"{"data":1,"x":2}"#).is_some();
            assert_eq!(is_relayed, release < Release::V8_0_2, "{release}");
            let is_refused = matches!(decoded(release, r#"{"x":2}"#)[..], [Output::Send(Outgoing::Close(_))]);
            assert!(is_refused, "{release}");
        }
    }
}
