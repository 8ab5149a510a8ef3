//! Strategies for JSON texts: valid JSON in every notation, and near misses.

use proptest::prelude::*;

/// Names that mean something in some dialect, or to `serde_json`.
const NAMES: [&str; 18] = [
    "data",
    "data",
    "id",
    "id",
    "type",
    "key",
    "index",
    "offer",
    "answer",
    "open",
    "join",
    "joinkey",
    "ping",
    "pong",
    "a",
    "7",
    "$bytes",
    "$serde_json::private::RawValue",
];

const STRINGS: [&str; 20] = [
    "\"\"",
    "\"v=0\\r\\n\"",
    "\"\\/\"",
    "\"\\u000d\"",
    "\"\\u0001\"",
    "\"a\\u001f\\tb\"",
    "\"\\u001F\"",
    "\"\\u0041\"",
    "\"\\u00e9\"",
    "\"é\u{2028}\"",
    "\"\\ud800\"",
    "\"\u{7f}\"",
    "\"\\\"\\\\\"",
    "\"0\"",
    "\"00000007\"",
    "\"+0\"",
    "\"offer\"",
    "\"icecandidate\"",
    "\"open\"",
    "\"[ 1 ]\"",
];

const SCALARS: [&str; 20] = [
    "0",
    "-0",
    "7",
    "-7",
    "1.50",
    "-2.5",
    "0.000001",
    "0.0000001",
    "123456789.1234567",
    "2.0",
    "1e3",
    "1e999",
    "123456789012345",
    "1234567890123456",
    "18446744073709551615",
    "01",
    "true",
    "false",
    "null",
    "nul",
];

/// A name in quotes, sometimes with escapes.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => prop::sample::select(&NAMES[..]).prop_map(|name| format!("\"{name}\"")),
        1 => Just("\"\\u0064ata\"".to_owned()),
        1 => prop::sample::select(&STRINGS[..]).prop_map(str::to_owned),
    ]
}

/// A number with a fraction, in any notation without an exponent.
fn decimal() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,9})\\.0{0,7}[0-9]{1,10}"
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![60 => Just(""), 1 => Just(" "), 1 => Just("\n")]
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(&STRINGS[..]).prop_map(str::to_owned),
        prop::sample::select(&SCALARS[..]).prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        decimal(),
        any::<f64>().prop_map(|number| serde_json::Value::from(number).to_string()),
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec((space(), inner.clone()), 0..4).prop_map(|items| {
                let items: Vec<_> = items.into_iter().map(|(space, item)| [space, &item].concat()).collect();
                format!("[{}]", items.join(","))
            }),
            object(inner),
        ]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec((space(), name(), space(), value), 0..5).prop_map(|attributes| {
        let attributes: Vec<_> = attributes
            .into_iter()
            .map(|(before, name, between, value)| [before, &name, ":", between, &value].concat())
            .collect();
        format!("{{{}}}", attributes.join(","))
    })
}

/// Messages as clients of the dialects send them, with any value.
fn message() -> impl Strategy<Value = String> {
    let id = || prop::sample::select(&["0", "7", "-1", "1.0", "\"0\"", "\"00000007\"", "\"x\"", "null"][..]);
    prop_oneof![
        value().prop_map(|data| format!("{{\"data\":{data}}}")),
        (id(), value()).prop_map(|(id, data)| format!("{{\"id\":{id},\"data\":{data}}}")),
        (id(), value()).prop_map(|(id, data)| format!("{{\"data\":{data},\"id\":{id}}}")),
        value().prop_map(|offer| format!("{{\"offer\":{offer}}}")),
        value().prop_map(|answer| format!("{{\"answer\":{answer}}}")),
        (id(), value()).prop_map(|(id, sdp)| format!("{{\"type\":\"offer\",\"index\":{id},\"sdp\":{sdp}}}")),
    ]
}

/// Any text: mostly JSON objects, some with a byte too few or too many.
pub(in crate::protocol::dialect) fn any_json_text() -> impl Strategy<Value = String> {
    let whole = prop_oneof![2 => message(), 2 => object(value()), 1 => value()];
    prop_oneof![
        8 => whole.clone().boxed(),
        1 => (whole, any::<prop::sample::Index>(), prop::sample::select(&["", "\"", ",", " ", "}", "\\", "0"][..]))
            .prop_map(|(text, at, put)| {
                let characters: Vec<_> = text.chars().collect();
                let at = at.index(characters.len() + 1);
                let (before, after) = characters.split_at(at);
                before.iter().copied().chain(put.chars()).chain(after.iter().copied().skip(1)).collect()
            })
            .boxed(),
    ]
}

/// Objects that `JsonValue::parse` recognizes without `serde_json`.
pub(in crate::protocol::dialect) fn canonical_object() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[ -~\u{0}-\u{1f}é]{0,40}".prop_map(serde_json::Value::from),
        (-999_999_999_999_999_i64..=999_999_999_999_999).prop_map(serde_json::Value::from),
        (-99_999_999_999_i64..=99_999_999_999)
            .prop_map(|number| serde_json::Value::from(number as f64 + 0.0625)),
        any::<bool>().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
    ];
    let tree = leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::hash_map("[a-z]{1,5}", inner, 0..4)
                .prop_map(|attributes| serde_json::Value::Object(attributes.into_iter().collect())),
        ]
    });
    prop::collection::hash_map("[a-z]{1,5}", tree, 0..4)
        .prop_map(|attributes| serde_json::Value::Object(attributes.into_iter().collect()).to_string())
}
