//! Messages in requests.

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::{Map, Value, json};

use super::FINAL_EVENT_ID;
use crate::protocol::frame::Message;

/// The content of a GET.
#[derive(Clone, Debug, PartialEq)]
pub struct SseRequest {
    /// The stream of the sender; `None` if the request is for a stream.
    pub sender: Option<SseSender>,
    /// The message.
    pub message: Message,
    /// The client has received the last event of its stream, and must not request it again.
    pub has_ended: bool,
    /// The query has nothing but what a library added to a URL without a query.
    pub is_blank: bool,
}

/// The stream that a request names as that of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SseSender {
    /// The stream of this id.
    Id(u64),
    /// A text that is no id of any stream.
    Invalid,
}

/// Names by which libraries for event streams add the id of the last event to the query:
/// event-source-polyfill, and that of AmvTek.
const LAST_EVENT_ID: [&str; 2] = ["lastEventId", "evs_last_event_id"];

/// Parses the query of a GET. A query of another form has an empty object as its message, which no release
/// knows.
pub fn parse_query(query: &str) -> SseRequest {
    let mut object = Map::new();
    let (mut sender, mut last_event_id) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*name, object.get_mut(&*name)) {
            (name, _) if LAST_EVENT_ID.contains(&name) => last_event_id = Some(value),
            ("myId", _) => sender = Some(value.trim().parse().map_or(SseSender::Invalid, SseSender::Id)),
            ("id", None) => {
                let number = value.trim().parse::<u64>().map(Value::from);
                object.insert(name.into_owned(), number.unwrap_or_else(|_| value.into()));
            }
            (_, Some(Value::Array(values))) => values.push(value.into()),
            // Node.js reads a repeated name as a list.
            (_, Some(first)) => *first = json!([first.take(), value]),
            (_, None) => {
                object.insert(name.into_owned(), value.into());
            }
        }
    }
    let object_is_empty = object.is_empty();
    let names: Vec<&str> = object.keys().map(String::as_str).collect();
    let is_message = match sender {
        None => matches!(names[..], ["open" | "join"]),
        Some(_) => matches!(names[..], ["data"] | ["data", "id"] | ["id", "data"]),
    };
    let text = if is_message { Value::Object(object).to_string() } else { "{}".to_owned() };
    SseRequest {
        has_ended: last_event_id.as_deref() == Some(FINAL_EVENT_ID),
        is_blank: last_event_id.is_some() && sender.is_none() && object_is_empty,
        sender,
        message: Message::text(text),
    }
}

/// Parses the body of a POST. Returns the id of the sender's stream, and the message; `None` if the body has
/// another form.
pub fn parse_post(body: &Bytes) -> Option<(u64, Message)> {
    let at = body.iter().position(|byte| *byte == b'@')?;
    let mut text = body.clone();
    let id = text.split_to(at);
    let id = std::str::from_utf8(&id).ok()?.trim().parse().ok()?;
    let text = text.split_off(1);
    let text = ByteString::try_from(text.clone())
        .unwrap_or_else(|_| String::from_utf8_lossy(&text).into_owned().into());
    Some((id, Message::Text(text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// sigver 8.1.0, measured.
    #[test]
    fn queries_are_parsed_as_by_upstream() {
        for (query, sender, frame) in [
            ("open=k1", None, r#"{"open":"k1"}"#),
            ("join=k%201+b&", None, r#"{"join":"k 1 b"}"#),
            ("open=", None, r#"{"open":""}"#),
            ("open=a&open=b&open=c", None, r#"{"open":["a","b","c"]}"#),
            ("open=a&x=1", None, "{}"),
            ("data=x", None, "{}"),
            ("", None, "{}"),
            ("foo", None, "{}"),
            ("data=a%26b+c%zz%ff%4&myId=7", Some(SseSender::Id(7)), "{\"data\":\"a&b c%zz\u{fffd}%4\"}"),
            ("data=x&id=9&myId=7", Some(SseSender::Id(7)), r#"{"data":"x","id":9}"#),
            ("id=%209&data=x&myId=%207", Some(SseSender::Id(7)), r#"{"id":9,"data":"x"}"#),
            ("id=abc&data=x&myId=7", Some(SseSender::Id(7)), r#"{"id":"abc","data":"x"}"#),
            ("data=1&data=2&myId=7", Some(SseSender::Id(7)), r#"{"data":["1","2"]}"#),
            ("data&myId=7", Some(SseSender::Id(7)), r#"{"data":""}"#),
            ("open=k&myId=7", Some(SseSender::Id(7)), "{}"),
            ("myId=x&data=%7B%22a%22%3A1%7D", Some(SseSender::Invalid), r#"{"data":"{\"a\":1}"}"#),
        ] {
            let message = Message::text(frame);
            let expected = SseRequest { sender, message, has_ended: false, is_blank: false };
            assert_eq!(parse_query(query), expected, "{query}");
        }
    }

    #[test]
    fn id_of_the_last_event_is_no_part_of_the_message() {
        for (query, frame, has_ended, is_blank) in [
            ("lastEventId=last", "{}", true, true),
            ("lastEventId=7", "{}", false, true),
            ("evs_last_event_id=last", "{}", true, true),
            ("open=k&lastEventId=last", r#"{"open":"k"}"#, true, false),
            ("lastEventId=&join=k", r#"{"join":"k"}"#, false, false),
            ("x=1&lastEventId=last", "{}", true, false),
        ] {
            let message = Message::text(frame);
            assert_eq!(
                parse_query(query),
                SseRequest { sender: None, message, has_ended, is_blank },
                "{query}"
            );
        }
        let sent = parse_query("data=x&myId=7&lastEventId=last");
        assert_eq!((sent.sender, sent.has_ended), (Some(SseSender::Id(7)), true));
    }

    /// sigver 10.1.0, measured.
    #[test]
    fn bodies_are_parsed_as_by_upstream() {
        for (body, expected) in [
            (&b"185@{\"open\":\"k1\"}"[..], Some((185, "{\"open\":\"k1\"}"))),
            (b" 0185 @{\"data\":\"a@b\"}", Some((185, "{\"data\":\"a@b\"}"))),
            (b"185@", Some((185, ""))),
            (b"185@\xff", Some((185, "\u{fffd}"))),
            (b"185{\"open\":\"k1\"}", None),
            (b"a@b", None),
            (b"\xff@b", None),
            (b"-1@b", None),
            (b"", None),
        ] {
            let expected = expected.map(|(id, text)| (id, Message::text(text)));
            assert_eq!(parse_post(&Bytes::from_static(body)), expected);
        }
    }

    proptest! {
        #[test]
        fn any_query_becomes_a_small_object(query in ".{0,300}") {
            let Message::Text(text) = parse_query(&query).message else { panic!("no text") };
            // An invalid byte may become three, and a control character an escape of six.
            prop_assert!(text.len() <= 6 * query.len() + 32);
            prop_assert!(serde_json::from_str::<Value>(&text).unwrap().is_object());
        }

        #[test]
        fn any_body_with_an_id_is_a_message(
            space in "[ \t\r\n]{0,2}",
            id: u64,
            message in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let body = [format!("{space}{id}{space}@").as_bytes(), &message].concat();
            let text = String::from_utf8_lossy(&message).into_owned();
            prop_assert_eq!(parse_post(&body.into()), Some((id, Message::text(text))));
        }

        #[test]
        fn bodies_without_an_id_are_rejected(
            before in prop_oneof![Just(Vec::new()), "[^0-9@]{1,9}".prop_map(String::into_bytes), Just(vec![b'1', 0xff])],
            message in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            prop_assert_eq!(parse_post(&[&before[..], b"@", &message].concat().into()), None);
        }
    }
}
