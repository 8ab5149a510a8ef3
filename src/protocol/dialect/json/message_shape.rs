//! The names of the members of a JSON message, by which its dialect is detected.

use bytestring::ByteString;

use crate::protocol::dialect::Dialect::{
    self, Sigver1, Sigver4, Sigver5, Sigver6, Sigver7, Sigver7_6, Sigver8, Sigver9, Sigver11, Sigver13,
};
use crate::protocol::dialect::json_text::JsonValue;
use crate::protocol::frame::Message;

/// A message whose JSON is parsed, for detection and for the codec.
#[derive(Clone, Debug)]
pub(crate) struct ParsedMessage {
    pub(in crate::protocol::dialect) message: Message,
    /// The value of a text, or of bytes that may be a JSON object.
    pub(in crate::protocol::dialect) json: Option<JsonValue>,
}

impl ParsedMessage {
    /// Parses a message, if it may be of a JSON dialect.
    pub(crate) fn new(message: Message) -> Self {
        let text = match &message {
            Message::Text(text) => Some(text.clone()),
            Message::Binary(bytes) if bytes.first() == Some(&b'{') => {
                ByteString::try_from(bytes.clone()).ok()
            }
            Message::Binary(_) => None,
        };
        ParsedMessage { json: text.and_then(|text| JsonValue::parse(text).ok()), message }
    }

    /// Returns the message.
    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    /// Returns the shape of the message; `None` if it is not a JSON object.
    pub(crate) fn shape(&self) -> Option<MessageShape> {
        match &self.json {
            Some(JsonValue::Object(object)) => {
                let id_is_zero = object.get("id") == Some("0");
                let mut shape = MessageShape { id_is_zero, ..MessageShape::default() };
                object.iter().for_each(|(name, _)| shape.record(name));
                Some(shape)
            }
            Some(JsonValue::Other(_)) | None => None,
        }
    }
}

/// The members of an object by which dialects are distinguished.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct MessageShape {
    has_type: bool,
    id: bool,
    /// The id is 0, which no joiner has.
    id_is_zero: bool,
    key: bool,
    index: bool,
    joinkey: bool,
    offer_or_answer: bool,
    join: bool,
    open: bool,
    data: bool,
    ping_or_pong: bool,
}

impl MessageShape {
    fn record(&mut self, name: &str) {
        match name {
            "type" => self.has_type = true,
            "id" => self.id = true,
            "key" => self.key = true,
            "index" => self.index = true,
            "joinkey" => self.joinkey = true,
            "offer" | "answer" => self.offer_or_answer = true,
            "join" => self.join = true,
            "open" => self.open = true,
            "data" => self.data = true,
            "ping" | "pong" => self.ping_or_pong = true,
            _ => {}
        }
    }

    /// Returns the dialects that have a message of this shape; `None` if the shape has no evidence. `by_join`
    /// is true for a client that became a member by `{"join":K}`.
    pub(crate) fn possible_dialects(self, by_join: bool) -> Option<&'static [Dialect]> {
        Some(if self.has_type {
            match (self.key, self.id) {
                (true, _) => &[Sigver4, Sigver5],
                (false, true) => &[Sigver1],
                (false, false) => &[Sigver1, Sigver4, Sigver5],
            }
        } else if self.index {
            &[Sigver1, Sigver4, Sigver5]
        } else if self.joinkey || self.offer_or_answer {
            &[Sigver6]
        } else if self.key {
            &[Sigver6, Sigver7, Sigver7_6]
        } else if self.join && self.data {
            // No client of 7.6 sends both, though its server accepts it.
            &[Sigver7]
        } else if self.join {
            &[Sigver7_6, Sigver8, Sigver9, Sigver11, Sigver13]
        } else if self.open && by_join {
            // Clients of 8 were refused, clients of 9 are openers already.
            &[Sigver11, Sigver13]
        } else if self.open {
            &[Sigver8, Sigver9, Sigver11, Sigver13]
        } else if self.ping_or_pong {
            &[Sigver13]
        } else if self.id && by_join {
            // Only clients of 9 are openers by now.
            &[Sigver9]
        } else if self.id || self.data {
            &[Sigver7, Sigver7_6, Sigver8, Sigver9, Sigver11, Sigver13]
        } else {
            return None;
        })
    }

    /// Returns true if the message answers the identity probe, as only an opener of sigver 7.0 does.
    pub(crate) fn answers_identity_probe(self) -> bool {
        self.id_is_zero && self.data
    }

    /// Returns true if the message asks to join a room, false if it asks to open one; `None` if neither.
    pub(crate) fn join_or_open(self) -> Option<bool> {
        if self.join {
            Some(true)
        } else if self.open || self.key {
            Some(false)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn possible_dialects(text: &'static str, by_join: bool) -> Option<&'static [Dialect]> {
        ParsedMessage::new(Message::text(text)).shape()?.possible_dialects(by_join)
    }

    /// First messages of the published clients (sigver 1 to 14, measured).
    #[test]
    fn first_messages_name_their_dialects() {
        for (text, expected) in [
            (r#"{"type":"open","id":"k"}"#, [Sigver1].as_slice()),
            (r#"{"type":"join","key":"k"}"#, &[Sigver4, Sigver5]),
            (r#"{"joinkey":"k"}"#, &[Sigver6]),
            (r#"{"key":"k"}"#, &[Sigver6, Sigver7, Sigver7_6]),
            (r#"{"join":"k","data":{"offer":{}}}"#, &[Sigver7]),
            (r#"{"join":"k"}"#, &[Sigver7_6, Sigver8, Sigver9, Sigver11, Sigver13]),
            (r#"{"open":"k"}"#, &[Sigver8, Sigver9, Sigver11, Sigver13]),
            (r#"{"pong":true}"#, &[Sigver13]),
        ] {
            assert_eq!(possible_dialects(text, false), Some(expected), "{text}");
        }
        for nothing in ["5", "null", "[]", "{", "", r#"{"foo":1}"#] {
            assert_eq!(possible_dialects(nothing, false), None, "{nothing}");
        }
    }

    #[test]
    fn second_message_of_a_lone_joiner_identifies_its_dialect() {
        assert_eq!(possible_dialects(r#"{"open":"k"}"#, true), Some([Sigver11, Sigver13].as_slice()));
        assert_eq!(possible_dialects(r#"{"id":1,"data":2}"#, true), Some([Sigver9].as_slice()));
    }
}
