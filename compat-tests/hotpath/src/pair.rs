//! Two clients in a room, of one dialect or of two, through the pure layers and the rooms: no socket, no
//! task, and a clock that stands still. A message takes the path that the connection task gives it, without
//! the waiting.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use sigver::config::DEFAULT_MAX_PENDING;
use sigver::protocol::detect::{ConnectionProtocol, Policy, ProtocolSet};
use sigver::protocol::dialect::{Dialect, Output, UpgradeRequest};
use sigver::protocol::frame::{Message, Outgoing};
use sigver::protocol::model::{Command, Event};
use sigver::server::hub::{Hub, Membership, Outbox};
use sigver::tools::client::dialects::{
    self, ClientAction, ClientEvent, JoinerId, Role, SyntheticClient, request_path,
};
use sigver::tools::client::protocol::Protocol;

use crate::messages::{self, MessageSet};

/// Key of the room.
pub const KEY: &str = "hotpath";

/// Times at which clients are polled while they enter the room: by then their dialects are detected, and no
/// heartbeat is due.
const POLL_TIMES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(700), Duration::from_secs(4)];

/// Protocol selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Automatic detection.
    Auto,
    /// A single dialect.
    Pinned,
}

impl Mode {
    /// Returns the protocols that a gateway serves to clients of this dialect.
    pub fn protocols(self, dialect: Dialect) -> ProtocolSet {
        let mut protocols = ProtocolSet::default();
        if self == Mode::Pinned {
            protocols.releases = std::iter::once(dialect.release()).collect();
        }
        protocols
    }

    fn policy(self, dialect: Dialect) -> Arc<Policy> {
        Arc::new(Policy::new(self.protocols(dialect).releases))
    }
}

/// Dialects of the two clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialectPair {
    /// The member's.
    pub member: Dialect,
    /// The joiner's.
    pub joiner: Dialect,
}

impl DialectPair {
    /// Returns a pair with one dialect for both.
    pub const fn same(dialect: Dialect) -> Self {
        DialectPair { member: dialect, joiner: dialect }
    }

    /// Returns true if messages are translated between two dialects.
    pub fn cross(self) -> bool {
        self.member != self.joiner
    }
}

impl fmt::Display for DialectPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cross() {
            true => write!(f, "{} with {}", self.member.name(), self.joiner.name()),
            false => f.write_str(self.member.name()),
        }
    }
}

/// Input from a client.
#[derive(Clone, Debug)]
enum Input {
    Pong,
    Time,
    Message(Message),
}

/// The gateway's end of a connection.
#[derive(Debug)]
struct Peer {
    protocol: ConnectionProtocol,
    membership: Membership,
    /// Reused from turn to turn, as the connection task does.
    outputs: Vec<Output>,
    /// Outputs for the client since the last poll.
    sent: Vec<Outgoing>,
}

impl Peer {
    fn open(hub: &Arc<Hub>, policy: &Arc<Policy>, upgrade: UpgradeRequest, now: Instant) -> Self {
        let membership = hub.register(Outbox::new(DEFAULT_MAX_PENDING));
        let mut outputs = Vec::new();
        let protocol = ConnectionProtocol::open(policy, upgrade, now, &mut outputs);
        let mut peer = Peer { protocol, membership, outputs, sent: Vec::new() };
        peer.execute_outputs();
        peer
    }

    fn input(&mut self, input: &Input, now: Instant) {
        match input {
            Input::Pong => self.protocol.on_pong(now),
            Input::Time => self.protocol.on_timeout(now, &mut self.outputs),
            Input::Message(message) => self.protocol.on_message(fresh(message), now, &mut self.outputs),
        }
        self.execute_outputs();
    }

    fn message(&mut self, message: Message, now: Instant) {
        self.protocol.on_message(message, now, &mut self.outputs);
        self.execute_outputs();
    }

    /// Takes the client's events out of its outbox.
    fn events(&mut self) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        match self.membership.outbox().poll_take(&mut Context::from_waker(Waker::noop()), &mut events) {
            Poll::Ready(Ok(())) | Poll::Pending => {}
            Poll::Ready(Err(overflow)) => debug_assert!(false, "{overflow:?}"),
        }
        events
    }

    /// Encodes the client's events.
    fn encode_events(&mut self, now: Instant) {
        let mut events = self.events();
        while let Some(event) = events.pop_front() {
            self.protocol.on_event(event, now, &mut self.outputs);
        }
        Outbox::recycle(events);
        self.execute_outputs();
    }

    fn execute_outputs(&mut self) {
        for output in self.outputs.drain(..) {
            match output {
                Output::Send(outgoing) => self.sent.push(outgoing),
                Output::Enter(key, command) => self.membership.enter(&key, command),
                Output::Ask(command) => {
                    self.membership.command(command);
                }
                Output::Leave => self.membership.leave(false),
                _ => {}
            }
        }
    }
}

/// A client with the gateway's end of its connection, while they connect.
struct TestPeer {
    client: Box<dyn SyntheticClient>,
    peer: Peer,
    start: Instant,
    /// All input from the client, with its time.
    script: Vec<(Duration, Input)>,
    received: Vec<ClientEvent>,
}

impl TestPeer {
    fn open(hub: &Arc<Hub>, policy: &Arc<Policy>, dialect: Dialect, role: Role) -> Result<Self> {
        let start = Instant::now();
        let protocol = Protocol::Sigver(dialect);
        let peer = Peer::open(hub, policy, upgrade(dialect, role), start);
        let client = dialects::new_client(protocol, role, KEY);
        let mut peer = TestPeer { client, peer, start, script: Vec::new(), received: Vec::new() };
        peer.input(Duration::ZERO, Input::Pong);
        let first = messages::first(dialect).filter(|_| role == Role::Joiner);
        let actions = peer.client.on_open(first.as_ref());
        peer.execute(Duration::ZERO, actions)?;
        Ok(peer)
    }

    fn input(&mut self, at: Duration, input: Input) {
        self.peer.input(&input, self.start + at);
        self.script.push((at, input));
    }

    fn execute(&mut self, at: Duration, actions: Vec<ClientAction>) -> Result<()> {
        for action in actions {
            match action {
                ClientAction::Send(frame) => self.input(at, Input::Message(to_gateway(frame))),
                ClientAction::Report(ClientEvent::Unexpected(what)) => bail!("a client receives {what}"),
                ClientAction::Report(received) => self.received.push(received),
                ClientAction::Close(code) => bail!("a client closes with {code:?}"),
            }
        }
        Ok(())
    }

    /// Passes pending outputs to the client. Returns true if there were any.
    fn poll(&mut self, at: Duration) -> Result<bool> {
        self.peer.encode_events(self.start + at);
        let sent = std::mem::take(&mut self.peer.sent);
        let any = !sent.is_empty();
        for frame in sent {
            let actions = match frame.into_message() {
                Ok(Message::Text(text)) => self.client.on_text(&text),
                Ok(Message::Binary(bytes)) => self.client.on_binary(&bytes),
                Err(close) => bail!("a client is closed with {close:?}"),
            };
            self.execute(at, actions)?;
        }
        Ok(any)
    }

    fn look(&mut self, at: Duration) {
        if self.peer.protocol.deadline().is_some_and(|deadline| deadline <= self.start + at) {
            self.input(at, Input::Time);
        }
    }
}

/// A member and a joiner that are linked.
pub struct Pair {
    ends: DialectPair,
    hub: Arc<Hub>,
    policy: Arc<Policy>,
    member: Peer,
    joiner: Peer,
    now: Instant,
    up: Message,
    down: Option<Message>,
    /// Input with which the joiner entered.
    arrival: Vec<(Duration, Input)>,
}

impl Pair {
    /// Returns a member and a joiner that have exchanged messages.
    pub fn meet(ends: DialectPair, mode: Mode, messages: MessageSet) -> Result<Self> {
        let (hub, policy) = (Hub::new(), mode.policy(ends.member));
        let mut member = TestPeer::open(&hub, &policy, ends.member, Role::Member)?;
        for at in POLL_TIMES {
            member.look(at);
            while member.poll(at)? {}
        }
        let policy = mode.policy(ends.joiner);
        let mut joiner = TestPeer::open(&hub, &policy, ends.joiner, Role::Joiner)?;
        for at in POLL_TIMES {
            joiner.look(at);
            while joiner.poll(at)? | member.poll(POLL_TIMES[3])? {}
        }
        let arrival = joiner.script.clone();
        let at = POLL_TIMES[3];
        let up = messages::frame(ends.joiner, &mut *joiner.client, Role::Joiner, None, messages);
        let up = to_gateway(up.context("a joiner has no message")?);
        let mut down = None;
        // Messages may narrow detection; after the third exchange nothing changes any more.
        for _ in 0..3 {
            joiner.input(at, Input::Message(up.clone()));
            ensure!(member.poll(at)?, "a member receives nothing");
            let from = member.received.iter().rev().find_map(|received| match received {
                ClientEvent::Message { from, .. } => Some(from.clone()),
                _ => None,
            });
            let from: Option<JoinerId> =
                from.with_context(|| format!("a member received {:?}", member.received))?;
            if ends.member == Dialect::Sigver6 {
                // A member of this dialect answers a joiner once only.
                continue;
            }
            let reply =
                messages::frame(ends.member, &mut *member.client, Role::Member, from.as_ref(), messages);
            let reply = to_gateway(reply.context("a member has no message")?);
            member.input(at, Input::Message(reply.clone()));
            ensure!(joiner.poll(at)?, "a joiner receives nothing");
            down = Some(reply);
        }
        let now = member.start + at;
        Ok(Pair { ends, hub, policy, member: member.peer, joiner: joiner.peer, now, up, down, arrival })
    }

    /// Sends a message from the joiner, and returns the number of resulting frames.
    pub fn up(&mut self) -> usize {
        self.joiner.message(fresh(&self.up), self.now);
        discard_frames(&mut self.member, self.now)
    }

    /// Sends a message from the member, and returns the number of resulting frames.
    pub fn down(&mut self) -> usize {
        let Some(down) = &self.down else { return 0 };
        self.member.message(fresh(down), self.now);
        discard_frames(&mut self.joiner, self.now)
    }

    /// Decodes the joiner's message to a command.
    pub fn decode(&mut self) -> Option<Command> {
        let Peer { protocol, outputs, .. } = &mut self.joiner;
        protocol.on_message(fresh(&self.up), self.now, outputs);
        outputs
            .drain(..)
            .find_map(|output| if let Output::Ask(command) = output { Some(command) } else { None })
    }

    /// Applies the joiner's command, and returns the member's event.
    pub fn route(&mut self, command: Command) -> Option<Event> {
        self.joiner.membership.command(command);
        let mut events = self.member.events();
        let event = events.pop_front();
        Outbox::recycle(events);
        event
    }

    /// Encodes the member's event, and returns the number of frames.
    pub fn encode(&mut self, event: Event) -> usize {
        self.member.protocol.on_event(event, self.now, &mut self.member.outputs);
        self.member.execute_outputs();
        self.member.sent.drain(..).count()
    }

    /// Runs the arrival of a further joiner until it is linked, and its departure.
    pub fn join(&mut self) -> usize {
        let upgrade = upgrade(self.ends.joiner, Role::Joiner);
        let mut joiner = Peer::open(&self.hub, &self.policy, upgrade, self.now);
        let mut received = 0;
        for (at, input) in &self.arrival {
            joiner.input(input, self.now + *at);
            received += discard_frames(&mut self.member, self.now);
            joiner.encode_events(self.now + *at);
        }
        drop(joiner);
        received + discard_frames(&mut self.member, self.now)
    }
}

fn upgrade(dialect: Dialect, role: Role) -> UpgradeRequest {
    UpgradeRequest {
        path: request_path(Protocol::Sigver(dialect), role, KEY),
        favored: false,
        from_page: true,
    }
}

/// Discards the client's frames, and returns their number.
fn discard_frames(peer: &mut Peer, now: Instant) -> usize {
    peer.encode_events(now);
    peer.sent.drain(..).count()
}

fn to_gateway(frame: dialects::ClientFrame) -> Message {
    match frame {
        dialects::ClientFrame::Text(text) => Message::text(text),
        dialects::ClientFrame::Binary(bytes) => Message::binary(bytes),
    }
}

/// Returns the same message in memory of its own, as one that has just arrived.
fn fresh(message: &Message) -> Message {
    match message {
        Message::Text(text) => Message::text(String::from(&text[..])),
        Message::Binary(bytes) => Message::Binary(Bytes::copy_from_slice(bytes)),
    }
}
