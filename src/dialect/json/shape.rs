//! Which dialects have a message of this shape: the attributes of a JSON object, without its values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::dialect::Dialect::{
    self, Sigver1, Sigver4, Sigver5, Sigver6, Sigver7, Sigver7_6, Sigver8, Sigver9, Sigver11, Sigver13,
};

/// The attributes of an object that tell dialects apart.
#[derive(Debug, Default)]
struct Shape {
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

/// The dialects of which this text may be a message; `None` if it tells nothing. `by_join` says that the client became
/// a member with a `{"join":K}`.
pub fn senders(text: &str, by_join: bool) -> Option<&'static [Dialect]> {
    let shape: Shape = serde_json::from_str(text).ok()?;
    Some(if shape.kind {
        match (shape.key, shape.id) {
            (true, _) => &[Sigver4, Sigver5],
            (false, true) => &[Sigver1],
            (false, false) => &[Sigver1, Sigver4, Sigver5],
        }
    } else if shape.index {
        &[Sigver1, Sigver4, Sigver5]
    } else if shape.joinkey || shape.offer_or_answer {
        &[Sigver6]
    } else if shape.key {
        &[Sigver6, Sigver7, Sigver7_6]
    } else if shape.join && shape.data {
        // No client of 7.6 does so, though its server takes it.
        &[Sigver7]
    } else if shape.join {
        &[Sigver7_6, Sigver8, Sigver9, Sigver11, Sigver13]
    } else if shape.open && by_join {
        // Those of 8 were refused, those of 9 are openers already.
        &[Sigver11, Sigver13]
    } else if shape.open {
        &[Sigver8, Sigver9, Sigver11, Sigver13]
    } else if shape.ping_or_pong {
        &[Sigver13]
    } else if shape.id && by_join {
        // Only those of 9 are openers by now.
        &[Sigver9]
    } else if shape.id || shape.data {
        &[Sigver7, Sigver7_6, Sigver8, Sigver9, Sigver11, Sigver13]
    } else {
        return None;
    })
}

/// Whether this text answers nobody, as only an opener of sigver 7.0 does that is asked who it is.
pub fn answers_nobody(text: &str) -> bool {
    serde_json::from_str::<Shape>(text).is_ok_and(|shape| shape.nobody && shape.data)
}

/// Whether this text asks to join a room, or to open one; `None` if neither.
pub fn asks_to_join(text: &str) -> Option<bool> {
    let shape: Shape = serde_json::from_str(text).ok()?;
    if shape.join {
        Some(true)
    } else if shape.open || shape.key {
        Some(false)
    } else {
        None
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Attributes;
        impl<'de> Visitor<'de> for Attributes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
                let mut shape = Shape::default();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    match name.as_ref() {
                        "type" => shape.kind = true,
                        "id" => {
                            shape.id = true;
                            shape.nobody = map.next_value::<serde_json::Value>()? == 0;
                            continue;
                        }
                        "key" => shape.key = true,
                        "index" => shape.index = true,
                        "joinkey" => shape.joinkey = true,
                        "offer" | "answer" => shape.offer_or_answer = true,
                        "join" => shape.join = true,
                        "open" => shape.open = true,
                        "data" => shape.data = true,
                        "ping" | "pong" => shape.ping_or_pong = true,
                        _ => {}
                    }
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(shape)
            }
        }
        deserializer.deserialize_map(Attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
