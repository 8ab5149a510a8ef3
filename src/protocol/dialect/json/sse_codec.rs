//! How sigver 8.1, 9 and 10 wrote their frames as events of a stream, and read frames from requests. Pure: which
//! requests are meant, and what becomes of a frame, is decided elsewhere.

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::{Map, Value, json};

use crate::protocol::dialect::{Dialect, Release, ReleaseSet};
use crate::protocol::frame::{Close, Message, Outgoing};

/// What a stream begins with, so that the client sees that it is open.
pub const OPENED: &str = ":ok\n\n";

/// The id of the last event of a stream which the client is not to ask for again. A browser whose stream ends comes
/// back by itself, and says this id.
pub const LAST: &str = "last";

/// What the answer to a request that only sends has in it.
pub const TAKEN: &str = ":ok\n\nid: last\n\n";

/// How a client of event streams says its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SseVariant {
    /// In the query of a GET, as in sigver 8.1. Its first word is in the request for the stream.
    Query,
    /// In the body of a POST, after the id that the stream began with, as in sigver 9 and 10.
    Auth,
}

impl SseVariant {
    /// Those of the releases that have event streams in this style.
    pub fn releases(self, all: ReleaseSet) -> ReleaseSet {
        let has: fn(Release) -> bool = match self {
            SseVariant::Query => |release| release == Release::V8_1_0,
            SseVariant::Auth => |release| release.dialect() == Dialect::Sigver9,
        };
        all.filter(has)
    }
}

/// The writing side of one stream.
#[derive(Debug)]
pub struct Writer {
    style: SseVariant,
    id: u64,
    /// The client has its key.
    accepted: bool,
}

/// A frame, written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent {
    /// The event, if the client is to see any.
    pub event: Option<Bytes>,
    /// The stream ends with it.
    pub last: bool,
}

impl Writer {
    /// For the client that is to say `id` where it sends.
    pub fn new(style: SseVariant, id: u64) -> Self {
        Writer { style, id, accepted: false }
    }

    /// What the stream begins with, in pieces.
    pub fn greeting(&self) -> Vec<Bytes> {
        let opened = Bytes::from_static(OPENED.as_bytes());
        match self.style {
            SseVariant::Query => vec![opened],
            SseVariant::Auth => vec![opened, event(Some("auth"), false, &self.id.to_string())],
        }
    }

    /// Writes a frame.
    pub fn write(&mut self, outgoing: Outgoing) -> EncodedEvent {
        match (outgoing, self.style) {
            (Outgoing::Message(Message::Text(text)), SseVariant::Query) => self.query_text(&text),
            (Outgoing::Message(Message::Text(text)), SseVariant::Auth) => EncodedEvent::text(&text),
            // There are no bytes in these dialects.
            (Outgoing::Message(Message::Binary(_)) | Outgoing::Prefixed(..), _) => {
                EncodedEvent { event: None, last: false }
            }
            // A server that stops says nothing, as the originals: the client's browser comes back by itself.
            (Outgoing::Close(Close { code: Some(1001), .. }), _) => EncodedEvent { event: None, last: true },
            (Outgoing::Close(close), SseVariant::Query) => {
                let last = !(self.accepted && ends_nothing(close.code));
                EncodedEvent { event: Some(event(None, last, &query_error(&close).to_string())), last }
            }
            (Outgoing::Close(close), SseVariant::Auth) => {
                let mut error = Map::new();
                if let Some(code) = close.code {
                    error.insert("code".to_owned(), code.into());
                }
                error.insert("reason".to_owned(), close.reason.into());
                EncodedEvent {
                    event: Some(event(Some("close"), true, &Value::Object(error).to_string())),
                    last: true,
                }
            }
        }
    }

    fn query_text(&mut self, text: &str) -> EncodedEvent {
        match text {
            "{\"isKeyOk\":true}" => {
                self.accepted = true;
                EncodedEvent::text(&format!("{{\"isKeyOk\":true,\"id\":{}}}", self.id))
            }
            // The error that follows says it.
            "{\"isKeyOk\":false}" => EncodedEvent { event: None, last: false },
            text => EncodedEvent::text(text),
        }
    }
}

impl EncodedEvent {
    fn text(text: &str) -> Self {
        EncodedEvent { event: Some(event(None, false, text)), last: false }
    }
}

/// Errors which in sigver 8.1 are about one frame that was sent, and not about the stream of its sender.
fn ends_nothing(code: Option<u16>) -> bool {
    matches!(code, Some(4000 | 4020..=4023))
}

/// An error of sigver 8.1. Only two of the key's errors say that the key is not ok; and here a key that is taken is not
/// in quotes.
fn query_error(close: &Close) -> Value {
    let mut error = Map::new();
    if let Some(4001 | 4010) = close.code {
        error.insert("isKeyOk".to_owned(), false.into());
    }
    let taken = close.reason.strip_prefix("KEY_EXISTS: The key \"");
    let message = match taken.and_then(|rest| rest.rsplit_once("\" ")) {
        Some((key, rest)) => format!("KEY_EXISTS: The key {key} {rest}"),
        None => close.reason.clone().into_owned(),
    };
    error.insert("error".to_owned(), close.code.into());
    error.insert("message".to_owned(), message.into());
    Value::Object(error)
}

/// An event. Whatever is in `data`, it stays data: each of its lines is marked as such.
fn event(name: Option<&str>, last: bool, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + 32);
    if let Some(name) = name {
        text.extend(["event: ", name, "\n"]);
    }
    if last {
        text.extend(["id: ", LAST, "\n"]);
    }
    for line in data.replace("\r\n", "\n").split(['\n', '\r']) {
        text.extend(["data: ", line, "\n"]);
    }
    text.push('\n');
    Bytes::from(text)
}

/// What a GET says in its query.
#[derive(Clone, Debug, PartialEq)]
pub struct SseRequest {
    /// Who sends it: the stream of this id. `None` if it is the stream itself that is asked for.
    pub sender: Option<Sender>,
    /// What it says.
    pub message: Message,
}

/// Who a request says it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The client of this stream.
    Id(u64),
    /// Something that can be nobody's id.
    Nobody,
}

/// Reads a query. Of what is no proper request there is a frame, too, which means nothing.
pub fn asked(query: &str) -> SseRequest {
    let mut said = Map::new();
    let mut sender = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name), decode(value));
        match (&*name, said.get_mut(&name)) {
            ("myId", _) => sender = Some(value.trim().parse().map_or(Sender::Nobody, Sender::Id)),
            ("id", None) => {
                let number = value.trim().parse::<u64>().map(Value::from);
                said.insert(name, number.unwrap_or(Value::String(value)));
            }
            (_, Some(Value::Array(several))) => several.push(value.into()),
            // As Node.js reads a name that is there twice.
            (_, Some(first)) => *first = json!([first.take(), value]),
            (_, None) => {
                said.insert(name, value.into());
            }
        }
    }
    let names: Vec<&str> = said.keys().map(String::as_str).collect();
    let proper = match sender {
        None => matches!(names[..], ["open" | "join"]),
        Some(_) => matches!(names[..], ["data"] | ["data", "id"] | ["id", "data"]),
    };
    let frame = if proper { Value::Object(said).to_string() } else { "{}".to_owned() };
    SseRequest { sender, message: Message::text(frame) }
}

/// The value of a percent-escaped text in a query: what is no escape stays, what is no UTF-8 is replaced, as Node.js
/// does.
fn decode(text: &str) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        rest = more;
        bytes.push(match (first, more) {
            (b'+', _) => b' ',
            (b'%', [high, low, more @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = more;
                    high << 4 | low
                }
                _ => b'%',
            },
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Reads the body of a POST: who sends, and what. `None` if it has not that form.
pub fn posted(body: &Bytes) -> Option<(u64, Message)> {
    let at = body.iter().position(|byte| *byte == b'@')?;
    let id = std::str::from_utf8(&body[..at]).ok()?.trim().parse().ok()?;
    let text = body.slice(at + 1..);
    let text = ByteString::try_from(text.clone())
        .unwrap_or_else(|_| String::from_utf8_lossy(&text).into_owned().into());
    Some((id, Message::Text(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(style: SseVariant, outgoing: impl Into<Outgoing>) -> (Option<String>, bool) {
        let EncodedEvent { event, last } = Writer::new(style, 1438233096).write(outgoing.into());
        (event.map(|event| String::from_utf8(event.to_vec()).unwrap()), last)
    }

    fn text(style: SseVariant, text: &'static str) -> Option<String> {
        let (event, last) = written(style, Message::text(text));
        assert!(!last);
        event
    }

    #[test]
    fn greetings_are_those_of_the_recordings() {
        assert_eq!(Writer::new(SseVariant::Query, 5).greeting(), [":ok\n\n"]);
        assert_eq!(
            Writer::new(SseVariant::Auth, 185614399).greeting(),
            [":ok\n\n", "event: auth\ndata: 185614399\n\n"]
        );
    }

    #[test]
    fn texts_are_data() {
        assert_eq!(
            text(SseVariant::Query, r#"{"isKeyOk":true}"#).unwrap(),
            "data: {\"isKeyOk\":true,\"id\":1438233096}\n\n"
        );
        assert_eq!(text(SseVariant::Query, r#"{"data":"x"}"#).unwrap(), "data: {\"data\":\"x\"}\n\n");
        assert_eq!(text(SseVariant::Auth, r#"{"opened":true}"#).unwrap(), "data: {\"opened\":true}\n\n");
        assert_eq!(written(SseVariant::Auth, Message::binary("x")), (None, false));
    }

    #[test]
    fn no_text_can_be_more_than_data() {
        assert_eq!(
            text(SseVariant::Auth, "a\nevent: close\r\n\rid: 5").unwrap(),
            "data: a\ndata: event: close\ndata: \ndata: id: 5\n\n"
        );
        assert_eq!(text(SseVariant::Auth, "").unwrap(), "data: \n\n");
    }

    #[test]
    fn errors_are_those_of_the_recordings_and_are_the_last() {
        assert_eq!(text(SseVariant::Query, r#"{"isKeyOk":false}"#), None);
        for (code, reason, expected) in [
            (
                4010,
                "KEY_EXISTS: The key \"k1\" has already been used for open",
                r#"{"isKeyOk":false,"error":4010,"message":"KEY_EXISTS: The key k1 has already been used for open"}"#,
            ),
            (
                4001,
                "KEY_ERROR: The key  is an empty string",
                r#"{"isKeyOk":false,"error":4001,"message":"KEY_ERROR: The key  is an empty string"}"#,
            ),
            (4011, "KEY_UNKNOWN: Unknown key", r#"{"error":4011,"message":"KEY_UNKNOWN: Unknown key"}"#),
        ] {
            let event = written(SseVariant::Query, Close::new(code, reason));
            assert_eq!(event, (Some(format!("id: last\ndata: {expected}\n\n")), true));
        }
        let close = Close::new(4000, "MESSAGE_ERROR=4000: Unknown message");
        assert_eq!(
            written(SseVariant::Auth, close).0.unwrap(),
            "event: close\nid: last\ndata: {\"code\":4000,\"reason\":\"MESSAGE_ERROR=4000: Unknown message\"}\n\n"
        );
        assert_eq!(
            written(SseVariant::Auth, Close::empty()),
            (Some("event: close\nid: last\ndata: {\"reason\":\"\"}\n\n".to_owned()), true)
        );
        for style in [SseVariant::Query, SseVariant::Auth] {
            assert_eq!(written(style, Close::new(1001, "bye")), (None, true));
        }
    }

    /// As in sigver 8.1.0, where both ends of a link go on after any of these.
    #[test]
    fn an_error_about_one_frame_does_not_end_the_stream_of_a_client_that_has_its_key() {
        let gone = "JOINING_NO_LONGER_AVAILABLE: Joining is no longer available";
        let mut writer = Writer::new(SseVariant::Query, 5);
        assert!(writer.write(Outgoing::Close(Close::new(4021, gone))).last);
        writer.write(Message::text("{\"isKeyOk\":true}").into());
        let written = writer.write(Outgoing::Close(Close::new(4021, gone)));
        let expected = format!("data: {{\"error\":4021,\"message\":\"{gone}\"}}\n\n");
        assert_eq!(written, EncodedEvent { event: Some(expected.into()), last: false });
        for code in [1008, 1009, 4001] {
            assert!(writer.write(Outgoing::Close(Close::new(code, ""))).last);
        }
    }

    /// All as sigver 8.1.0 answered it.
    #[test]
    fn queries_are_read_as_by_the_original() {
        for (query, sender, frame) in [
            ("open=k1", None, r#"{"open":"k1"}"#),
            ("join=k%201+b&", None, r#"{"join":"k 1 b"}"#),
            ("open=", None, r#"{"open":""}"#),
            ("open=a&open=b&open=c", None, r#"{"open":["a","b","c"]}"#),
            ("open=a&x=1", None, "{}"),
            ("data=x", None, "{}"),
            ("", None, "{}"),
            ("foo", None, "{}"),
            ("data=a%26b+c%zz%ff%4&myId=7", Some(Sender::Id(7)), "{\"data\":\"a&b c%zz\u{fffd}%4\"}"),
            ("data=x&id=9&myId=7", Some(Sender::Id(7)), r#"{"data":"x","id":9}"#),
            ("id=%209&data=x&myId=%207", Some(Sender::Id(7)), r#"{"id":9,"data":"x"}"#),
            ("id=abc&data=x&myId=7", Some(Sender::Id(7)), r#"{"id":"abc","data":"x"}"#),
            ("data=1&data=2&myId=7", Some(Sender::Id(7)), r#"{"data":["1","2"]}"#),
            ("data&myId=7", Some(Sender::Id(7)), r#"{"data":""}"#),
            ("open=k&myId=7", Some(Sender::Id(7)), "{}"),
            ("myId=x&data=%7B%22a%22%3A1%7D", Some(Sender::Nobody), r#"{"data":"{\"a\":1}"}"#),
        ] {
            assert_eq!(asked(query), SseRequest { sender, message: Message::text(frame) }, "{query}");
        }
    }

    /// All as sigver 10.1.0 took it.
    #[test]
    fn bodies_are_read_as_by_the_original() {
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
            assert_eq!(posted(&Bytes::from_static(body)), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_becomes_one_small_text(query in ".{0,300}") {
            let Message::Text(text) = asked(&query).message else { panic!("no text") };
            // An invalid byte may become three, and a control character an escape of six.
            assert!(text.len() <= 6 * query.len() + 32);
            assert!(serde_json::from_str::<Value>(&text).unwrap().is_object());
        }

        #[test]
        fn whatever_is_posted_is_understood_or_not(body in proptest::collection::vec(0u8..=255, 0..50)) {
            if let Some((id, frame)) = posted(&Bytes::from(body.clone())) {
                let digits = body.split(|byte| *byte == b'@').next().unwrap();
                assert!(std::str::from_utf8(digits).unwrap().contains(&id.to_string()));
                assert!(matches!(frame, Message::Text(_)));
            }
        }

        #[test]
        fn whatever_is_written_is_one_event(text in "(.|[\r\n]){0,100}") {
            let event = Writer::new(SseVariant::Auth, 1).write(Message::text(text).into()).event.unwrap();
            let event = std::str::from_utf8(&event).unwrap();
            let lines = event.strip_suffix("\n\n").unwrap();
            assert!(lines.split(['\r', '\n']).all(|line| line.starts_with("data: ")));
        }
    }
}
