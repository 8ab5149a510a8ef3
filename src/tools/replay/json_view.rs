//! A conversation as a client of one JSON release reads it, when the server does not know the release: of
//! an answer that suits several releases, only the attributes that the client reads count, and ids may be
//! of another type.
//!
//! Used in auto mode only; a pinned server must send exactly what the Node.js server sent.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::transcript::{FrameKind, RecordedEvent, RecordedFrame, Scenario};

/// Returns the attributes that clients of a release read (measured on real clients and their servers).
fn attributes_read(version: &str) -> Option<&'static [&'static str]> {
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

fn object(payload: &RecordedFrame) -> Option<Map<String, Value>> {
    serde_json::from_slice(&payload.bytes).ok()
}

/// Returns the part of a frame that a client of the release reads. A frame without such attributes stays as
/// it is.
pub fn client_view(version: &str, payload: RecordedFrame) -> RecordedFrame {
    let Some((attributes, mut object)) = attributes_read(version).zip(object(&payload)) else {
        return payload;
    };
    object.retain(|name, _| attributes.contains(&name.as_str()));
    if object.contains_key("isKeyOk") {
        // The client reads nothing else then.
        object.retain(|name, _| name == "isKeyOk");
    }
    if object.is_empty() {
        payload
    } else {
        RecordedFrame::new(payload.op, Value::Object(object).to_string())
    }
}

/// Returns the script with each server-made id replaced by a number too large to be drawn by chance, in
/// texts, list positions and numbers.
pub fn with_numbers(script: &Scenario) -> Scenario {
    let mut script = script.clone();
    // In auto mode, too, joiners of 7.0 and 7.1 are counted.
    if attributes_read(&script.version).is_none() || matches!(&*script.version, "7.0.0" | "7.1.0") {
        return script;
    }
    let mut numbers: HashMap<String, u64> = HashMap::new();
    for record in &mut script.records {
        let (RecordedEvent::Recv(payload) | RecordedEvent::Send(payload)) = &record.event else { continue };
        let Some(mut object) = object(payload) else { continue };
        let given = matches!(record.event, RecordedEvent::Recv(_));
        for name in ["id", "unavailable"] {
            let Some(value) = object.get_mut(name).filter(|value| value.is_string() || value.is_u64()) else {
                continue;
            };
            let id = value.to_string();
            // Ids are assigned with data; any other id was made up by the client, and stays.
            if given && payload_has_data(payload) && !numbers.contains_key(&id) {
                numbers.insert(id.clone(), 1_000_000 + numbers.len() as u64);
            }
            if let Some(number) = numbers.get(&id) {
                *value = (*number).into();
            }
        }
        let changed = RecordedFrame::new(payload.op, Value::Object(object).to_string());
        if let (RecordedEvent::Recv(payload) | RecordedEvent::Send(payload), FrameKind::Text) =
            (&mut record.event, changed.op)
            && Some(&changed.bytes) != compact(payload).as_ref()
        {
            *payload = changed;
        }
    }
    script
}

fn payload_has_data(payload: &RecordedFrame) -> bool {
    object(payload).is_some_and(|object| object.contains_key("data"))
}

fn compact(payload: &RecordedFrame) -> Option<Vec<u8>> {
    Some(Value::Object(object(payload)?).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(version: &str, text: &str) -> String {
        String::from_utf8(client_view(version, RecordedFrame::new(FrameKind::Text, text)).bytes).unwrap()
    }

    #[test]
    fn client_view_keeps_attributes_of_the_release() {
        let answer = r#"{"opened":false,"isKeyOk":true,"first":false}"#;
        assert_eq!(presented("10.1.0", answer), r#"{"opened":false}"#);
        assert_eq!(presented("7.6.4", answer), r#"{"isKeyOk":true}"#);
        assert_eq!(presented("14.0.0", answer), r#"{"first":false}"#);
        assert_eq!(presented("7.1.0", answer), answer, "and it would not know what to make of it");
        assert_eq!(presented("7.6.4", r#"{"isKeyOk":true,"id":0,"data":{}}"#), r#"{"isKeyOk":true}"#);
        assert_eq!(presented("5.0.0", r#"{"id":1}"#), r#"{"id":1}"#);
    }

    #[test]
    fn assigned_ids_become_numbers() {
        let lines = [
            r#"{"v":"11.0.0","sc":"s","t":0,"peer":"O","dir":"connect","path":"/"}"#,
            r#"{"v":"11.0.0","sc":"s","t":1,"peer":"O","dir":"recv","op":"text","text":"{\"id\":\"abc-1234\",\"data\":1}"}"#,
            r#"{"v":"11.0.0","sc":"s","t":2,"peer":"O","dir":"send","op":"text","text":"{\"id\":\"abc-1234\",\"data\":2}"}"#,
            r#"{"v":"11.0.0","sc":"s","t":3,"peer":"O","dir":"send","op":"text","text":"{\"id\":\"nobody\",\"data\":3}"}"#,
        ];
        let script = crate::tools::replay::transcript::parse(&lines.join("\n")).unwrap().remove(0);
        let texts: Vec<String> = with_numbers(&script)
            .records
            .into_iter()
            .filter_map(|record| match record.event {
                RecordedEvent::Recv(payload) | RecordedEvent::Send(payload) => {
                    String::from_utf8(payload.bytes).ok()
                }
                _ => None,
            })
            .collect();
        assert_eq!(
            texts,
            [r#"{"id":1000000,"data":1}"#, r#"{"id":1000000,"data":2}"#, r#"{"id":"nobody","data":3}"#]
        );
    }
}
