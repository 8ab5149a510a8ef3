//! The transcript format: one JSON object a line, grouped into scenarios. Parsing and printing only.
//!
//! A recording and a script are the same: the lines of the client (`connect`, `send`, `send-close`,
//! `tcp-destroy`) are the actions that the player repeats, the other lines are their consequences. Every
//! field is described in `docs/reference/transcript-format.md`.

mod line;

use std::collections::HashSet;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use self::line::JsonLine;
pub use self::line::LineError;

/// An error in a transcript.
#[derive(Debug, Error)]
#[error("line {line}")]
pub struct TranscriptError {
    /// The number of the line, from 1.
    pub line: usize,
    /// The cause.
    #[source]
    pub source: LineError,
}

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
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
    /// Returns the kind's name in the format.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// One frame: its kind and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedFrame {
    /// The kind of frame.
    pub op: FrameKind,
    /// The bytes, UTF-8 for a text frame.
    pub bytes: Vec<u8>,
    /// A decoding for human readers (`msg`), which no program uses.
    pub msg: Option<String>,
}

impl RecordedFrame {
    /// Returns a frame without the decoding for readers.
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
        /// The error text that the process ended with.
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
    /// The client; none for lines about the server.
    pub peer: Option<String>,
    /// The event.
    pub event: RecordedEvent,
}

/// All lines of one scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The version of the Node.js server, e.g. `15.0.2`.
    pub version: String,
    /// The scenario's name.
    pub name: String,
    /// Lines in order.
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

    /// Returns the time of the last line, in milliseconds.
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

/// Longest path that an abbreviation stands for, in characters.
const MAX_PATH: usize = 1 << 20;

/// Returns the path of a `connect` line. Recordings abbreviate long paths: `/kkk...(513 chars)` stands for
/// a path of 513 characters that continues with its last letter. A longer one than any server takes is no
/// abbreviation.
pub fn full_path(path: &str) -> String {
    let abbreviated = path.strip_suffix(" chars)").and_then(|p| p.rsplit_once("...("));
    let Some((head, count)) = abbreviated else {
        return path.to_owned();
    };
    let (Ok(count @ ..=MAX_PATH), Some(last)) = (count.parse::<usize>(), head.chars().last()) else {
        return path.to_owned();
    };
    let missing = count.saturating_sub(head.chars().count());
    head.chars().chain(std::iter::repeat_n(last, missing)).collect()
}

/// Returns lower-case hex, as in the files.
pub fn to_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Checks that a client can do or observe this after the previous lines.
fn check(connected: &mut HashSet<String>, line: &JsonLine) -> Result<(), LineError> {
    if !line.is_of_a_client() {
        return Ok(());
    }
    let peer = line.peer.as_ref().ok_or(LineError::Missing("peer"))?;
    match (line.dir == "connect", connected.contains(peer)) {
        (true, true) => return Err(LineError::ConnectsTwice(peer.clone())),
        (false, false) => return Err(LineError::NotConnected(peer.clone())),
        (true, false) => connected.insert(peer.clone()),
        (false, true) => true,
    };
    Ok(())
}

/// Parses a whole file. Lines of one scenario follow each other; a scenario that appears twice is an error.
pub fn parse(text: &str) -> Result<Vec<Scenario>, TranscriptError> {
    let mut scenarios = Vec::new();
    let mut peers = HashSet::new();
    for (number, source) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        parse_line(source, &mut scenarios, &mut peers)
            .map_err(|source| TranscriptError { line: number + 1, source })?;
    }
    Ok(scenarios)
}

/// Parses a line, and adds it to its scenario, of which `peers` are the clients so far.
fn parse_line(
    source: &str,
    scenarios: &mut Vec<Scenario>,
    peers: &mut HashSet<String>,
) -> Result<(), LineError> {
    let mut line: JsonLine = serde_json::from_str(source)?;
    let event = line.event()?;
    let is_same = |scenario: &Scenario| scenario.version == line.v && scenario.name == line.sc;
    if !scenarios.last().is_some_and(is_same) {
        if scenarios.iter().any(is_same) {
            return Err(LineError::RepeatedScenario(line.sc));
        }
        peers.clear();
        scenarios.push(Scenario { version: line.v.clone(), name: line.sc.clone(), records: Vec::new() });
    }
    check(peers, &line)?;
    if let Some(scenario) = scenarios.last_mut() {
        scenario.records.push(TranscriptRecord { t: line.t, peer: line.peer, event });
    }
    Ok(())
}

/// Returns one line, ended by a newline.
pub(crate) fn print_line(
    version: &str,
    scenario: &str,
    record: &TranscriptRecord,
) -> serde_json::Result<String> {
    Ok(serde_json::to_string(&JsonLine::new(version, scenario, record))? + "\n")
}

/// Returns scenarios in the file format, one line a record, each ended by a newline.
pub fn print(scenarios: &[Scenario]) -> serde_json::Result<String> {
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
        assert_eq!(full_path("/k...(800000000000026 chars)"), "/k...(800000000000026 chars)");
    }

    #[test]
    fn close_without_code_keeps_null() {
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
    fn error_names_line() {
        for bad in [
            r#"{"v":"1","sc":"s","t":0,"dir":"fly"}"#,
            r#"{"v":"1","sc":"s","t":0,"dir":"send","op":"binary","hex":"0"}"#,
            r#"{"v":"1","sc":"s","t":0,"dir":"send","op":"binary"}"#,
            r#"{"v":"1","sc":"s","t":0,"dir":"note","colour":1}"#,
            r#"{"v":"1","sc":"s","t":0,"peer":"O","dir":"open"}"#,
            r#"{"v":"1","sc":"s","t":0,"dir":"connect","path":"/"}"#,
            "nonsense",
        ] {
            let error = parse(&format!("\n{bad}\n")).unwrap_err();
            assert_eq!(error.line, 2, "{error:?}");
        }
    }

    #[test]
    fn scenario_must_not_appear_twice() {
        let line = |sc: &str| format!(r#"{{"v":"1","sc":"{sc}","t":0,"dir":"note"}}"#);
        let text = [line("a"), line("a"), line("b")].join("\n");
        assert_eq!(parse(&text).unwrap().iter().map(|s| s.records.len()).collect::<Vec<_>>(), [2, 1]);
        assert!(parse(&[text, line("a")].join("\n")).is_err());
    }
}
