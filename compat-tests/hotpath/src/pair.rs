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
    conversation: ConnectionProtocol,
    seat: Membership,
    /// Reused from turn to turn, as the connection task does.
    steps: Vec<Output>,
    /// Outputs for the client since the last poll.
    sent: Vec<Outgoing>,
}

impl Peer {
    fn open(hub: &Arc<Hub>, policy: &Arc<Policy>, upgrade: UpgradeRequest, now: Instant) -> Self {
        let seat = hub.register(Outbox::new(DEFAULT_MAX_PENDING));
        let mut steps = Vec::new();
        let conversation = ConnectionProtocol::open(policy, upgrade, now, &mut steps);
        let mut peer = Peer { conversation, seat, steps, sent: Vec::new() };
        peer.run_scenarios();
        peer
    }

    fn input(&mut self, input: &Input, now: Instant) {
        match input {
            Input::Pong => self.conversation.on_pong(now),
            Input::Time => self.conversation.on_timeout(now, &mut self.steps),
            Input::Message(message) => self.conversation.on_message(fresh(message), now, &mut self.steps),
        }
        self.run_scenarios();
    }

    fn message(&mut self, message: Message, now: Instant) {
        self.conversation.on_message(message, now, &mut self.steps);
        self.run_scenarios();
    }

    /// Takes the client's events out of its outbox.
    fn events(&mut self) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        match self.seat.outbox().poll_take(&mut Context::from_waker(Waker::noop()), &mut events) {
            Poll::Ready(Ok(())) | Poll::Pending => {}
            Poll::Ready(Err(overflow)) => debug_assert!(false, "{overflow:?}"),
        }
        events
    }

    /// Encodes the client's events.
    fn show(&mut self, now: Instant) {
        let mut events = self.events();
        while let Some(event) = events.pop_front() {
            self.conversation.on_event(event, now, &mut self.steps);
        }
        Outbox::recycle(events);
        self.run_scenarios();
    }

    fn run_scenarios(&mut self) {
        for step in self.steps.drain(..) {
            match step {
                Output::Send(outgoing) => self.sent.push(outgoing),
                Output::Enter(key, command) => self.seat.enter(&key, command),
                Output::Ask(command) => {
                    self.seat.command(command);
                }
                Output::Leave => self.seat.leave(false),
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
        let mut speaker = TestPeer { client, peer, start, script: Vec::new(), received: Vec::new() };
        speaker.input(Duration::ZERO, Input::Pong);
        let first = messages::first(dialect).filter(|_| role == Role::Joiner);
        let acts = speaker.client.on_open(first.as_ref());
        speaker.act(Duration::ZERO, acts)?;
        Ok(speaker)
    }

    fn input(&mut self, at: Duration, input: Input) {
        self.peer.input(&input, self.start + at);
        self.script.push((at, input));
    }

    fn act(&mut self, at: Duration, acts: Vec<ClientAction>) -> Result<()> {
        for act in acts {
            match act {
                ClientAction::Send(frame) => self.input(at, Input::Message(to_gateway(frame))),
                ClientAction::Report(ClientEvent::Unexpected(what)) => bail!("a client hears {what}"),
                ClientAction::Report(received) => self.received.push(received),
                ClientAction::Close(code) => bail!("a client closes with {code:?}"),
            }
        }
        Ok(())
    }

    /// Passes pending outputs to the client. Returns true if there were any.
    fn poll(&mut self, at: Duration) -> Result<bool> {
        self.peer.show(self.start + at);
        let sent = std::mem::take(&mut self.peer.sent);
        let any = !sent.is_empty();
        for frame in sent {
            let acts = match frame.into_message() {
                Ok(Message::Text(text)) => self.client.on_text(&text),
                Ok(Message::Binary(bytes)) => self.client.on_binary(&bytes),
                Err(close) => bail!("a client is closed with {close:?}"),
            };
            self.act(at, acts)?;
        }
        Ok(any)
    }

    fn look(&mut self, at: Duration) {
        if self.peer.conversation.deadline().is_some_and(|deadline| deadline <= self.start + at) {
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
        let up = to_gateway(up.context("a joiner has no words")?);
        let mut down = None;
        // Messages may narrow detection; after the third exchange nothing changes any more.
        for _ in 0..3 {
            joiner.input(at, Input::Message(up.clone()));
            ensure!(member.poll(at)?, "a member hears nothing");
            let from = member.received.iter().rev().find_map(|received| match received {
                ClientEvent::Message { from, .. } => Some(from.clone()),
                _ => None,
            });
            let from: Option<JoinerId> =
                from.with_context(|| format!("a member hears {:?}", member.received))?;
            if ends.member == Dialect::Sigver6 {
                // A member of this dialect answers a joiner once only.
                continue;
            }
            let said =
                messages::frame(ends.member, &mut *member.client, Role::Member, from.as_ref(), messages);
            let said = to_gateway(said.context("a member has no words")?);
            member.input(at, Input::Message(said.clone()));
            ensure!(joiner.poll(at)?, "a joiner hears nothing");
            down = Some(said);
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
        let Peer { conversation, steps, .. } = &mut self.joiner;
        conversation.on_message(fresh(&self.up), self.now, steps);
        steps.drain(..).find_map(|step| if let Output::Ask(command) = step { Some(command) } else { None })
    }

    /// Applies the joiner's command, and returns the member's event.
    pub fn route(&mut self, command: Command) -> Option<Event> {
        self.joiner.seat.command(command);
        let mut events = self.member.events();
        let event = events.pop_front();
        Outbox::recycle(events);
        event
    }

    /// Encodes the member's event, and returns the number of frames.
    pub fn encode(&mut self, event: Event) -> usize {
        self.member.conversation.on_event(event, self.now, &mut self.member.steps);
        self.member.run_scenarios();
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
            joiner.show(self.now + *at);
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
    peer.show(now);
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
