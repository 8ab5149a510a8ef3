//! Which dialects have a message of this shape: the attributes of a JSON object, without its values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::protocol::dialect::Dialect::{
    self, Sigver1, Sigver4, Sigver5, Sigver6, Sigver7, Sigver7_6, Sigver8, Sigver9, Sigver11, Sigver13,
};
use crate::protocol::model::canonical::Attributes;

/// The attributes of an object that tell dialects apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MessageShape {
    kind: bool,
    id: bool,
    /// The id is 0, which no joiner has.
    nobody: bool,
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
    /// The shape of this text, if it is a JSON object.
    pub fn of(text: &str) -> Option<MessageShape> {
        let Some(attributes) = Attributes::of(text) else { return serde_json::from_str(text).ok() };
        let mut shape = MessageShape::default();
        for (name, value) in attributes.iter() {
            shape.note(name);
            shape.nobody |= *name == "id" && *value == "0";
        }
        Some(shape)
    }

    /// Remembers an attribute of this name.
    fn note(&mut self, name: &str) {
        match name {
            "type" => self.kind = true,
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

    /// The dialects of which it may be a message; `None` if it tells nothing. `by_join` says that the client became a
    /// member with a `{"join":K}`.
    pub fn senders(self, by_join: bool) -> Option<&'static [Dialect]> {
        Some(if self.kind {
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
            // No client of 7.6 does so, though its server takes it.
            &[Sigver7]
        } else if self.join {
            &[Sigver7_6, Sigver8, Sigver9, Sigver11, Sigver13]
        } else if self.open && by_join {
            // Those of 8 were refused, those of 9 are openers already.
            &[Sigver11, Sigver13]
        } else if self.open {
            &[Sigver8, Sigver9, Sigver11, Sigver13]
        } else if self.ping_or_pong {
            &[Sigver13]
        } else if self.id && by_join {
            // Only those of 9 are openers by now.
            &[Sigver9]
        } else if self.id || self.data {
            &[Sigver7, Sigver7_6, Sigver8, Sigver9, Sigver11, Sigver13]
        } else {
            return None;
        })
    }

    /// Whether it answers nobody, as only an opener of sigver 7.0 does that is asked who it is.
    pub fn answers_nobody(self) -> bool {
        self.nobody && self.data
    }

    /// Whether it asks to join a room, or to open one; `None` if neither.
    pub fn asks_to_join(self) -> Option<bool> {
        if self.join {
            Some(true)
        } else if self.open || self.key {
            Some(false)
        } else {
            None
        }
    }
}

impl<'de> Deserialize<'de> for MessageShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyObject;
        impl<'de> Visitor<'de> for AnyObject {
            type Value = MessageShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MessageShape, A::Error> {
                let mut shape = MessageShape::default();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    shape.note(&name);
                    if name == "id" {
                        shape.nobody = map.next_value::<&RawValue>()?.get() == "0";
                        continue;
                    }
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(shape)
            }
        }
        deserializer.deserialize_map(AnyObject)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::model::test_json;

    proptest! {
        #[test]
        fn canonical_text_has_the_shape_of_any(text in test_json::sent()) {
            prop_assert_eq!(MessageShape::of(&text), serde_json::from_str(&text).ok(), "{}", text);
        }
    }

    fn senders(text: &str, by_join: bool) -> Option<&'static [Dialect]> {
        MessageShape::of(text)?.senders(by_join)
    }

    /// First messages, as wire facts list them (sigver 1 to 14, measured).
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
            assert_eq!(senders(text, false), Some(expected), "{text}");
        }
        for nothing in ["5", "null", "[]", "{", "", r#"{"foo":1}"#] {
            assert_eq!(senders(nothing, false), None, "{nothing}");
        }
    }

    #[test]
    fn what_a_lone_joiner_does_next_tells_its_generation() {
        assert_eq!(senders(r#"{"open":"k"}"#, true), Some([Sigver11, Sigver13].as_slice()));
        assert_eq!(senders(r#"{"id":1,"data":2}"#, true), Some([Sigver9].as_slice()));
    }
}
