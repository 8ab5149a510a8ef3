//! The transcript format: one JSON object a line, grouped into scenarios. Parsing and printing only.
//!
//! A recording and a script are the same thing: the lines of the client (`connect`, `send`, `send-close`,
//! `tcp-destroy`) are what the player does, the other lines are what came of it. Every field is described in
//! `docs/reference/transcript-format.md`.

use std::collections::HashSet;

use anyhow::{Context, Result, bail};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// A text message.
    Text,
    /// A binary message.
    Binary,
    /// A WebSocket ping.
    Ping,
    /// A WebSocket pong.
    Pong,
}

impl FrameKind {
    /// The word the format uses.
    pub fn name(self) -> &'static str {
        match self {
            FrameKind::Text => "text",
            FrameKind::Binary => "binary",
            FrameKind::Ping => "ping",
            FrameKind::Pong => "pong",
        }
    }
}

/// One frame: its kind and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedFrame {
    /// The kind of frame.
    pub op: FrameKind,
    /// The bytes, UTF-8 for a text frame.
    pub bytes: Vec<u8>,
    /// A decoding for human readers (`msg`), not looked at by anything.
    pub msg: Option<String>,
}

impl RecordedFrame {
    /// A frame without the decoding for readers.
    pub fn new(op: FrameKind, bytes: impl Into<Vec<u8>>) -> Self {
        Self { op, bytes: bytes.into(), msg: None }
    }
}

/// The request by which a client connects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Path and query. In a file, long paths may be abbreviated, see [`full_path`].
    pub path: String,
    /// The header `Origin`, if there was one.
    pub origin: Option<String>,
    /// The header `Sec-WebSocket-Protocol`, if there was one.
    pub protocol: Option<String>,
}

/// An event, or an action to play.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordedEvent {
    /// The client opens a connection.
    Connect(ConnectRequest),
    /// The WebSocket handshake succeeded.
    Open,
    /// The client sends a frame.
    Send(RecordedFrame),
    /// The client receives a frame.
    Recv(RecordedFrame),
    /// The client sends a close frame.
    SendClose {
        /// `None`: a close frame without a code.
        code: Option<u16>,
        /// The reason text.
        reason: String,
    },
    /// The connection ended, as the client sees it: 1005 for a close frame without a code, 1006 without a
    /// frame.
    RecvClose {
        /// The close code.
        code: u16,
        /// The reason text.
        reason: String,
    },
    /// The client drops the TCP connection without a close frame.
    TcpDestroy,
    /// A remark of the recorder.
    Note(String),
    /// The state of the server process at the end of the scenario.
    Server {
        /// True if the process is running.
        alive: bool,
        /// The exit status.
        exit: Value,
        /// The error text it died with.
        error: Option<String>,
    },
    /// Raw bytes on a TCP connection (HTTP scenarios, which the player skips).
    RawSend {
        /// The request.
        text: String,
    },
    /// The raw answer.
    RawRecv {
        /// The answer.
        text: String,
        /// The state of the connection after the answer.
        end: Option<String>,
    },
}

/// One line of a transcript, without the version and scenario that its [`Scenario`] holds.
#[derive(Clone, Debug, PartialEq)]
pub struct TranscriptRecord {
    /// Milliseconds since the scenario began.
    pub t: u64,
    /// Which client; none for lines about the server.
    pub peer: Option<String>,
    /// The event.
    pub event: RecordedEvent,
}

/// All lines of one scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The version of the original, e.g. `15.0.2`.
    pub version: String,
    /// The scenario's name.
    pub name: String,
    /// Its lines in order.
    pub records: Vec<TranscriptRecord>,
}

impl Scenario {
    /// Returns true if the recorded times matter (pings, heartbeats, timeouts).
    pub fn is_timed(&self) -> bool {
        self.name.starts_with("timed_")
    }

    /// Returns true if the player can play the scenario: raw TCP scenarios are kept in the files, but not
    /// played.
    pub fn is_playable(&self) -> bool {
        let raw =
            |e: &RecordedEvent| matches!(e, RecordedEvent::RawSend { .. } | RecordedEvent::RawRecv { .. });
        !self.records.iter().any(|r| raw(&r.event))
            && self.records.iter().any(|r| matches!(r.event, RecordedEvent::Connect(_)))
    }

    /// Returns true if the server process was running at the end, if the transcript has that.
    pub fn alive(&self) -> Option<bool> {
        self.records.iter().rev().find_map(|r| match r.event {
            RecordedEvent::Server { alive, .. } => Some(alive),
            _ => None,
        })
    }

    /// The time of the last line.
    pub fn duration(&self) -> u64 {
        self.records.iter().map(|r| r.t).max().unwrap_or(0)
    }
}

/// Returns true if `text` matches `pattern`, in which `*` stands for any characters.
pub fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            let mut tails = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            tails.any(|at| glob(rest, &text[at..]))
        }),
    }
}

/// The path a `connect` line means. Recordings abbreviate long paths: `/kkk...(513 chars)` stands for a path
/// of 513 characters that goes on with its last letter.
pub fn full_path(path: &str) -> String {
    let abbreviated = path.strip_suffix(" chars)").and_then(|p| p.rsplit_once("...("));
    let Some((head, count)) = abbreviated else {
        return path.to_owned();
    };
    let (Ok(count), Some(last)) = (count.parse::<usize>(), head.chars().last()) else {
        return path.to_owned();
    };
    let missing = count.saturating_sub(head.chars().count());
    head.chars().chain(std::iter::repeat_n(last, missing)).collect()
}

/// Returns lower-case hex, as in the files.
pub fn to_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// The line as it is in the file, in the order of the file's fields.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct JsonLine {
    v: String,
    sc: String,
    t: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    dir: String,
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

/// Keeps `null` apart from a missing field.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

impl JsonLine {
    fn payload(&mut self) -> Result<RecordedFrame> {
        let op = self.op.context("no op")?;
        let bytes = match (self.text.take(), self.hex.take()) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(hex)) => {
                HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).with_context(|| format!("not hex: {hex:?}"))?
            }
            _ => bail!("a frame has either text or hex"),
        };
        Ok(RecordedFrame { op, bytes, msg: self.msg.take() })
    }

    /// Returns true if the line is an action or an event of a client.
    fn is_of_a_client(&self) -> bool {
        !matches!(self.dir.as_str(), "note" | "server" | "raw-send" | "raw-recv")
    }

    fn event(&mut self) -> Result<RecordedEvent> {
        Ok(match self.dir.as_str() {
            "connect" => RecordedEvent::Connect(ConnectRequest {
                path: self.path.take().context("no path")?,
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
                code: self.code.flatten().context("no code")?,
                reason: self.reason.take().unwrap_or_default(),
            },
            "tcp-destroy" => RecordedEvent::TcpDestroy,
            "note" => RecordedEvent::Note(self.note.take().unwrap_or_default()),
            "server" => RecordedEvent::Server {
                alive: self.alive.context("no alive")?,
                exit: self.exit.take().unwrap_or_default(),
                error: self.error.take(),
            },
            "raw-send" => RecordedEvent::RawSend { text: self.text.take().unwrap_or_default() },
            "raw-recv" => {
                RecordedEvent::RawRecv { text: self.text.take().unwrap_or_default(), end: self.end.take() }
            }
            other => bail!("unknown dir {other:?}"),
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

    fn of(version: &str, scenario: &str, record: &TranscriptRecord) -> JsonLine {
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

/// Checks that a client can do or observe this, after the lines before.
fn check(connected: &mut HashSet<String>, line: &JsonLine) -> Result<()> {
    if !line.is_of_a_client() {
        return Ok(());
    }
    let peer = line.peer.as_ref().context("no peer")?;
    match (line.dir == "connect", connected.contains(peer)) {
        (true, true) => bail!("{peer} connects twice: another connection is another peer"),
        (false, false) => bail!("{peer} did not connect before"),
        (true, false) => connected.insert(peer.clone()),
        (false, true) => true,
    };
    Ok(())
}

/// Parses a whole file. Lines of one scenario follow each other; a scenario that comes back is an error.
pub fn parse(text: &str) -> Result<Vec<Scenario>> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut peers = HashSet::new();
    for (number, source) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let at = || format!("line {}", number + 1);
        let mut line: JsonLine = serde_json::from_str(source).with_context(at)?;
        let event = line.event().with_context(at)?;
        let same = |s: &Scenario| s.version == line.v && s.name == line.sc;
        if !scenarios.last().is_some_and(same) {
            if scenarios.iter().any(same) {
                bail!("{}: scenario {:?} appears twice", at(), line.sc);
            }
            peers.clear();
            scenarios.push(Scenario { version: line.v.clone(), name: line.sc.clone(), records: Vec::new() });
        }
        if let Some(scenario) = scenarios.last_mut() {
            check(&mut peers, &line).with_context(at)?;
            scenario.records.push(TranscriptRecord { t: line.t, peer: line.peer, event });
        }
    }
    Ok(scenarios)
}

/// Prints one line, ended by a newline.
pub fn print_line(version: &str, scenario: &str, record: &TranscriptRecord) -> Result<String> {
    Ok(serde_json::to_string(&JsonLine::of(version, scenario, record))? + "\n")
}

/// Prints scenarios in the file format, one line a record, each ended by a newline.
pub fn print(scenarios: &[Scenario]) -> Result<String> {
    let mut out = String::new();
    for scenario in scenarios {
        for record in &scenario.records {
            out.push_str(&print_line(&scenario.version, &scenario.name, record)?);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abbreviated_paths_are_expanded() {
        assert_eq!(full_path("/k1"), "/k1");
        let long = full_path("/kkkkkkkkkkkkkkkkkkk...(514 chars)");
        assert_eq!(long.len(), 514);
        assert_eq!(long, format!("/{}", "k".repeat(513)));
    }

    #[test]
    fn a_close_without_a_code_keeps_its_null() {
        let line = r#"{"v":"1","sc":"s","t":0,"peer":"O","dir":"send-close","code":null,"reason":""}"#;
        let connect =
            r#"{"v":"1","sc":"s","t":0,"peer":"O","dir":"connect","path":"/","origin":"a","protocol":"b"}"#;
        let text = format!("{connect}\n{line}\n");
        let parsed = parse(&text).unwrap();
        assert_eq!(
            parsed[0].records[1].event,
            RecordedEvent::SendClose { code: None, reason: String::new() }
        );
        assert_eq!(print(&parsed).unwrap(), text);
    }

    #[test]
    fn bad_lines_are_named() {
        for bad in [
            r#"{"v":"1","sc":"s","t":0,"dir":"fly"}"#,
            r#"{"v":"1","sc":"s","t":0,"dir":"send","op":"binary","hex":"0"}"#,
            r#"{"v":"1","sc":"s","t":0,"dir":"send","op":"binary"}"#,
            r#"{"v":"1","sc":"s","t":0,"dir":"note","colour":1}"#,
            r#"{"v":"1","sc":"s","t":0,"peer":"O","dir":"open"}"#,
            r#"{"v":"1","sc":"s","t":0,"dir":"connect","path":"/"}"#,
            "nonsense",
        ] {
            let error = format!("{:#}", parse(&format!("\n{bad}\n")).unwrap_err());
            assert!(error.starts_with("line 2"), "{error}");
        }
    }

    #[test]
    fn scenarios_are_grouped_and_must_not_come_back() {
        let line = |sc: &str| format!(r#"{{"v":"1","sc":"{sc}","t":0,"dir":"note"}}"#);
        let text = [line("a"), line("a"), line("b")].join("\n");
        assert_eq!(parse(&text).unwrap().iter().map(|s| s.records.len()).collect::<Vec<_>>(), [2, 1]);
        assert!(parse(&[text, line("a")].join("\n")).is_err());
    }
}
