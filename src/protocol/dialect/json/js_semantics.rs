//! What a client sent, read as JavaScript reads it: keys of any type, truth, and numbers written again.

use bytestring::ByteString;
use serde_json::{Number, Value};

use crate::protocol::model::RoomKey;

/// The room key that a value stands for in the originals that compare keys strictly and take any: the number 1 is not
/// the text "1".
pub(super) fn room_key(key: &Value) -> RoomKey {
    match key {
        Value::String(key) => RoomKey::from(key.as_str()),
        other => RoomKey::from(format!("\0{other}").as_str()),
    }
}

/// Whether a value counts as true.
pub(super) fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// A value as it reads in the middle of a text.
pub(super) fn in_words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(in_words).collect::<Vec<_>>().join(","),
        Value::Object(_) => "[object Object]".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// The compact text of a value, numbers in their shortest form: 1.50 is 1.5, and 2.0 is 2 (sigver 5 to 14, measured).
pub(super) fn compact(mut value: Value) -> ByteString {
    shorten(&mut value);
    value.to_string().into()
}

fn shorten(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|_| number.is_f64()).and_then(whole) {
                *number = Number::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(object) => object.values_mut().for_each(shorten),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The whole number that a floating one is exactly.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    // In range, and without a fraction: nothing is lost.
    (number.abs() < EXACT && number.fract() == 0.0).then_some(number as i64)
}

/// How many digits a number has.
pub(super) fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::model::canonical;
    use crate::protocol::model::test_json;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// What is passed on as it is written has no number that would be shortened.
        #[test]
        fn canonical_text_is_compact(text in test_json::sent()) {
            if canonical::is_value(&text) {
                prop_assert_eq!(&compact(serde_json::from_str(&text).unwrap())[..], &text[..]);
            }
        }
    }

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        let again = |text: &str| compact(serde_json::from_str(text).unwrap());
        assert_eq!(again(r#"[ 1.50, 2.0, -0.0, 1e3, 7, {"a": 3.0} ]"#), r#"[1.5,2,0,1000,7,{"a":3}]"#);
        assert_eq!(again(r#"{"u":"\u00e9"}"#), r#"{"u":"é"}"#);
    }

    #[test]
    fn digits_are_counted() {
        for number in [0, 1, 9, 10, 99, 100, 65_535, usize::MAX] {
            assert_eq!(digits(number), number.to_string().len());
        }
    }
}
