//! A client on the simulated network: the synthetic client of a dialect on a WebSocket or an event stream, in
//! a task of its own.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sigver::protocol::dialect::Dialect;
use sigver::tools::client::dialects::{
    ClientAction, ClientEvent, ClientFrame, JoinerId, Role, SyntheticClient, new_client, request_path,
};
use sigver::tools::client::message::TestMessage;
use sigver::tools::client::protocol::{Protocol, ProtocolCapabilities};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::common::ws::{BINARY, Got, TEXT, Ws, frame, request};
use crate::events::EventStream;
use crate::network::{SimStream, Wire};
use crate::trace::Trace;
use crate::world::World;

/// Interval of the heartbeats of clients that send them.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Time limit of an event that must happen: a gateway may hold messages for a silent member for some seconds.
pub const EVENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected client.
pub struct Peer {
    pub name: String,
    pub dialect: Dialect,
    pub wire: Wire,
    /// Events so far, in order.
    pub log: Vec<ClientEvent>,
    client: Arc<Mutex<Box<dyn SyntheticClient>>>,
    commands: mpsc::UnboundedSender<PeerCommand>,
    events: mpsc::UnboundedReceiver<ClientEvent>,
}

enum PeerCommand {
    Send(ClientFrame),
    Sync,
    Close(Option<u16>),
}

/// A client to connect.
pub struct NewPeer<'a> {
    pub name: String,
    pub dialect: Dialect,
    pub role: Role,
    pub key: &'a str,
    /// The message that a joiner sends with its request to join, if its dialect has that.
    pub first: Option<&'a TestMessage>,
    pub by_events: bool,
}

impl Peer {
    /// Connects a client, which sends what one of its dialect and role sends first.
    pub async fn connect(world: &Arc<World>, new: NewPeer<'_>) -> Result<Peer, String> {
        let NewPeer { name, dialect, role, key, first, by_events } = new;
        let link = world.random_link();
        let connected = world.connect(&name, link).await;
        let (stream, wire) = connected.ok_or_else(|| format!("{name} is not connected"))?;
        let path = request_path(Protocol::Sigver(dialect), role, key);
        let opened = async {
            match by_events {
                true => EventStream::open(world, &name, link, stream).await.map(Carrier::Events),
                false => open_websocket(stream, &path).await.map(Carrier::WebSocket),
            }
        };
        let opened = tokio::time::timeout(EVENT_TIMEOUT, opened).await;
        let carrier = match opened {
            Ok(Ok(carrier)) => carrier,
            Ok(Err(error)) => return Err(format!("{name}: {error}")),
            Err(_) => return Err(format!("{name}: no answer to the request")),
        };
        world.trace.note(&name, format_args!("{dialect} {role:?} {link:?}"));
        let mut client = new_client(Protocol::Sigver(dialect), role, key);
        let actions = client.on_open(first);
        let client = Arc::new(Mutex::new(client));
        let (commands, command_receiver) = mpsc::unbounded_channel();
        let (event_sender, events) = mpsc::unbounded_channel();
        let run = PeerTask {
            name: name.clone(),
            trace: world.trace.clone(),
            carrier,
            client: Arc::clone(&client),
            events: event_sender,
        };
        tokio::spawn(run.run(actions, command_receiver));
        Ok(Peer { name, dialect, wire, log: Vec::new(), client, commands, events })
    }

    pub fn capabilities(&self) -> ProtocolCapabilities {
        Protocol::Sigver(self.dialect).capabilities()
    }

    /// Sends a message, a member's to the joiner `to`. Returns false if the dialect cannot express it.
    pub fn send(&self, to: Option<&JoinerId>, message: &TestMessage) -> bool {
        let frame = self.client.lock().encode(to, message);
        let is_sent = frame.is_some();
        if let Some(frame) = frame {
            let _ = self.commands.send(PeerCommand::Send(frame));
        }
        is_sent
    }

    /// Sends a frame that the client itself would not send.
    pub fn send_frame(&self, frame: ClientFrame) {
        let _ = self.commands.send(PeerCommand::Send(frame));
    }

    /// Returns the next event; waits for it up to `limit`.
    pub async fn next(&mut self, limit: Duration) -> Result<ClientEvent, String> {
        let deadline = Instant::now() + limit;
        match timeout_at(deadline, self.events.recv()).await {
            Ok(Some(event)) => {
                self.log.push(event.clone());
                Ok(event)
            }
            Ok(None) => Err(format!("{} has ended", self.name)),
            Err(_) => Err(format!("{} waited in vain", self.name)),
        }
    }

    /// Waits for an event that matches; an end of the connection is an error.
    pub async fn wait_for(
        &mut self,
        what: &str,
        mut matches: impl FnMut(&ClientEvent) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + EVENT_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left).await.map_err(|error| format!("{error} for {what}"))? {
                event if matches(&event) => return Ok(()),
                event @ (ClientEvent::Closed(..) | ClientEvent::Unexpected(_) | ClientEvent::Rejected(_)) => {
                    return Err(format!("{}: {event:?} instead of {what}", self.name));
                }
                _ => {}
            }
        }
    }

    /// Waits until the client is what it asked for.
    pub async fn wait_for_role(&mut self, expected: &ClientEvent, confirmed: bool) -> Result<(), String> {
        if !confirmed {
            return self.sync().await;
        }
        let mut other = None;
        let role = |event: &ClientEvent| {
            let is_role = matches!(event, ClientEvent::BecameMember | ClientEvent::LinkedToMember);
            if is_role && event != expected {
                other = Some(event.clone());
            }
            is_role
        };
        self.wait_for("its role", role).await?;
        match other {
            Some(event) => Err(format!("{} receives {event:?} instead of {expected:?}", self.name)),
            None => Ok(()),
        }
    }

    /// Waits until the gateway has read all that the client sent.
    pub async fn sync(&mut self) -> Result<(), String> {
        let _ = self.commands.send(PeerCommand::Sync);
        self.wait_for("the answer to a ping", |event| *event == ClientEvent::Synced).await
    }

    /// Moves the events that have arrived into the log, without waiting.
    pub fn take_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.log.push(event);
        }
    }

    /// Closes the connection as clients of the dialect do.
    pub fn close(&self) {
        let _ = self.commands.send(PeerCommand::Close(self.capabilities().close_code));
    }
}

async fn open_websocket(stream: SimStream, path: &str) -> Result<Ws<SimStream>, String> {
    Ws::try_open(stream, request(path).as_bytes()).await
}

/// The transport of a client.
enum Carrier {
    WebSocket(Ws<SimStream>),
    Events(EventStream),
}

impl Carrier {
    async fn next(&mut self) -> Got {
        match self {
            Carrier::WebSocket(ws) => ws.next().await,
            Carrier::Events(events) => events.next().await,
        }
    }

    async fn send(&mut self, sent: ClientFrame) -> bool {
        match (self, sent) {
            (Carrier::WebSocket(ws), ClientFrame::Text(text)) => ws.raw(&frame(TEXT, text.as_bytes())).await,
            (Carrier::WebSocket(ws), ClientFrame::Binary(bytes)) => ws.raw(&frame(BINARY, &bytes)).await,
            (Carrier::Events(events), ClientFrame::Text(text)) => events.post(&text).await,
            (Carrier::Events(_), ClientFrame::Binary(_)) => false,
        }
    }
}

/// The task of a client.
struct PeerTask {
    name: String,
    trace: Trace,
    carrier: Carrier,
    client: Arc<Mutex<Box<dyn SyntheticClient>>>,
    events: mpsc::UnboundedSender<ClientEvent>,
}

impl PeerTask {
    fn report(&self, event: ClientEvent) {
        self.trace.note(&self.name, format_args!("{event:?}"));
        let _ = self.events.send(event);
    }

    async fn run(mut self, actions: Vec<ClientAction>, mut commands: mpsc::UnboundedReceiver<PeerCommand>) {
        let mut actions = Some(actions);
        let mut heartbeats = interval(HEARTBEAT_INTERVAL);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeats.reset();
        let mut end = (Some(1006), String::new());
        loop {
            for action in actions.take().into_iter().flatten() {
                match action {
                    ClientAction::Send(frame) => drop(self.carrier.send(frame).await),
                    ClientAction::Close(code) => self.close(code).await,
                    ClientAction::Report(event) => self.report(event),
                }
            }
            tokio::select! {
                biased;
                got = self.carrier.next() => {
                    self.trace.count_frame();
                    match got {
                        Got::Text(text) => actions = Some(self.client.lock().on_text(&text)),
                        Got::Binary(bytes) => actions = Some(self.client.lock().on_binary(&bytes)),
                        Got::Ping(payload) => {
                            if let Carrier::WebSocket(ws) = &mut self.carrier {
                                ws.pong(&payload).await;
                            }
                        }
                        Got::Pong(_) => self.report(ClientEvent::Synced),
                        Got::Close(code, reason) => {
                            self.close(code).await;
                            end = (code, reason);
                            break;
                        }
                        Got::End => break,
                    }
                }
                command = commands.recv() => match command {
                    Some(PeerCommand::Send(frame)) => drop(self.carrier.send(frame).await),
                    Some(PeerCommand::Sync) => match &mut self.carrier {
                        Carrier::WebSocket(ws) => drop(ws.ping(b"sync").await),
                        // A POST is answered when the gateway has the message.
                        Carrier::Events(_) => self.report(ClientEvent::Synced),
                    },
                    Some(PeerCommand::Close(code)) => self.close(code).await,
                    // The handle was dropped.
                    None => break,
                },
                _ = heartbeats.tick() => {
                    let heartbeat = self.client.lock().heartbeat();
                    if let Some(frame) = heartbeat {
                        self.carrier.send(frame).await;
                    }
                }
            }
        }
        self.report(ClientEvent::Closed(end.0, end.1));
    }

    async fn close(&mut self, code: Option<u16>) {
        if let Carrier::WebSocket(ws) = &mut self.carrier {
            let payload = code.map(|code| code.to_be_bytes().to_vec()).unwrap_or_default();
            ws.raw(&frame(0x88, &payload)).await;
        }
    }
}
