//! The rules of one pipe, from the time a listener waits: the messages it forwards, and the events that close
//! it. Pure: messages and times in, frames for either side out.

use std::time::{Duration, Instant};

use super::PipeLimits;
use crate::protocol::frame::{Close, Message, Outgoing};

/// A side of the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PipeSide {
    /// The client that listened.
    Listener,
    /// The client that connected to the listener.
    Connector,
}

impl PipeSide {
    /// Returns the other side.
    pub(crate) const fn opposite(self) -> Self {
        match self {
            PipeSide::Listener => PipeSide::Connector,
            PipeSide::Connector => PipeSide::Listener,
        }
    }
}

/// The way in which the connection of a side ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Disconnect {
    /// A close frame arrived, with this code if it had one. The WebSocket answers it with the same code and
    /// reason.
    Closed(Option<u16>),
    /// The connection was lost without a close frame.
    Lost,
    /// A message longer than allowed arrived.
    MessageTooBig,
    /// The side violated the WebSocket protocol, with the close frame to be sent.
    ProtocolError(Close),
}

/// A frame for one side. A close frame is the last one for it.
pub(crate) type PipeAction = (PipeSide, Outgoing);

/// Maximum number of bytes kept for a connector. With the default limits (8 messages of 1024 bytes) it is
/// never reached. Beyond it the listener is not read until a connector arrives, and only then its end is
/// noticed.
const MAX_BUFFERED: usize = 64 * 1024;
/// Bytes counted for each kept message in addition to its length.
const MESSAGE_OVERHEAD: usize = 64;

/// The longest duration until a deadline. Longer ones may not be representable.
const MAX_DURATION: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

#[derive(Debug)]
enum PipeState {
    /// There is no connector yet. Messages of the listener are kept.
    Waiting { buffered: Vec<Message>, size: usize },
    /// Both sides are connected.
    Open,
    /// Both sides were closed, for this cause.
    Closed(&'static str),
}

/// One pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    state: PipeState,
    deadline: Instant,
    pipe_deadline: Duration,
    max_messages: u32,
    from_listener: u32,
    from_connector: u32,
}

impl Pipe {
    /// Creates a pipe whose listener waits for a connector.
    pub(crate) fn listen(limits: &PipeLimits, now: Instant) -> Self {
        Pipe {
            state: PipeState::Waiting { buffered: Vec::new(), size: 0 },
            deadline: deadline_after(now, limits.listen_deadline),
            pipe_deadline: limits.pipe_deadline,
            // The last message is delivered, so that there is at least one.
            max_messages: limits.max_messages.max(1),
            from_listener: 0,
            from_connector: 0,
        }
    }

    /// Connects the connector, which receives the messages that the listener has sent.
    pub(crate) fn on_connect(&mut self, now: Instant, actions: &mut Vec<PipeAction>) {
        let PipeState::Waiting { buffered, .. } = &mut self.state else {
            return;
        };
        actions.extend(buffered.drain(..).map(|message| (PipeSide::Connector, message.into())));
        self.state = PipeState::Open;
        self.deadline = deadline_after(now, self.pipe_deadline);
        if self.limit_reached(PipeSide::Listener) {
            self.close(TOO_MANY_MESSAGES, actions);
        }
    }

    /// Handles a message of a side.
    pub(crate) fn on_message(&mut self, from: PipeSide, message: Message, actions: &mut Vec<PipeAction>) {
        if self.is_closed() {
            return;
        }
        let exceeded = self.limit_reached(from);
        let count = match from {
            PipeSide::Listener => &mut self.from_listener,
            PipeSide::Connector => &mut self.from_connector,
        };
        *count = count.saturating_add(1);
        match &mut self.state {
            PipeState::Waiting { buffered, size } => {
                // The last message that is allowed closes the pipe when it is delivered, as in signallerd.
                // One more could never be delivered: signallerd left it unread, this server closes the
                // listener.
                if exceeded {
                    self.close(TOO_MANY_MESSAGES, actions);
                } else {
                    *size = size.saturating_add(MESSAGE_OVERHEAD).saturating_add(message.len());
                    buffered.push(message);
                }
            }
            PipeState::Open => {
                actions.push((from.opposite(), message.into()));
                if self.limit_reached(from) {
                    self.close(TOO_MANY_MESSAGES, actions);
                }
            }
            PipeState::Closed(_) => {}
        }
    }

    /// Handles the end of a side's connection.
    pub(crate) fn on_disconnect(
        &mut self,
        side: PipeSide,
        disconnect: Disconnect,
        actions: &mut Vec<PipeAction>,
    ) {
        if self.is_closed() {
            return;
        }
        let other = match &disconnect {
            Disconnect::Closed(Some(1000)) => Close::new(1000, "Normal Closure"),
            Disconnect::Closed(_)
            | Disconnect::Lost
            | Disconnect::MessageTooBig
            | Disconnect::ProtocolError(_) => INTERNAL_ERROR,
        };
        // A waiting listener has no other side. A connector can be lost before it is connected, though.
        let alone = matches!(self.state, PipeState::Waiting { .. }) && side == PipeSide::Listener;
        self.state = PipeState::Closed(match &disconnect {
            Disconnect::Closed(_) => "close frame",
            Disconnect::Lost => "disconnected",
            Disconnect::MessageTooBig => "message too big",
            Disconnect::ProtocolError(_) => "protocol error",
        });
        match disconnect {
            Disconnect::Closed(_) | Disconnect::Lost => {}
            Disconnect::MessageTooBig => actions.push((side, Outgoing::Close(Close::new(1009, "")))),
            Disconnect::ProtocolError(close) => actions.push((side, Outgoing::Close(close))),
        }
        if !alone {
            actions.push((side.opposite(), Outgoing::Close(other)));
        }
    }

    /// Closes the pipe if its deadline has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant, actions: &mut Vec<PipeAction>) {
        if now < self.deadline {
            return;
        }
        match self.state {
            PipeState::Waiting { .. } => self.close((4000, "Listen Timeout", "listen timeout"), actions),
            PipeState::Open => self.close((4001, "Pipe Timeout", "pipe timeout"), actions),
            PipeState::Closed(_) => {}
        }
    }

    /// Closes the pipe as the server shuts down.
    pub(crate) fn on_shutdown(&mut self, actions: &mut Vec<PipeAction>) {
        self.close((1001, "the server is shutting down", "shutdown"), actions);
    }

    /// Closes the pipe as the token of its listener has expired.
    pub(crate) fn on_expiry(&mut self, actions: &mut Vec<PipeAction>) {
        self.close((1008, "the token has expired", "token expired"), actions);
    }

    /// Closes the pipe as the server has no memory for it.
    pub(crate) fn on_overload(&mut self, actions: &mut Vec<PipeAction>) {
        self.close(
            (1013, "the server holds too much for its clients, try again later", "memory limit"),
            actions,
        );
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns true if the pipe is closed: no more frames are sent.
    pub(crate) fn is_closed(&self) -> bool {
        self.close_cause().is_some()
    }

    /// Returns the cause for which the pipe is closed, for logs; `None` if it is not closed.
    pub(crate) fn close_cause(&self) -> Option<&'static str> {
        match self.state {
            PipeState::Closed(cause) => Some(cause),
            PipeState::Waiting { .. } | PipeState::Open => None,
        }
    }

    /// Returns the length of the messages that wait for a connector, in bytes.
    pub(crate) fn buffered_bytes(&self) -> usize {
        match &self.state {
            PipeState::Waiting { size, .. } => *size,
            PipeState::Open | PipeState::Closed(_) => 0,
        }
    }

    /// Returns true if a side should be read: there is room for its messages.
    pub(crate) fn can_read(&self, from: PipeSide) -> bool {
        match &self.state {
            PipeState::Waiting { size, .. } => from == PipeSide::Listener && *size < MAX_BUFFERED,
            PipeState::Open => true,
            PipeState::Closed(_) => false,
        }
    }

    fn limit_reached(&self, from: PipeSide) -> bool {
        let count = match from {
            PipeSide::Listener => self.from_listener,
            PipeSide::Connector => self.from_connector,
        };
        count >= self.max_messages
    }

    /// Closes all connected sides with the same close frame.
    fn close(&mut self, (code, reason, cause): CloseRule, actions: &mut Vec<PipeAction>) {
        if self.is_closed() {
            return;
        }
        let open = matches!(self.state, PipeState::Open);
        self.state = PipeState::Closed(cause);
        let close = || Outgoing::Close(Close::new(code, reason));
        actions.push((PipeSide::Listener, close()));
        if open {
            actions.push((PipeSide::Connector, close()));
        }
    }
}

/// The close code and reason that are sent, and the cause that is logged.
type CloseRule = (u16, &'static str, &'static str);

const TOO_MANY_MESSAGES: CloseRule = (4002, "Too Many Messages", "too many messages");

/// The close frame for a side whose other side was lost.
pub(crate) const INTERNAL_ERROR: Close =
    Close { code: Some(1011), reason: std::borrow::Cow::Borrowed("Internal Error") };

fn deadline_after(now: Instant, duration: Duration) -> Instant {
    now.checked_add(duration).or_else(|| now.checked_add(MAX_DURATION)).unwrap_or(now)
}

#[cfg(test)]
mod tests;
