//! A synthetic client on a WebSocket: a task that passes received frames to the client's state machine,
//! writes what that sends, and sends its heartbeats.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::dialects::{
    ClientAction, ClientEvent, ClientFrame, JoinerId, Role, SyntheticClient, new_client, request_path,
};
use super::message::{Delivery, TestMessage};
use super::protocol::Protocol;
use crate::tools::dial::{ConnectError, DialedSocket, Target};

/// Interval of the heartbeats of clients that send them.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// A connected client.
pub struct SyntheticPeer {
    /// The client's protocol.
    pub protocol: Protocol,
    /// Events so far, in order.
    pub log: Vec<ClientEvent>,
    /// Time of the connection.
    pub connected_at: Instant,
    client: Arc<Mutex<Box<dyn SyntheticClient>>>,
    commands: mpsc::UnboundedSender<ConnectionCommand>,
    events: mpsc::UnboundedReceiver<ClientEvent>,
}

enum ConnectionCommand {
    Send(ClientFrame),
    /// Find out whether the server has read everything.
    Sync,
    Close(Option<u16>),
}

impl SyntheticPeer {
    /// Connects, and sends what a client of this protocol and role sends first. `first` is the message that a
    /// joiner sends with its request to join, if its protocol has that.
    pub async fn connect(
        target: &Target,
        protocol: Protocol,
        role: Role,
        key: &str,
        first: Option<&TestMessage>,
    ) -> Result<SyntheticPeer, ConnectError> {
        let (socket, _) = target.open(&request_path(protocol, role, key)).await?;
        let mut client = new_client(protocol, role, key);
        let actions = client.on_open(first);
        let client = Arc::new(Mutex::new(client));
        let (commands, command_receiver) = mpsc::unbounded_channel();
        let (event_sender, events) = mpsc::unbounded_channel();
        tokio::spawn(run(socket, Arc::clone(&client), actions, command_receiver, event_sender));
        Ok(SyntheticPeer {
            protocol,
            log: Vec::new(),
            connected_at: Instant::now(),
            client,
            commands,
            events,
        })
    }

    /// Sends a message, a member's to the joiner `to`. Returns false if the protocol cannot express it.
    pub fn send(&self, to: Option<&JoinerId>, message: &TestMessage) -> bool {
        let frame = self.client.lock().encode(to, message);
        self.send_frame(frame)
    }

    /// Sends that nothing more follows. Returns false if the protocol cannot express it.
    pub fn send_end(&self, to: Option<&JoinerId>) -> bool {
        let frame = self.client.lock().encode_end(to);
        self.send_frame(frame)
    }

    fn send_frame(&self, frame: Option<ClientFrame>) -> bool {
        let is_sent = frame.is_some();
        if let Some(frame) = frame {
            // If the task has ended, the log has the reason.
            let _ = self.commands.send(ConnectionCommand::Send(frame));
        }
        is_sent
    }

    /// Returns the first result of `find` in the log; waits for it up to `limit`.
    pub async fn wait_for<T>(
        &mut self,
        limit: Duration,
        mut find: impl FnMut(&ClientEvent) -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = self.log.iter().find_map(&mut find) {
            return Some(found);
        }
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = timeout(left, self.events.recv()).await.ok().flatten()?;
            self.log.push(event);
            if let Some(found) = self.log.last().and_then(&mut find) {
                return Some(found);
            }
        }
    }

    /// Returns the sender and the delivery of a message; waits for it up to `limit`.
    pub(crate) async fn receive(
        &mut self,
        message: &TestMessage,
        limit: Duration,
    ) -> Option<(Option<JoinerId>, Delivery)> {
        self.wait_for(limit, |event| match event {
            ClientEvent::Message { from, message: received } => {
                Some((from.clone(), message.compare(received)?))
            }
            _ => None,
        })
        .await
    }

    /// Waits until the server has read all that was sent, up to `limit`. Returns true if it has.
    pub async fn sync(&mut self, limit: Duration) -> bool {
        self.log.retain(|event| *event != ClientEvent::Synced);
        let _ = self.commands.send(ConnectionCommand::Sync);
        let done = |event: &ClientEvent| {
            matches!(event, ClientEvent::Synced | ClientEvent::Closed(..)).then(|| event.clone())
        };
        self.wait_for(limit, done).await == Some(ClientEvent::Synced)
    }

    /// Moves the events that have arrived into the log, without waiting.
    pub(crate) fn drain_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.log.push(event);
        }
    }

    /// Returns how the connection was closed, if the log has that.
    pub(crate) fn close_text(&self) -> Option<String> {
        self.log.iter().find_map(|event| match event {
            ClientEvent::Closed(code, reason) => Some(close_text(*code, reason)),
            _ => None,
        })
    }

    /// Closes as clients of the protocol do, and waits for the server's close frame up to `limit`.
    pub async fn leave(&mut self, limit: Duration) {
        let _ = self.commands.send(ConnectionCommand::Close(self.protocol.capabilities().close_code));
        let closed = |event: &ClientEvent| matches!(event, ClientEvent::Closed(..)).then_some(());
        self.wait_for(limit, closed).await;
    }
}

/// Returns a text for a close code and reason.
pub(crate) fn close_text(code: Option<u16>, reason: &str) -> String {
    match (code, reason) {
        (None, _) => "closed without a code".to_owned(),
        (Some(code), "") => format!("closed with {code}"),
        (Some(code), reason) => format!("closed with {code} {reason}"),
    }
}

/// Runs a client until its connection or its handle ends.
async fn run(
    mut socket: DialedSocket,
    client: Arc<Mutex<Box<dyn SyntheticClient>>>,
    actions: Vec<ClientAction>,
    mut commands: mpsc::UnboundedReceiver<ConnectionCommand>,
    events: mpsc::UnboundedSender<ClientEvent>,
) {
    let mut actions = Some(actions);
    let mut heartbeats = interval(HEARTBEAT_INTERVAL);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeats.reset();
    let mut end = (Some(1006), String::new());
    // Failed writes are ignored: the next read reports the end of the connection.
    loop {
        for action in actions.take().into_iter().flatten() {
            match action {
                ClientAction::Send(frame) => drop(socket.send(to_message(frame)).await),
                ClientAction::Close(code) => drop(socket.close(code.map(close_frame)).await),
                ClientAction::Report(event) => drop(events.send(event)),
            }
        }
        tokio::select! {
            received = socket.next() => match received {
                Some(Ok(Message::Text(text))) => actions = Some(client.lock().on_text(&text)),
                Some(Ok(Message::Binary(bytes))) => actions = Some(client.lock().on_binary(&bytes)),
                Some(Ok(Message::Pong(_))) => drop(events.send(ClientEvent::Synced)),
                Some(Ok(Message::Close(frame))) => {
                    end = frame.map_or((None, String::new()), |frame| {
                        (Some(frame.code.into()), frame.reason.as_str().to_owned())
                    });
                }
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => {}
                Some(Err(_)) | None => break,
            },
            command = commands.recv() => match command {
                Some(ConnectionCommand::Send(frame)) => drop(socket.send(to_message(frame)).await),
                Some(ConnectionCommand::Sync) => drop(socket.send(Message::Ping(Bytes::new())).await),
                Some(ConnectionCommand::Close(code)) => drop(socket.close(code.map(close_frame)).await),
                // The handle was dropped.
                None => {
                    let _ = socket.close(None).await;
                    break;
                }
            },
            _ = heartbeats.tick() => {
                let heartbeat = client.lock().heartbeat();
                if let Some(frame) = heartbeat {
                    let _ = socket.send(to_message(frame)).await;
                }
            }
        }
    }
    let _ = events.send(ClientEvent::Closed(end.0, end.1));
}

fn to_message(frame: ClientFrame) -> Message {
    match frame {
        ClientFrame::Text(text) => Message::text(text),
        ClientFrame::Binary(bytes) => Message::binary(bytes),
    }
}

fn close_frame(code: u16) -> CloseFrame {
    CloseFrame { code: code.into(), reason: "".into() }
}
