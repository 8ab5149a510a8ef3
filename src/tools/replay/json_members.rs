//! Positions of the values of a JSON object in its text, so that one can be replaced and the rest stays
//! unchanged.

use std::ops::Range;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Returns the members of the top-level JSON object in `text`: their names, and the positions of their
/// values.
pub(crate) fn members(text: &str) -> Option<Vec<(String, Range<usize>)>> {
    struct Members<'a>(Vec<(String, &'a RawValue)>);
    impl<'de> Deserialize<'de> for Members<'de> {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            struct Collect;
            impl<'de> Visitor<'de> for Collect {
                type Value = Members<'de>;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                    let mut members = Vec::new();
                    while let Some(entry) = map.next_entry::<String, &'de RawValue>()? {
                        members.push(entry);
                    }
                    Ok(Members(members))
                }
            }
            d.deserialize_map(Collect)
        }
    }
    let members: Members<'_> = serde_json::from_str(text).ok()?;
    let place = |raw: &RawValue| {
        let start = (raw.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        Some(start..start + raw.get().len())
    };
    members.0.into_iter().map(|(name, raw)| Some((name, place(raw)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_where_they_stand() {
        let text = r#" { "a" : [1, {"b":2}] ,"a":"x" } "#;
        let found = members(text).unwrap();
        let found: Vec<_> = found.into_iter().map(|(name, place)| (name, &text[place])).collect();
        assert_eq!(found, [("a".to_owned(), r#"[1, {"b":2}]"#), ("a".to_owned(), r#""x""#)]);
        for other in ["5", "[]", "null", "{", "{} x"] {
            assert_eq!(members(other), None, "{other}");
        }
    }
}
