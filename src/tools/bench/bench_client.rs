//! A client of any protocol on a load generator's connection.

use std::collections::VecDeque;
use std::time::Duration;

use super::error::Error;
use super::frame::{
    BINARY, CLOSE, Frame, PING, PONG, TEXT, close_code_and_reason, put, put_close, put_message,
};
use super::with_timeout;
use super::ws_connection::WsConnection;
use crate::tools::client::dialects::{
    ClientAction, ClientEvent, JoinerId, Role, SyntheticClient, new_client, request_path,
};
use crate::tools::client::message::TestMessage;
use crate::tools::client::peer;
use crate::tools::client::protocol::Protocol;
use crate::tools::dial::Target;

/// Timeout of set-up and leaving. Above the time that a gateway may hold messages for a silent member.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to wait for the server's final message after a failed write.
const CLOSE_REASON_TIMEOUT: Duration = Duration::from_millis(500);

/// A client on a connection.
pub(crate) struct BenchClient {
    connection: WsConnection,
    /// Protocol of the client.
    pub(crate) protocol: Protocol,
    role: Role,
    state: ClientState,
}

/// Protocol state, apart from the connection.
struct ClientState {
    client: Box<dyn SyntheticClient>,
    events: VecDeque<ClientEvent>,
    /// Bytes to write in reply to received frames.
    replies: Vec<u8>,
    /// First byte and length of the last decoded content. Contents of a measurement are alike, and
    /// heartbeats differ in length, so later contents need no decoding.
    content: Option<(u8, usize)>,
    /// True if contents are counted without decoding.
    counts: bool,
    broken: Option<Error>,
}

impl BenchClient {
    /// Connects, without sending a message.
    pub(crate) async fn open(
        target: &Target,
        protocol: Protocol,
        role: Role,
        key: &str,
    ) -> Result<BenchClient, Error> {
        let connection = WsConnection::open(target, &request_path(protocol, role, key)).await?;
        let state = ClientState {
            client: new_client(protocol, role, key),
            events: VecDeque::new(),
            replies: Vec::new(),
            content: None,
            counts: false,
            broken: None,
        };
        Ok(BenchClient { connection, protocol, role, state })
    }

    /// Sends the client's first message, and waits until it is member or joiner.
    pub(crate) async fn begin(&mut self, first: Option<&TestMessage>) -> Result<(), Error> {
        let actions = self.state.client.on_open(first);
        self.state.execute(actions);
        let capabilities = self.protocol.capabilities();
        let answered = match self.role {
            Role::Member => capabilities.confirms_member,
            Role::Joiner => capabilities.confirms_joiner,
        };
        if !answered {
            // A pong arrives after the answers to everything sent before the ping.
            put(&mut self.state.replies, PING, &[]);
        }
        self.reply().await?;
        let (role, is_pipe) = (self.role, self.protocol == Protocol::Signaller);
        self.until("answer to the first message", |events| match (events, role) {
            (ClientEvent::Synced, _) if !answered => Some(Ok(())),
            (ClientEvent::LinkedToMember, _) if is_pipe => Some(Ok(())),
            (ClientEvent::BecameMember, Role::Member) | (ClientEvent::LinkedToMember, Role::Joiner) => {
                Some(Ok(()))
            }
            (ClientEvent::BecameMember, Role::Joiner) => {
                Some(Err(Error::Refused("admitted as first member instead of joiner".to_owned())))
            }
            (ClientEvent::LinkedToMember, Role::Member) => {
                Some(Err(Error::Refused("linked to a member instead of admitted".to_owned())))
            }
            _ => None,
        })
        .await
    }

    /// Waits for an event for which `found` returns a value.
    pub(crate) async fn until<T>(
        &mut self,
        what: &'static str,
        mut found: impl FnMut(ClientEvent) -> Option<Result<T, Error>>,
    ) -> Result<T, Error> {
        with_timeout(RESPONSE_TIMEOUT, what, async {
            loop {
                while let Some(events) = self.state.events.pop_front() {
                    if let ClientEvent::Rejected(reason) = events {
                        return Err(Error::Refused(format!("refused: {reason}")));
                    }
                    if let Some(found) = found(events) {
                        return found;
                    }
                }
                self.read().await?;
                self.reply().await?;
            }
        })
        .await
    }

    /// Waits for a message from another client, and returns the sender's id.
    pub(crate) async fn message(&mut self, what: &'static str) -> Result<Option<JoinerId>, Error> {
        self.until(what, |events| match events {
            ClientEvent::Message { from, .. } => Some(Ok(from)),
            ClientEvent::PeerLeft { .. } => {
                Some(Err(Error::Closed("the other peer disconnected".to_owned())))
            }
            _ => None,
        })
        .await
    }

    /// Returns the frame that carries `message`.
    pub(crate) fn frame(&mut self, to: Option<&JoinerId>, message: &TestMessage) -> Result<Vec<u8>, Error> {
        let message = self.state.client.encode(to, message);
        let message =
            message.ok_or(Error::Unsupported { protocol: self.protocol, why: "it has no such message" })?;
        let mut frame = Vec::new();
        put_message(&mut frame, &message);
        Ok(frame)
    }

    /// Writes `bytes`.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.connection.write(bytes).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.close_reason(error).await),
        }
    }

    /// Writes `bytes`, reading while the server does not take them, and returns the number of contents
    /// received. Other replies are left to [`settle`](Self::settle).
    pub(crate) async fn write_while_reading(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let state = &mut self.state;
        let mut contents = 0;
        let passed =
            self.connection.write_while_reading(bytes, |frame| contents += state.receive(frame)).await;
        match (self.state.broken.take(), passed) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(contents),
            (None, Err(error)) => Err(self.close_reason(error).await),
        }
    }

    /// Returns the reason for a failed write: the server's close frame if one arrives, else `error`.
    #[cold]
    async fn close_reason(&mut self, error: Error) -> Error {
        let (connection, state) = (&mut self.connection, &mut self.state);
        let reading = async {
            let mut contents = 0;
            while state.broken.is_none()
                && connection.read(|frame| contents += state.receive(frame)).await.is_ok()
            {}
        };
        // An error here is stored in `state.broken` already.
        let _ = tokio::time::timeout(CLOSE_REASON_TIMEOUT, reading).await;
        self.state.broken.take().unwrap_or(error)
    }

    /// Counts contents like the last one without decoding them, from now on.
    pub(crate) fn count(&mut self) {
        self.state.counts = true;
    }

    /// Reads once, and returns the number of contents. Replies are left to [`reply`](Self::reply), which
    /// makes this cancel safe.
    pub(crate) async fn read(&mut self) -> Result<usize, Error> {
        let state = &mut self.state;
        let mut contents = 0;
        self.connection.read(|frame| contents += state.receive(frame)).await?;
        match self.state.broken.take() {
            None => Ok(contents),
            Some(error) => Err(error),
        }
    }

    /// Writes pending replies.
    pub(crate) async fn reply(&mut self) -> Result<(), Error> {
        if !self.state.replies.is_empty() {
            let replies = std::mem::take(&mut self.state.replies);
            self.write(&replies).await?;
        }
        Ok(())
    }

    /// Reads once, writes replies, and returns the number of contents.
    pub(crate) async fn receive(&mut self) -> Result<usize, Error> {
        let contents = self.read().await?;
        self.settle().await?;
        Ok(contents)
    }

    /// Writes pending replies, and discards pending events.
    pub(crate) async fn settle(&mut self) -> Result<(), Error> {
        self.state.events.clear();
        self.reply().await
    }

    /// Leaves the way clients of the protocol do, and waits until the server has closed the connection.
    pub(crate) async fn leave(mut self) -> Result<(), Error> {
        let mut close = Vec::new();
        put_close(&mut close, self.protocol.capabilities().close_code);
        // A connection that is closed already needs no close frame.
        if self.connection.write(&close).await.is_err() {
            return Ok(());
        }
        with_timeout(RESPONSE_TIMEOUT, "close of the connection", async {
            self.connection.drain().await;
            Ok(())
        })
        .await
    }
}

impl ClientState {
    /// Handles a frame; returns 1 if it is a content.
    fn receive(&mut self, frame: Frame<'_>) -> usize {
        match self.content {
            Some((first, length)) if self.counts && frame.first == first && frame.payload.len() == length => {
                1
            }
            _ => self.decode_frame(frame),
        }
    }

    /// Decodes a frame; returns 1 if it is a content.
    #[cold]
    fn decode_frame(&mut self, frame: Frame<'_>) -> usize {
        let before = self.events.len();
        match frame.first {
            TEXT => match std::str::from_utf8(frame.payload) {
                Ok(text) => {
                    let actions = self.client.on_text(text);
                    self.execute(actions);
                }
                Err(_) => self.broken = Some(Error::Closed("received invalid UTF-8".to_owned())),
            },
            BINARY => {
                let actions = self.client.on_binary(frame.payload);
                self.execute(actions);
            }
            PING => put(&mut self.replies, PONG, frame.payload),
            PONG => self.events.push_back(ClientEvent::Synced),
            CLOSE => {
                let (code, reason) = close_code_and_reason(frame.payload);
                self.broken = Some(Error::Closed(peer::close_text(code, &reason)));
            }
            // No sigver server fragments messages.
            _ => self.broken = Some(Error::Closed("received a fragmented message".to_owned())),
        }
        let messages =
            self.events.iter().skip(before).filter(|events| matches!(events, ClientEvent::Message { .. }));
        match messages.count() {
            0 => 0,
            _ => {
                self.content = Some((frame.first, frame.payload.len()));
                1
            }
        }
    }

    fn execute(&mut self, actions: Vec<ClientAction>) {
        for action in actions {
            match action {
                ClientAction::Send(message) => put_message(&mut self.replies, &message),
                // Real clients use a timer of their own; the server's heartbeat serves thousands of
                // clients.
                ClientAction::Report(ClientEvent::HeartbeatRequest) => {
                    if let Some(message) = self.client.heartbeat() {
                        put_message(&mut self.replies, &message);
                    }
                }
                ClientAction::Report(events) => self.events.push_back(events),
                ClientAction::Close(_) => {
                    let why = match self.events.back() {
                        Some(ClientEvent::Unexpected(what)) => {
                            format!("the client would close: {what}")
                        }
                        _ => "the client would close".to_owned(),
                    };
                    self.broken = Some(Error::Closed(why));
                }
            }
        }
    }
}
