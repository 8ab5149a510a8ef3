//! A scenario as steps: each is one action of a client, with all events that clients observed before the next.

use super::transcript::{Connect, Event, Op, Payload, Scenario, full_path, to_hex};

/// An action of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Opens a connection; the path is not abbreviated.
    Connect(Connect),
    /// Sends a frame.
    Send(Payload),
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

impl Action {
    /// Returns true if the action ends a connection.
    pub fn ends(&self) -> bool {
        matches!(self, Action::Close { .. } | Action::Drop)
    }
}

/// An event that a client observed.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// The connection is open.
    Open,
    /// A frame arrived.
    Frame(Payload),
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
pub struct Step {
    /// Time of the action, in milliseconds since the scenario began.
    pub t: u64,
    /// The client that acted.
    pub peer: String,
    /// The action.
    pub action: Action,
    /// The events of all clients between this action and the next.
    pub seen: Vec<Seen>,
}

impl Step {
    /// Returns the number of events of `peer` in this step.
    pub fn count(&self, peer: &str) -> usize {
        self.seen.iter().filter(|s| s.peer == peer).count()
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peer = &self.peer;
        match &self.action {
            Action::Connect(to) => write!(f, "{peer} connects to {}", shortened(&to.path)),
            Action::Send(p) => match (&p.msg, std::str::from_utf8(&p.bytes)) {
                (Some(msg), _) => write!(f, "{peer} sends {msg}"),
                (None, Ok(text)) if p.op == Op::Text => write!(f, "{peer} sends text {}", shortened(text)),
                _ => write!(f, "{peer} sends {} {}", p.op.name(), shortened(&to_hex(&p.bytes))),
            },
            Action::Close { code, reason } => match code {
                Some(code) => write!(f, "{peer} closes with {code} {reason:?}"),
                None => write!(f, "{peer} closes without a code"),
            },
            Action::Drop => write!(f, "{peer} drops its TCP connection"),
        }
    }
}

/// Returns the steps of a scenario, without lines that belong to no client (notes, the state of the server).
pub fn steps(scenario: &Scenario) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for record in &scenario.records {
        let Some(peer) = record.peer.clone() else { continue };
        let action = match &record.event {
            Event::Connect(to) => Some(Action::Connect(Connect { path: full_path(&to.path), ..to.clone() })),
            Event::Send(payload) => Some(Action::Send(payload.clone())),
            Event::SendClose { code, reason } => Some(Action::Close { code: *code, reason: reason.clone() }),
            Event::TcpDestroy => Some(Action::Drop),
            _ => None,
        };
        let what = match &record.event {
            Event::Open => Some(Observed::Open),
            Event::Recv(payload) => Some(Observed::Frame(payload.clone())),
            Event::RecvClose { code, reason } => {
                Some(Observed::Close { code: *code, reason: reason.clone() })
            }
            _ => None,
        };
        match (action, what, steps.last_mut()) {
            (Some(action), _, _) => steps.push(Step { t: record.t, peer, action, seen: Vec::new() }),
            (None, Some(what), Some(step)) => step.seen.push(Seen { t: record.t, peer, what }),
            (None, _, _) => {}
        }
    }
    steps
}
