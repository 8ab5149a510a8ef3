//! A line of a transcript as it stands in the file.

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{ConnectRequest, FrameKind, RecordedEvent, RecordedFrame, TranscriptRecord, to_hex};

/// An error in a line of a transcript.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LineError {
    /// The line is not JSON, or has an unknown field.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A field is missing.
    #[error("no {0}")]
    Missing(&'static str),
    /// The bytes of a frame are not in hexadecimal digits.
    #[error("not hex: {0:?}")]
    Hex(String, #[source] data_encoding::DecodeError),
    /// A frame has both text and bytes, or neither.
    #[error("a frame has either text or hex")]
    FrameContent,
    /// The kind of event is unknown.
    #[error("unknown dir {0:?}")]
    UnknownDir(String),
    /// The scenario has lines above, and other scenarios between.
    #[error("scenario {0:?} appears twice")]
    RepeatedScenario(String),
    /// The client has a connection already.
    #[error("{0} connects twice: another connection is another peer")]
    ConnectsTwice(String),
    /// The client acts or observes an event without a connection.
    #[error("{0} did not connect before")]
    NotConnected(String),
}

/// A line of the file, in the order of its fields.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonLine {
    pub(super) v: String,
    pub(super) sc: String,
    pub(super) t: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<String>,
    pub(super) dir: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    op: Option<FrameKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    msg: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    utf8: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    code: Option<Option<u16>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alive: Option<bool>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    exit: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<String>,
}

/// Distinguishes `null` from a missing field.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

impl JsonLine {
    fn payload(&mut self) -> Result<RecordedFrame, LineError> {
        let op = self.op.ok_or(LineError::Missing("op"))?;
        let bytes = match (self.text.take(), self.hex.take()) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(hex)) => {
                HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|error| LineError::Hex(hex, error))?
            }
            _ => return Err(LineError::FrameContent),
        };
        Ok(RecordedFrame { op, bytes, msg: self.msg.take() })
    }

    /// Returns true if the line is an action or an event of a client.
    pub(super) fn is_of_a_client(&self) -> bool {
        !matches!(self.dir.as_str(), "note" | "server" | "raw-send" | "raw-recv")
    }

    pub(super) fn event(&mut self) -> Result<RecordedEvent, LineError> {
        Ok(match self.dir.as_str() {
            "connect" => RecordedEvent::Connect(ConnectRequest {
                path: self.path.take().ok_or(LineError::Missing("path"))?,
                origin: self.origin.take(),
                protocol: self.protocol.take(),
            }),
            "open" => RecordedEvent::Open,
            "send" => RecordedEvent::Send(self.payload()?),
            "recv" => RecordedEvent::Recv(self.payload()?),
            "send-close" => RecordedEvent::SendClose {
                code: self.code.flatten(),
                reason: self.reason.take().unwrap_or_default(),
            },
            "recv-close" => RecordedEvent::RecvClose {
                code: self.code.flatten().ok_or(LineError::Missing("code"))?,
                reason: self.reason.take().unwrap_or_default(),
            },
            "tcp-destroy" => RecordedEvent::TcpDestroy,
            "note" => RecordedEvent::Note(self.note.take().unwrap_or_default()),
            "server" => RecordedEvent::Server {
                alive: self.alive.ok_or(LineError::Missing("alive"))?,
                exit: self.exit.take().unwrap_or_default(),
                error: self.error.take(),
            },
            "raw-send" => RecordedEvent::RawSend { text: self.text.take().unwrap_or_default() },
            "raw-recv" => {
                RecordedEvent::RawRecv { text: self.text.take().unwrap_or_default(), end: self.end.take() }
            }
            other => return Err(LineError::UnknownDir(other.to_owned())),
        })
    }

    fn set_payload(&mut self, payload: &RecordedFrame) {
        self.op = Some(payload.op);
        self.msg.clone_from(&payload.msg);
        let text = std::str::from_utf8(&payload.bytes).ok();
        match (payload.op, text) {
            (FrameKind::Text, Some(text)) => self.text = Some(text.to_owned()),
            (FrameKind::Binary, Some(text)) if text.starts_with('{') => {
                self.hex = Some(to_hex(&payload.bytes));
                self.utf8 = Some(text.to_owned());
            }
            _ => self.hex = Some(to_hex(&payload.bytes)),
        }
    }

    pub(super) fn new(version: &str, scenario: &str, record: &TranscriptRecord) -> JsonLine {
        let mut line = JsonLine {
            v: version.to_owned(),
            sc: scenario.to_owned(),
            t: record.t,
            peer: record.peer.clone(),
            ..JsonLine::default()
        };
        let dir = match &record.event {
            RecordedEvent::Connect(ConnectRequest { path, origin, protocol }) => {
                line.path = Some(path.clone());
                line.origin.clone_from(origin);
                line.protocol.clone_from(protocol);
                "connect"
            }
            RecordedEvent::Open => "open",
            RecordedEvent::Send(payload) => {
                line.set_payload(payload);
                "send"
            }
            RecordedEvent::Recv(payload) => {
                line.set_payload(payload);
                "recv"
            }
            RecordedEvent::SendClose { code, reason } => {
                line.code = Some(*code);
                line.reason = Some(reason.clone());
                "send-close"
            }
            RecordedEvent::RecvClose { code, reason } => {
                line.code = Some(Some(*code));
                line.reason = Some(reason.clone());
                "recv-close"
            }
            RecordedEvent::TcpDestroy => "tcp-destroy",
            RecordedEvent::Note(note) => {
                line.note = Some(note.clone());
                "note"
            }
            RecordedEvent::Server { alive, exit, error } => {
                line.alive = Some(*alive);
                line.exit = Some(exit.clone());
                line.error.clone_from(error);
                "server"
            }
            RecordedEvent::RawSend { text } => {
                line.text = Some(text.clone());
                "raw-send"
            }
            RecordedEvent::RawRecv { text, end } => {
                line.text = Some(text.clone());
                line.end.clone_from(end);
                "raw-recv"
            }
        };
        dir.clone_into(&mut line.dir);
        line
    }
}
