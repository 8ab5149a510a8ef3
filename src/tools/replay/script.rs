//! A scenario as steps: each is one action of a client, with all events that clients observed before the
//! next.

use super::transcript::{
    ConnectRequest, FrameKind, RecordedEvent, RecordedFrame, Scenario, full_path, to_hex,
};

/// An action of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum ScriptAction {
    /// Opens a connection; the path is not abbreviated.
    Connect(ConnectRequest),
    /// Sends a frame.
    Send(RecordedFrame),
    /// Sends a close frame.
    Close {
        /// `None`: no code in the frame.
        code: Option<u16>,
        /// The reason text.
        reason: String,
    },
    /// Drops the TCP connection.
    Drop,
}

impl ScriptAction {
    /// Returns true if the action ends a connection.
    pub(crate) fn ends(&self) -> bool {
        matches!(self, ScriptAction::Close { .. } | ScriptAction::Drop)
    }
}

/// An event that a client observed.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// The connection is open.
    Open,
    /// A frame arrived.
    Frame(RecordedFrame),
    /// The connection ended.
    Close {
        /// The close code, 1005 or 1006 where there was none.
        code: u16,
        /// The reason text.
        reason: String,
    },
}

/// An event, with its time and client.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Milliseconds since the scenario began.
    pub t: u64,
    /// The client.
    pub peer: String,
    /// The event.
    pub what: Observed,
}

/// One action and what followed.
#[derive(Clone, Debug, PartialEq)]
pub struct ScriptStep {
    /// Time of the action, in milliseconds since the scenario began.
    pub t: u64,
    /// The client that acted.
    pub peer: String,
    /// The action.
    pub action: ScriptAction,
    /// The events of all clients between this action and the next.
    pub seen: Vec<Seen>,
}

impl ScriptStep {
    /// Returns the number of events of `peer` in this step.
    pub(crate) fn count(&self, peer: &str) -> usize {
        self.seen.iter().filter(|s| s.peer == peer).count()
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

impl std::fmt::Display for ScriptStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peer = &self.peer;
        match &self.action {
            ScriptAction::Connect(to) => write!(f, "{peer} connects to {}", shortened(&to.path)),
            ScriptAction::Send(p) => match (&p.msg, std::str::from_utf8(&p.bytes)) {
                (Some(msg), _) => write!(f, "{peer} sends {msg}"),
                (None, Ok(text)) if p.op == FrameKind::Text => {
                    write!(f, "{peer} sends text {}", shortened(text))
                }
                _ => write!(f, "{peer} sends {} {}", p.op.name(), shortened(&to_hex(&p.bytes))),
            },
            ScriptAction::Close { code, reason } => match code {
                Some(code) => write!(f, "{peer} closes with {code} {reason:?}"),
                None => write!(f, "{peer} closes without a code"),
            },
            ScriptAction::Drop => write!(f, "{peer} drops its TCP connection"),
        }
    }
}

/// Returns the steps of a scenario, without lines that belong to no client (notes, the state of the server).
pub fn steps(scenario: &Scenario) -> Vec<ScriptStep> {
    let mut steps: Vec<ScriptStep> = Vec::new();
    for record in &scenario.records {
        let Some(peer) = record.peer.clone() else { continue };
        let action = match &record.event {
            RecordedEvent::Connect(to) => {
                Some(ScriptAction::Connect(ConnectRequest { path: full_path(&to.path), ..to.clone() }))
            }
            RecordedEvent::Send(payload) => Some(ScriptAction::Send(payload.clone())),
            RecordedEvent::SendClose { code, reason } => {
                Some(ScriptAction::Close { code: *code, reason: reason.clone() })
            }
            RecordedEvent::TcpDestroy => Some(ScriptAction::Drop),
            _ => None,
        };
        let what = match &record.event {
            RecordedEvent::Open => Some(Observed::Open),
            RecordedEvent::Recv(payload) => Some(Observed::Frame(payload.clone())),
            RecordedEvent::RecvClose { code, reason } => {
                Some(Observed::Close { code: *code, reason: reason.clone() })
            }
            _ => None,
        };
        match (action, what, steps.last_mut()) {
            (Some(action), _, _) => steps.push(ScriptStep { t: record.t, peer, action, seen: Vec::new() }),
            (None, Some(what), Some(step)) => step.seen.push(Seen { t: record.t, peer, what }),
            (None, _, _) => {}
        }
    }
    steps
}
