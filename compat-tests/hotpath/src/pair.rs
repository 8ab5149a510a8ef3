//! Two clients in a room, of one dialect or of two, through the pure layers and the rooms: no socket, no task, and a
//! clock that stands still. What happens per message here is what the task of a connection has done, less the waiting.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use sigver::config::DEFAULT_MAX_PENDING;
use sigver::protocol::detect::{ConnectionProtocol, Policy};
use sigver::protocol::dialect::{Dialect, Output, UpgradeRequest};
use sigver::protocol::frame::{Message, Outgoing};
use sigver::protocol::model::{Command, Event};
use sigver::server::hub::{Hub, Membership, Outbox};
use sigver::tools::client::dialects::{
    self, ClientAction, ClientEvent, JoinerId, Role, SyntheticClient, request_path,
};
use sigver::tools::client::protocol::Protocol;

use crate::words::{self, Words};

/// Where the two meet.
pub const KEY: &str = "hotpath";

/// When clients are looked after while they find their way into the room, since they connected: by then all guesses
/// about them are made, and no heartbeat is due yet.
const LOOKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(700), Duration::from_secs(4)];

/// What clients may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything: they are recognised, as far as they are.
    Auto,
    /// The one dialect, of which there is never a doubt.
    Pinned,
}

impl Mode {
    /// The policy for clients of this dialect.
    ///
    /// # Errors
    /// None that is known.
    pub fn policy(self, dialect: Dialect) -> Result<Arc<Policy>> {
        let protocol = match self {
            Mode::Auto => "auto",
            Mode::Pinned => dialect.name(),
        };
        Ok(Arc::new(Policy::new(Policy::parse(protocol)?.releases)))
    }
}

/// What the two clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLifecycle {
    /// The member.
    pub member: Dialect,
    /// The joiner.
    pub joiner: Dialect,
}

impl StreamLifecycle {
    /// Both speak the same.
    pub const fn same(dialect: Dialect) -> Self {
        StreamLifecycle { member: dialect, joiner: dialect }
    }

    /// Whether what they say is carried from one dialect to another.
    pub fn cross(self) -> bool {
        self.member != self.joiner
    }
}

impl fmt::Display for StreamLifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cross() {
            true => write!(f, "{} with {}", self.member.name(), self.joiner.name()),
            false => f.write_str(self.member.name()),
        }
    }
}

/// What comes from a client.
#[derive(Clone, Debug)]
enum Input {
    Pong,
    Time,
    Message(Message),
}

/// The gateway's end of one connection.
#[derive(Debug)]
struct Peer {
    conversation: ConnectionProtocol,
    seat: Membership,
    /// Kept from one turn to the next, as the task of a connection does it.
    steps: Vec<Output>,
    /// What the client was sent since it was last looked at.
    sent: Vec<Outgoing>,
}

impl Peer {
    fn open(hub: &Arc<Hub>, policy: &Arc<Policy>, upgrade: UpgradeRequest, now: Instant) -> Self {
        let seat = hub.register(Outbox::new(DEFAULT_MAX_PENDING));
        let mut steps = Vec::new();
        let conversation = ConnectionProtocol::open(policy, upgrade, now, &mut steps);
        let mut peer = Peer { conversation, seat, steps, sent: Vec::new() };
        peer.perform();
        peer
    }

    fn input(&mut self, input: &Input, now: Instant) {
        match input {
            Input::Pong => self.conversation.on_pong(now),
            Input::Time => self.conversation.on_timeout(now, &mut self.steps),
            Input::Message(message) => self.conversation.on_message(fresh(message), now, &mut self.steps),
        }
        self.perform();
    }

    fn message(&mut self, message: Message, now: Instant) {
        self.conversation.on_message(message, now, &mut self.steps);
        self.perform();
    }

    /// What the room has for it.
    fn events(&mut self) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        match self.seat.outbox().poll_take(&mut Context::from_waker(Waker::noop()), &mut events) {
            Poll::Ready(Ok(())) | Poll::Pending => {}
            Poll::Ready(Err(overflow)) => debug_assert!(false, "{overflow:?}"),
        }
        events
    }

    /// Has the client sent what the room has for it.
    fn show(&mut self, now: Instant) {
        let mut events = self.events();
        events.drain(..).for_each(|event| self.conversation.on_event(event, now, &mut self.steps));
        Outbox::recycle(events);
        self.perform();
    }

    fn perform(&mut self) {
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

/// A client and the gateway's end, while they get to know one another.
struct Speaker {
    client: Box<dyn SyntheticClient>,
    peer: Peer,
    start: Instant,
    /// All that came from the client, and when.
    script: Vec<(Duration, Input)>,
    heard: Vec<ClientEvent>,
}

impl Speaker {
    fn open(hub: &Arc<Hub>, policy: &Arc<Policy>, dialect: Dialect, role: Role) -> Result<Self> {
        let start = Instant::now();
        let tongue = Protocol::Sigver(dialect);
        let peer = Peer::open(hub, policy, upgrade(dialect, role), start);
        let client = dialects::new_client(tongue, role, KEY);
        let mut speaker = Speaker { client, peer, start, script: Vec::new(), heard: Vec::new() };
        speaker.input(Duration::ZERO, Input::Pong);
        let first = words::first(dialect).filter(|_| role == Role::Joiner);
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
                ClientAction::Report(heard) => self.heard.push(heard),
                ClientAction::Close(code) => bail!("a client closes with {code:?}"),
            }
        }
        Ok(())
    }

    /// Shows the client what there is for it. Whether there was anything.
    fn listen(&mut self, at: Duration) -> Result<bool> {
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

/// The two of them, connected to one another.
pub struct Pair {
    ends: StreamLifecycle,
    hub: Arc<Hub>,
    policy: Arc<Policy>,
    member: Peer,
    joiner: Peer,
    now: Instant,
    up: Message,
    down: Option<Message>,
    /// How the joiner came in.
    arrival: Vec<(Duration, Input)>,
}

impl Pair {
    /// A member and a joiner that have spoken to one another.
    ///
    /// # Errors
    /// They cannot.
    pub fn meet(ends: StreamLifecycle, mode: Mode, words: Words) -> Result<Self> {
        let (hub, policy) = (Hub::new(), mode.policy(ends.member)?);
        let mut member = Speaker::open(&hub, &policy, ends.member, Role::Member)?;
        for at in LOOKS {
            member.look(at);
            while member.listen(at)? {}
        }
        let policy = mode.policy(ends.joiner)?;
        let mut joiner = Speaker::open(&hub, &policy, ends.joiner, Role::Joiner)?;
        for at in LOOKS {
            joiner.look(at);
            while joiner.listen(at)? | member.listen(LOOKS[3])? {}
        }
        let arrival = joiner.script.clone();
        let at = LOOKS[3];
        let up = words::say(ends.joiner, &mut *joiner.client, Role::Joiner, None, words);
        let up = to_gateway(up.context("a joiner has no words")?);
        let mut down = None;
        // What is said tells more about who speaks: by the third time there is no more to be learnt.
        for _ in 0..3 {
            joiner.input(at, Input::Message(up.clone()));
            ensure!(member.listen(at)?, "a member hears nothing");
            let from = member.heard.iter().rev().find_map(|heard| match heard {
                ClientEvent::Message { from, .. } => Some(from.clone()),
                _ => None,
            });
            let from: Option<JoinerId> =
                from.with_context(|| format!("a member hears {:?}", member.heard))?;
            if ends.member == Dialect::Sigver6 {
                // One answer to each that joins: nothing that could be said again and again.
                continue;
            }
            let said = words::say(ends.member, &mut *member.client, Role::Member, from.as_ref(), words);
            let said = to_gateway(said.context("a member has no words")?);
            member.input(at, Input::Message(said.clone()));
            ensure!(joiner.listen(at)?, "a joiner hears nothing");
            down = Some(said);
        }
        let now = member.start + at;
        Ok(Pair { ends, hub, policy, member: member.peer, joiner: joiner.peer, now, up, down, arrival })
    }

    /// The joiner says something to the member: how many frames come of it.
    pub fn up(&mut self) -> usize {
        self.joiner.message(fresh(&self.up), self.now);
        hear(&mut self.member, self.now)
    }

    /// The member says something to the joiner: how many frames come of it.
    pub fn down(&mut self) -> usize {
        let Some(down) = &self.down else { return 0 };
        self.member.message(fresh(down), self.now);
        hear(&mut self.joiner, self.now)
    }

    /// What the joiner says becomes a command.
    pub fn decode(&mut self) -> Option<Command> {
        let Peer { conversation, steps, .. } = &mut self.joiner;
        conversation.on_message(fresh(&self.up), self.now, steps);
        steps.drain(..).find_map(|step| if let Output::Ask(command) = step { Some(command) } else { None })
    }

    /// The joiner's command becomes an event for the member.
    pub fn route(&mut self, command: Command) -> Option<Event> {
        self.joiner.seat.command(command);
        let mut events = self.member.events();
        let event = events.pop_front();
        Outbox::recycle(events);
        event
    }

    /// The event for the member becomes a frame.
    pub fn encode(&mut self, event: Event) -> usize {
        self.member.conversation.on_event(event, self.now, &mut self.member.steps);
        self.member.perform();
        self.member.sent.drain(..).count()
    }

    /// Another joiner comes, as far as it is bound, and is gone again.
    pub fn join(&mut self) -> usize {
        let upgrade = upgrade(self.ends.joiner, Role::Joiner);
        let mut joiner = Peer::open(&self.hub, &self.policy, upgrade, self.now);
        let mut heard = 0;
        for (at, input) in &self.arrival {
            joiner.input(input, self.now + *at);
            heard += hear(&mut self.member, self.now);
            joiner.show(self.now + *at);
        }
        drop(joiner);
        heard + hear(&mut self.member, self.now)
    }
}

fn upgrade(dialect: Dialect, role: Role) -> UpgradeRequest {
    UpgradeRequest { path: request_path(Protocol::Sigver(dialect), role, KEY), favored: false }
}

/// How many frames there are for the client, which are gone thereby.
fn hear(peer: &mut Peer, now: Instant) -> usize {
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
