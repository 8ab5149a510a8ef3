//! A conversation as a client of one JSON release hears it, when the server does not know the release: of an answer
//! that suits several of them, only the attributes count that its clients look at, and ids may be of another type.
//!
//! Only what is played in auto mode goes through here; a pinned server has to say what the original said.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::transcript::{Event, Op, Payload, Scenario};

/// The attributes at which clients of a release look (the recordings of the real clients, and of their servers).
fn looks_at(version: &str) -> Option<&'static [&'static str]> {
    let major = version.split('.').next()?;
    Some(match major {
        "6" => &["reachable", "offer", "answer"],
        "7" if version == "7.6.4" => &["isKeyOk", "id", "data", "unavailable"],
        "7" => &["id", "data", "unavailable"],
        "8" => &["isKeyOk", "id", "data"],
        "9" | "10" => &["opened", "id", "data", "unavailable"],
        "11" | "14" => &["first", "id", "data", "unavailable", "ping", "pong"],
        _ => return None,
    })
}

fn object(payload: &Payload) -> Option<Map<String, Value>> {
    serde_json::from_slice(&payload.bytes).ok()
}

/// What a client of the release hears of a frame. A frame without anything it looks at stays as it is.
pub fn heard(version: &str, payload: Payload) -> Payload {
    let Some((attributes, mut object)) = looks_at(version).zip(object(&payload)) else { return payload };
    object.retain(|name, _| attributes.contains(&name.as_str()));
    if object.contains_key("isKeyOk") {
        // Told so, it does not look for more.
        object.retain(|name, _| name == "isKeyOk");
    }
    if object.is_empty() { payload } else { Payload::new(payload.op, Value::Object(object).to_string()) }
}

/// The script with a number that no server would draw small in place of each id that the original gave out: its texts
/// and places in a list, as well as its numbers.
pub fn with_numbers(script: &Scenario) -> Scenario {
    let mut script = script.clone();
    if looks_at(&script.version).is_none() {
        return script;
    }
    let mut numbers: HashMap<String, u64> = HashMap::new();
    for record in &mut script.records {
        let (Event::Recv(payload) | Event::Send(payload)) = &record.event else { continue };
        let Some(mut object) = object(payload) else { continue };
        let given = matches!(record.event, Event::Recv(_));
        for name in ["id", "unavailable"] {
            let Some(value) = object.get_mut(name).filter(|value| value.is_string() || value.is_u64()) else {
                continue;
            };
            let id = value.to_string();
            // An id is given out with data; whatever else is named was made up by the client, and stays.
            if given && payload_has_data(payload) && !numbers.contains_key(&id) {
                numbers.insert(id.clone(), 1_000_000 + numbers.len() as u64);
            }
            if let Some(number) = numbers.get(&id) {
                *value = (*number).into();
            }
        }
        let changed = Payload::new(payload.op, Value::Object(object).to_string());
        if let (Event::Recv(payload) | Event::Send(payload), Op::Text) = (&mut record.event, changed.op)
            && Some(&changed.bytes) != compact(payload).as_ref()
        {
            *payload = changed;
        }
    }
    script
}

fn payload_has_data(payload: &Payload) -> bool {
    object(payload).is_some_and(|object| object.contains_key("data"))
}

fn compact(payload: &Payload) -> Option<Vec<u8>> {
    Some(Value::Object(object(payload)?).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(version: &str, text: &str) -> String {
        String::from_utf8(heard(version, Payload::new(Op::Text, text)).bytes).unwrap()
    }

    #[test]
    fn of_an_answer_for_several_each_hears_its_own() {
        let answer = r#"{"opened":false,"isKeyOk":true,"first":false}"#;
        assert_eq!(hears("10.1.0", answer), r#"{"opened":false}"#);
        assert_eq!(hears("7.6.4", answer), r#"{"isKeyOk":true}"#);
        assert_eq!(hears("14.0.0", answer), r#"{"first":false}"#);
        assert_eq!(hears("7.1.0", answer), answer, "and it would not know what to make of it");
        assert_eq!(hears("7.6.4", r#"{"isKeyOk":true,"id":0,"data":{}}"#), r#"{"isKeyOk":true}"#);
        assert_eq!(hears("5.0.0", r#"{"id":1}"#), r#"{"id":1}"#);
    }

    #[test]
    fn ids_that_were_given_out_become_numbers() {
        let lines = [
            r#"{"v":"11.0.0","sc":"s","t":0,"peer":"O","dir":"connect","path":"/"}"#,
            r#"{"v":"11.0.0","sc":"s","t":1,"peer":"O","dir":"recv","op":"text","text":"{\"id\":\"abc-1234\",\"data\":1}"}"#,
            r#"{"v":"11.0.0","sc":"s","t":2,"peer":"O","dir":"send","op":"text","text":"{\"id\":\"abc-1234\",\"data\":2}"}"#,
            r#"{"v":"11.0.0","sc":"s","t":3,"peer":"O","dir":"send","op":"text","text":"{\"id\":\"nobody\",\"data\":3}"}"#,
        ];
        let script = crate::transcript::parse(&lines.join("\n")).unwrap().remove(0);
        let texts: Vec<String> = with_numbers(&script)
            .records
            .into_iter()
            .filter_map(|record| match record.event {
                Event::Recv(payload) | Event::Send(payload) => String::from_utf8(payload.bytes).ok(),
                _ => None,
            })
            .collect();
        assert_eq!(
            texts,
            [r#"{"id":1000000,"data":1}"#, r#"{"id":1000000,"data":2}"#, r#"{"id":"nobody","data":3}"#]
        );
    }
}
