//! Results of handling one input of a connection: what its caller has to do, in the order in which it is put
//! into a sink.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;
use strum::{IntoStaticStr, VariantArray};

use super::{Dialect, ReleaseSet};
use crate::protocol::frame::{Close, Message, Outgoing};
use crate::protocol::model::{Command, LinkId, RoomKey};

/// One thing that the caller has to do for a connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Send a message or a close frame to the client; a close frame is the last.
    Send(Outgoing),
    /// Send a WebSocket ping, and report its pong.
    Ping,
    /// Take the command to the room with this key.
    Enter(RoomKey, Command),
    /// Take the command to the room in which the peer is. Nothing, if it is in none.
    Ask(Command),
    /// Leave all rooms.
    Leave,
    /// Note in logs and counters which releases are left, and by which evidence.
    Recognised(ReleaseSet, Evidence),
    /// Note in logs and counters that this link connects the client with one of this dialect, and that the
    /// peer-to-peer layers of the two do not understand one another. Once per connection at most.
    Mixed(LinkId, Dialect),
}

impl Output {
    /// Returns the code of the close frame, if it is one with a code.
    pub(crate) fn close_code(&self) -> Option<u16> {
        match self {
            Output::Send(Outgoing::Close(close)) => close.code,
            Output::Send(Outgoing::Message(_) | Outgoing::Prefixed(..))
            | Output::Ping
            | Output::Enter(..)
            | Output::Ask(_)
            | Output::Leave
            | Output::Recognised(..)
            | Output::Mixed(..) => None,
        }
    }
}

/// Evidence by which the releases of a client were determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum Evidence {
    /// The configuration: no other release is served.
    #[strum(serialize = "pinned")]
    Pinned,
    /// The client's first message.
    #[strum(serialize = "first frame")]
    FirstFrame,
    /// No message until the timeout: the client waits for the server's first.
    #[strum(serialize = "silence")]
    Silence,
    /// A message after the first, or the first one from a client that the server had to speak to before.
    #[strum(serialize = "later frame")]
    LaterFrame,
    /// A first message that refutes an earlier conclusion from silence.
    #[strum(serialize = "corrected")]
    Corrected,
}

impl Evidence {
    /// Returns the name used in logs and in the status.
    pub(crate) fn name(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A receiver of outputs: a list, or a filter in front of one.
pub trait OutputSink {
    /// Takes the next output.
    fn put(&mut self, output: Output);
}

impl OutputSink for Vec<Output> {
    fn put(&mut self, output: Output) {
        self.push(output);
    }
}

impl<const N: usize> OutputSink for SmallVec<[Output; N]>
where
    [Output; N]: smallvec::Array<Item = Output>,
{
    fn put(&mut self, output: Output) {
        self.push(output);
    }
}

impl dyn OutputSink + '_ {
    /// Puts a message or close frame for the client.
    pub(crate) fn send(&mut self, outgoing: impl Into<Outgoing>) {
        self.put(Output::Send(outgoing.into()));
    }

    /// Puts a text message for the client.
    pub(crate) fn text(&mut self, text: impl Into<ByteString>) {
        self.send(Message::Text(text.into()));
    }

    /// Puts a text message for the client, which need not be copied.
    pub(crate) fn static_text(&mut self, text: &'static str) {
        self.text(ByteString::from_static(text));
    }

    /// Puts a binary message for the client.
    pub(crate) fn binary(&mut self, bytes: Bytes) {
        self.send(Message::Binary(bytes));
    }

    /// Puts a close frame for the client.
    pub(crate) fn close(&mut self, close: Close) {
        self.send(close);
    }

    /// Puts a command for the room with this key.
    pub(crate) fn enter(&mut self, key: RoomKey, command: Command) {
        self.put(Output::Enter(key, command));
    }

    /// Puts a command for the room in which the peer is.
    pub(crate) fn ask(&mut self, command: Command) {
        self.put(Output::Ask(command));
    }
}
