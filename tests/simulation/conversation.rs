//! Conversations of clients that behave: every message arrives, in order and once, unless the network or a
//! restart of the gateway takes a client away. Then the clients come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use fastrand::Rng;
use sigver::protocol::dialect::Dialect;
use sigver::tools::client::dialects::{ClientEvent, JoinerId, Role};
use sigver::tools::client::message::{MessageBody, MessageKind, TestMessage};
use sigver::tools::matrix::known::known;
use sigver::tools::matrix::result::Verdict;
use tokio::time::{Instant, sleep, timeout};

use crate::events;
use crate::hostile;
use crate::inspector::mark;
use crate::network::{Fault, Wire};
use crate::peer::{EVENT_TIMEOUT, NewPeer, Peer};
use crate::world::{LONGEST_DEADLINE, Mode, World};

/// Time after which clients of netflux come back.
const RECONNECT: Duration = Duration::from_secs(3);

/// Most attempts of one conversation: each fault and each restart costs one, and a gateway that is down more.
const MAX_ATTEMPTS: u32 = 12;

/// A fault that is to happen to a client.
#[derive(Clone, Copy, Debug)]
struct PlannedFault {
    fault: Fault,
    hits_member: bool,
    after: Duration,
}

/// The room of a conversation, as others see it.
#[derive(Debug)]
pub struct Venue {
    /// Name of the conversation.
    pub room: String,
    pub key: String,
    pub member: Dialect,
    /// True while the member is there.
    pub is_up: AtomicBool,
    /// Clients that wanted to join and were made the member, as it had left.
    pub intruders: AtomicU32,
}

impl Venue {
    /// Waits until the member is there. Returns false if it does not join.
    pub async fn wait_until_up(&self) -> bool {
        let up = async {
            while !self.is_up.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(60), up).await.is_ok()
    }
}

/// A room and the clients that meet in it, one after the other.
#[derive(Clone, Debug)]
pub struct Conversation {
    pub name: String,
    pub venue: Arc<Venue>,
    joiner: Dialect,
    joiners: u32,
    rounds: u32,
    by_events: bool,
    fault: Option<PlannedFault>,
}

impl Conversation {
    /// Returns a conversation of two dialects that can meet.
    pub fn random(mode: Mode, number: u32, rng: &mut Rng) -> Conversation {
        let dialects = mode.dialects();
        let (member, joiner) = loop {
            let member = dialects[rng.usize(..dialects.len())];
            let joiner = match mode == Mode::Auto && rng.bool() {
                true => dialects[rng.usize(..dialects.len())],
                false => member,
            };
            // Where rooms are for generations, clients of sigver 7 are asked for theirs: netflux answers.
            let is_asked = mode == Mode::ByGeneration && member == Dialect::Sigver7;
            if can_meet(member, joiner) && !is_asked {
                break (member, joiner);
            }
        };
        let fault = (rng.u8(..3) == 0).then(|| PlannedFault {
            fault: [Fault::Reset, Fault::HalfOpen, Fault::SilentClient][rng.usize(..3)],
            hits_member: rng.bool(),
            after: Duration::from_millis(rng.u64(10..15_000)),
        });
        Conversation {
            name: format!("room{number}"),
            venue: Arc::new(Venue {
                room: format!("room{number}"),
                key: format!("room{number}key{:08x}", rng.u32(..)),
                member,
                is_up: AtomicBool::new(false),
                intruders: AtomicU32::new(0),
            }),
            joiner,
            joiners: rng.u32(1..=3),
            rounds: rng.u32(1..=4),
            by_events: rng.bool(),
            fault,
        }
    }

    /// Has no fault hit the member: a client that joins while it is away is made the member, and is meant to
    /// be sent what joiners send.
    pub fn spare_member(&mut self) {
        self.fault = self.fault.filter(|planned| !planned.hits_member);
    }

    /// Has the conversation take place, again after each fault, until it was undisturbed once.
    pub async fn run(self, world: Arc<World>, mut rng: Rng) {
        for attempt in 0..MAX_ATTEMPTS {
            let epoch = world.epoch();
            let mut run = Attempt { world: &world, plan: &self, number: attempt, faulted: None };
            let result = run.run(&mut rng).await;
            let faulted = run.faulted;
            self.venue.is_up.store(false, Ordering::Relaxed);
            if result.is_err() {
                // What an intruder is sent may still be on its way.
                sleep(Duration::from_secs(1)).await;
            }
            let intruders = self.venue.intruders.load(Ordering::Relaxed);
            match &result {
                Ok(()) => {
                    world.trace.note(&self.name, "complete");
                    world.conversations.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(error) => {
                    world.trace.note(&self.name, format_args!("attempt {attempt} failed: {error}"));
                    let is_excused = faulted.is_some()
                        || epoch != world.epoch()
                        || intruders > 0
                        || error.contains("is not connected");
                    if !is_excused {
                        world.trace.violation(&self.name, format_args!("{error} in {self:?}"));
                        return;
                    }
                }
            }
            // A peer that disappears without a close frame is a member until the gateway misses it.
            let is_silent = faulted.is_some_and(|fault| fault != Fault::Reset);
            sleep(if is_silent { LONGEST_DEADLINE } else { RECONNECT }).await;
        }
        world.trace.violation(&self.name, format_args!("no attempt was complete: {self:?}"));
    }
}

/// Returns true if clients of the dialects can have a conversation by the matrix of `auto`.
pub fn can_meet(member: Dialect, joiner: Dialect) -> bool {
    use Dialect::{Sigver1, Sigver4, Sigver6};
    let typed = |dialect| matches!(dialect, Sigver1 | Sigver4);
    let pair = |cell: &&sigver::tools::matrix::result::PairResult| {
        let name = cell.pair.member.map(|member| member.name());
        name == Some(member.name()) && cell.pair.joiner.name() == joiner.name()
    };
    // Between these, both sides make offers, of which one side has one.
    let is_one_sided = typed(member) && joiner == Sigver6 || member == Sigver6 && typed(joiner);
    let known = known();
    !is_one_sided
        && known.pairs.iter().find(pair).is_some_and(|cell| !matches!(cell.verdict, Verdict::Failed { .. }))
}

struct Attempt<'a> {
    world: &'a Arc<World>,
    plan: &'a Conversation,
    number: u32,
    /// The fault that happened or may happen any time.
    faulted: Option<Fault>,
}

impl Attempt<'_> {
    async fn run(&mut self, rng: &mut Rng) -> Result<(), String> {
        let Attempt { plan, number, .. } = *self;
        let mut member = self.connect("member", plan.venue.member, Role::Member, None).await?;
        let confirmed = member.capabilities().confirms_member;
        member.wait_for_role(&ClientEvent::BecameMember, confirmed).await?;
        self.schedule_fault(true, &member.wire);
        plan.venue.is_up.store(true, Ordering::Relaxed);
        for joiner in 0..plan.joiners {
            self.join(&mut member, number, joiner, rng).await?;
            sleep(Duration::from_millis(rng.u64(1000..4000))).await;
        }
        let all_its = |event: &ClientEvent| matches!(event, ClientEvent::Unexpected(_));
        if let Some(event) = member.log.iter().find(|event| all_its(event)) {
            return Err(format!("{}: {event:?}", member.name));
        }
        member.close();
        Ok(())
    }

    async fn connect(
        &self,
        what: &str,
        dialect: Dialect,
        role: Role,
        first: Option<&TestMessage>,
    ) -> Result<Peer, String> {
        let new = NewPeer {
            name: format!("{}.{}.{what}", self.plan.name, self.number),
            dialect,
            role,
            key: &self.plan.venue.key,
            first,
            by_events: self.plan.by_events && dialect == events::DIALECT,
        };
        Peer::connect(self.world, new).await
    }

    /// Has the fault of the plan happen to a client, in the first attempt.
    fn schedule_fault(&mut self, is_member: bool, wire: &Wire) {
        let Some(planned) = self.plan.fault.filter(|planned| planned.hits_member == is_member) else {
            return;
        };
        if self.number > 0 || self.faulted.is_some() {
            return;
        }
        self.faulted = Some(planned.fault);
        let (wire, trace, name) = (wire.clone(), self.world.trace.clone(), self.plan.name.clone());
        tokio::spawn(async move {
            sleep(planned.after).await;
            trace.note(&name, format_args!("{planned:?}"));
            wire.fail(planned.fault);
        });
    }

    /// Has one joiner join the member, exchange messages with it, and leave.
    async fn join(
        &mut self,
        member: &mut Peer,
        attempt: u32,
        number: u32,
        rng: &mut Rng,
    ) -> Result<(), String> {
        let plan = self.plan;
        let mut markers = 0;
        let member_name = member.name.clone();
        let joiner_name = format!("{}.{attempt}.joiner{number}", plan.name);
        let mut marker = |is_up: bool| {
            markers += 1;
            match is_up {
                true => mark(&joiner_name, &member_name, markers),
                false => mark(&member_name, &joiner_name, markers),
            }
        };
        let mut sent = Vec::new();
        let first = marker(true);
        let first_message = TestMessage::new(MessageKind::Offer, &first);
        let joins_with_data = self.protocol_capabilities(plan.joiner).joins_with_data;
        let first_sent = joins_with_data.then_some(&first_message);
        let name = format!("joiner{number}");
        let mut joiner = self.connect(&name, plan.joiner, Role::Joiner, first_sent).await?;
        self.schedule_fault(false, &joiner.wire);
        let confirmed = joiner.capabilities().confirms_joiner;
        joiner.wait_for_role(&ClientEvent::LinkedToMember, confirmed).await?;
        if joins_with_data {
            sent.push(first);
        }
        // Where no frame names the joiner, it is known by its place.
        let place = JoinerId::from_number(number);
        let mut id = member.capabilities().addresses_joiner.then_some(place);
        let is_single = [plan.venue.member, plan.joiner].contains(&Dialect::Sigver6);
        for _ in 0..if is_single { 1 } else { plan.rounds } {
            let count = if is_single { 1 } else { rng.u32(1..=4) };
            while sent.len() < count as usize {
                let text = marker(true);
                joiner.send(None, &TestMessage::new(MessageKind::Offer, &text));
                sent.push(text);
            }
            if let Some(from) = receive(member, &std::mem::take(&mut sent)).await? {
                self.world.note_joiner_id(&from);
                id = Some(from);
            }
            let answers: Vec<String> =
                (0..if is_single { 1 } else { rng.u32(1..=4) }).map(|_| marker(false)).collect();
            for text in &answers {
                let answer = TestMessage::new(MessageKind::Answer, text);
                if !member.send(id.as_ref(), &answer) {
                    member.send(id.as_ref(), &TestMessage::new(MessageKind::Offer, text));
                }
            }
            receive(&mut joiner, &answers).await?;
            sleep(Duration::from_millis(rng.u64(0..8000))).await;
        }
        for peer in [&mut *member, &mut joiner] {
            peer.take_events();
            check_once(peer)?;
        }
        joiner.close();
        Ok(())
    }

    fn protocol_capabilities(
        &self,
        dialect: Dialect,
    ) -> sigver::tools::client::protocol::ProtocolCapabilities {
        sigver::tools::client::protocol::Protocol::Sigver(dialect).capabilities()
    }
}

/// Waits for messages, which must arrive in this order. Returns the sender, at a member.
async fn receive(peer: &mut Peer, markers: &[String]) -> Result<Option<JoinerId>, String> {
    let (mut sender, mut others) = (None, Vec::new());
    let deadline = Instant::now() + EVENT_TIMEOUT;
    let mut expected = markers.iter();
    let mut next = expected.next();
    while let Some(marker) = next {
        let left = deadline.saturating_duration_since(Instant::now());
        match peer.next(left).await.map_err(|error| format!("{error} for {marker}"))? {
            ClientEvent::Message { from, message } => {
                let text = text_of(&message.body);
                if text.contains(marker.as_str()) {
                    sender = sender.or(from);
                    next = expected.next();
                } else if is_hostile(&text) {
                    others.extend(from);
                } else {
                    return Err(format!("{}: received {text} instead of {marker}", peer.name));
                }
            }
            event @ (ClientEvent::Closed(..) | ClientEvent::Unexpected(_) | ClientEvent::BecameMember) => {
                return Err(format!("{}: {event:?} instead of {marker}", peer.name));
            }
            _ => {}
        }
    }
    match &sender {
        Some(sender) if others.contains(sender) => {
            Err(format!("{}: a payload of an attacker in the name of {sender:?}", peer.name))
        }
        _ => Ok(sender),
    }
}

/// Checks that no message arrived twice.
fn check_once(peer: &Peer) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    for event in &peer.log {
        let ClientEvent::Message { message, .. } = event else { continue };
        let text = text_of(&message.body);
        if !is_hostile(&text) && !seen.insert(text.clone()) {
            return Err(format!("{}: received twice: {text}", peer.name));
        }
    }
    Ok(())
}

fn is_hostile(text: &str) -> bool {
    text.contains(&format!("[[{}", hostile::NAME))
}

/// Returns the content of a message as a text.
fn text_of(body: &MessageBody) -> String {
    match body {
        MessageBody::Json(value) => value.to_string(),
        MessageBody::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}
