//! Events of a stream.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{FINAL_EVENT_ID, SseVariant};
use crate::protocol::frame::{Close, Message, Outgoing};

/// Beginning of every stream, by which the client sees that the stream is open.
const OPENED: &str = ":ok\n\n";

/// Encoder of the events of one stream.
#[derive(Debug)]
pub struct EventWriter {
    variant: SseVariant,
    id: u64,
    /// The key of the client is accepted.
    accepted: bool,
}

/// A message or close frame as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent {
    /// The event; `None` if the client is sent none.
    pub event: Option<Bytes>,
    /// The stream ends with this event.
    pub last: bool,
}

impl EventWriter {
    /// Creates the encoder of a stream. The client has to send `id` with its messages.
    pub fn new(variant: SseVariant, id: u64) -> Self {
        EventWriter { variant, id, accepted: false }
    }

    /// Returns the beginning of the stream, in pieces.
    pub fn preamble(&self) -> Vec<Bytes> {
        let opened = Bytes::from_static(OPENED.as_bytes());
        match self.variant {
            SseVariant::V8_1 => vec![opened],
            SseVariant::V9 => vec![opened, event(Some("auth"), false, &self.id.to_string())],
        }
    }

    /// Encodes a message or close frame.
    pub fn encode(&mut self, outgoing: Outgoing) -> EncodedEvent {
        match (outgoing, self.variant) {
            (Outgoing::Message(Message::Text(text)), SseVariant::V8_1) => self.query_text(&text),
            (Outgoing::Message(Message::Text(text)), SseVariant::V9) => EncodedEvent::text(&text),
            // These dialects have no binary messages.
            (Outgoing::Message(Message::Binary(_)) | Outgoing::Prefixed(..), _) => {
                EncodedEvent { event: None, last: false }
            }
            // The Node.js servers send nothing when they stop: the browser reconnects on its own.
            (Outgoing::Close(Close { code: Some(1001), .. }), _) => EncodedEvent { event: None, last: true },
            (Outgoing::Close(close), SseVariant::V8_1) => {
                let last = !(self.accepted && is_non_fatal(close.code));
                EncodedEvent { event: Some(event(None, last, &query_error(&close).to_string())), last }
            }
            (Outgoing::Close(close), SseVariant::V9) => {
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
            // The error that follows has it.
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

/// Returns true for an error of sigver 8.1 about one message, which does not end the stream of its sender.
fn is_non_fatal(code: Option<u16>) -> bool {
    matches!(code, Some(4000 | 4020..=4023))
}

/// Returns an error in the form of sigver 8.1. Only two of the errors about keys have `isKeyOk`, and a key
/// that is taken is not in quotes.
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

/// Returns an event. Each line of `data` is marked as data, so that no text is read as another field.
fn event(name: Option<&str>, last: bool, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len().saturating_add(32));
    if let Some(name) = name {
        text.extend(["event: ", name, "\n"]);
    }
    if last {
        text.extend(["id: ", FINAL_EVENT_ID, "\n"]);
    }
    for line in data.replace("\r\n", "\n").split(['\n', '\r']) {
        text.extend(["data: ", line, "\n"]);
    }
    text.push('\n');
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(variant: SseVariant, outgoing: impl Into<Outgoing>) -> (Option<String>, bool) {
        let EncodedEvent { event, last } = EventWriter::new(variant, 1438233096).encode(outgoing.into());
        (event.map(|event| String::from_utf8(event.to_vec()).unwrap()), last)
    }

    fn text(variant: SseVariant, text: &'static str) -> Option<String> {
        let (event, last) = written(variant, Message::text(text));
        assert!(!last);
        event
    }

    #[test]
    fn preambles_equal_the_recordings() {
        assert_eq!(EventWriter::new(SseVariant::V8_1, 5).preamble(), [":ok\n\n"]);
        assert_eq!(
            EventWriter::new(SseVariant::V9, 185614399).preamble(),
            [":ok\n\n", "event: auth\ndata: 185614399\n\n"]
        );
    }

    #[test]
    fn messages_are_data() {
        assert_eq!(
            text(SseVariant::V8_1, r#"{"isKeyOk":true}"#).unwrap(),
            "data: {\"isKeyOk\":true,\"id\":1438233096}\n\n"
        );
        assert_eq!(text(SseVariant::V8_1, r#"{"data":"x"}"#).unwrap(), "data: {\"data\":\"x\"}\n\n");
        assert_eq!(text(SseVariant::V9, r#"{"opened":true}"#).unwrap(), "data: {\"opened\":true}\n\n");
        assert_eq!(written(SseVariant::V9, Message::binary("x")), (None, false));
    }

    #[test]
    fn no_message_can_forge_a_field() {
        assert_eq!(
            text(SseVariant::V9, "a\nevent: close\r\n\rid: 5").unwrap(),
            "data: a\ndata: event: close\ndata: \ndata: id: 5\n\n"
        );
        assert_eq!(text(SseVariant::V9, "").unwrap(), "data: \n\n");
    }

    #[test]
    fn errors_equal_the_recordings_and_end_the_stream() {
        assert_eq!(text(SseVariant::V8_1, r#"{"isKeyOk":false}"#), None);
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
            let event = written(SseVariant::V8_1, Close::new(code, reason));
            assert_eq!(event, (Some(format!("id: last\ndata: {expected}\n\n")), true));
        }
        let close = Close::new(4000, "MESSAGE_ERROR=4000: Unknown message");
        assert_eq!(
            written(SseVariant::V9, close).0.unwrap(),
            "event: close\nid: last\ndata: {\"code\":4000,\"reason\":\"MESSAGE_ERROR=4000: Unknown message\"}\n\n"
        );
        assert_eq!(
            written(SseVariant::V9, Close::empty()),
            (Some("event: close\nid: last\ndata: {\"reason\":\"\"}\n\n".to_owned()), true)
        );
        for variant in [SseVariant::V8_1, SseVariant::V9] {
            assert_eq!(written(variant, Close::new(1001, "bye")), (None, true));
        }
    }

    /// Both ends of a link go on after any of these errors (sigver 8.1.0, measured).
    #[test]
    fn error_about_one_message_does_not_end_an_accepted_stream() {
        let gone = "JOINING_NO_LONGER_AVAILABLE: Joining is no longer available";
        let mut writer = EventWriter::new(SseVariant::V8_1, 5);
        assert!(writer.encode(Outgoing::Close(Close::new(4021, gone))).last);
        writer.encode(Message::text("{\"isKeyOk\":true}").into());
        let written = writer.encode(Outgoing::Close(Close::new(4021, gone)));
        let expected = format!("data: {{\"error\":4021,\"message\":\"{gone}\"}}\n\n");
        assert_eq!(written, EncodedEvent { event: Some(expected.into()), last: false });
        for code in [1008, 1009, 4001] {
            assert!(writer.encode(Outgoing::Close(Close::new(code, ""))).last);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_message_is_one_event(text in "(.|[\r\n]){0,100}") {
            let event = EventWriter::new(SseVariant::V9, 1).encode(Message::text(text).into()).event.unwrap();
            let event = std::str::from_utf8(&event).unwrap();
            let lines = event.strip_suffix("\n\n").unwrap();
            assert!(lines.split(['\r', '\n']).all(|line| line.starts_with("data: ")));
        }
    }
}
