//! Who meets under one key: everyone, or only those whose peer-to-peer layers understand one another.
//!
//! In the second case a key stands for several rooms, one for each generation of clients, and a client must not enter
//! one before its generation is known: [`Placement`] holds it back, and moves it if it turns out to be of another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use regex_lite::Regex;

use super::policy::Policy;
use crate::protocol::dialect::{Dialect, Family, Output, PeerProtocol, ReleaseSet};
use crate::protocol::model::{Command, Event, Open, RoomKey};

/// Who meets under one key.
#[derive(Clone, Debug, Default)]
pub enum RoomPolicy {
    /// Everyone.
    #[default]
    Shared,
    /// Those of one generation.
    Partitioned,
    /// The same under keys that this matches, and everyone under the others.
    PartitionedFor(Regex),
}

impl RoomPolicy {
    /// Rooms by generation under keys that the expression matches.
    ///
    /// # Errors
    /// The expression is none.
    pub fn by_generation_in(keys: &str) -> Result<Self> {
        Ok(RoomPolicy::PartitionedFor(Regex::new(keys).context("not an expression for keys")?))
    }

    /// Whether a key stands for several rooms.
    pub fn splits(&self, key: &str) -> bool {
        match self {
            RoomPolicy::Shared => false,
            RoomPolicy::Partitioned => true,
            RoomPolicy::PartitionedFor(keys) => keys.is_match(key),
        }
    }
}

/// How long an opener of a JSON dialect has to tell its generation. netflux 0.10.3 takes some 10 ms (measured).
const ANSWER: Duration = Duration::from_millis(200);

/// How much of what a client asks is kept while it is held back, in bytes. What does not fit is lost, as it would be in no
/// room.
const MAX_WAITING: usize = 64 * 1024;

/// Where one connection is among the rooms of its key.
#[derive(Debug)]
pub(super) struct Placement {
    policy: Arc<Policy>,
    /// What it asked last, of a key that stands for several rooms, and the generation it was taken for.
    entered: Option<(RoomKey, Command, PeerProtocol)>,
    /// What it asks, until its generation is known or the time is over.
    held: Option<HeldCommand>,
    /// It was moved, and knows nothing of it: the room's next answer is not for it.
    moved: bool,
}

#[derive(Debug)]
struct HeldCommand {
    key: RoomKey,
    command: Command,
    until: Instant,
    /// It waits for others, and not for what is known of itself.
    for_others: bool,
    /// What it asked after that.
    waiting: Vec<Command>,
    cost: usize,
}

/// What is known of the client that is to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// Its generation, if all that it may be is of one.
    pub(super) generation: Option<PeerProtocol>,
    /// What it is taken for.
    pub(super) likely: Dialect,
    /// It was sent the probe: it answers it soon, or is of those that do not.
    pub(super) probed: bool,
}

/// What became of a client that was placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    /// It is held back, and may be asked who it is.
    pub(super) held: bool,
    /// It has left the room of another generation.
    pub(super) left: bool,
}

/// The generation of a client that may speak any of these, if they are all of one.
pub(super) fn generation(releases: ReleaseSet) -> Option<PeerProtocol> {
    let mut generations = releases.iter().map(|release| release.dialect().generation());
    let first = generations.next()?;
    generations.all(|generation| generation == first).then_some(first)
}

impl Placement {
    /// For a connection, if keys can stand for several rooms.
    pub(super) fn new(policy: &Arc<Policy>) -> Option<Box<Self>> {
        let placing = Placement { policy: Arc::clone(policy), entered: None, held: None, moved: false };
        (!matches!(policy.rooms, RoomPolicy::Shared)).then(|| Box::new(placing))
    }

    /// Until when it is held back, if it is.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.until)
    }

    /// Whether the room's answer is one to a move that the client knows nothing of.
    pub(super) fn hides(&mut self, event: &Event) -> bool {
        matches!(event, Event::Admitted { .. } | Event::LinkedToMember { .. })
            && std::mem::take(&mut self.moved)
    }

    /// What it asked was a mistake about its dialect. Whether it is in a room now, which it has to leave.
    pub(super) fn forget(&mut self) -> bool {
        self.held = None;
        self.entered.take().is_some()
    }

    /// Sends the client to the room of its generation: what was asked from step `from` on, and what was asked before if
    /// that is known only now, or is another one than it was taken for.
    pub(super) fn place(
        &mut self,
        client: Client,
        from: usize,
        now: Instant,
        steps: &mut Vec<Output>,
    ) -> Placed {
        let mut placed = Placed::default();
        let asked = steps.split_off(from);
        for step in asked {
            match step {
                Output::Enter(key, command) if self.policy.rooms.splits(key.as_str()) => {
                    self.held = None;
                    match self.patience(client, &command) {
                        Some(patience) => {
                            let until = now + patience;
                            let for_others = matches!(command, Command::Join(_)) && client.is_json();
                            self.held = Some(HeldCommand {
                                key,
                                command,
                                until,
                                for_others,
                                waiting: Vec::new(),
                                cost: 0,
                            });
                            placed.held = true;
                        }
                        None => self.enter(key, command, client, steps, &mut placed),
                    }
                }
                Output::Ask(command) if self.held.is_some() => {
                    self.held.iter_mut().for_each(|held| held.keep(command.clone()));
                }
                Output::Enter(..) | Output::Leave => {
                    self.forget();
                    steps.push(step);
                }
                other => steps.push(other),
            }
        }
        let known = client.generation.is_some();
        let due = |held: &mut HeldCommand| known && !held.for_others || held.until <= now;
        if let Some(held) = self.held.take_if(due) {
            self.enter(held.key, held.command, client, steps, &mut placed);
            steps.extend(held.waiting.into_iter().map(Output::Ask));
        } else if let Some((key, command, taken_for)) = &self.entered
            && *taken_for != client.taken_for()
        {
            self.moved = client.is_json();
            self.enter(key.clone(), command.clone(), client, steps, &mut placed);
        }
        placed
    }

    /// How long the client is held back before it enters, if it is.
    fn patience(&self, client: Client, command: &Command) -> Option<Duration> {
        match (client.likely.family(), command) {
            // An opener is asked for its generation, and joiners come after it.
            (Family::Json, Command::Join(_)) => Some(ANSWER + ANSWER / 4),
            _ if client.generation.is_some() => None,
            (Family::Json, Command::Open(Open { exclusive: true, .. })) => Some(ANSWER),
            (Family::ProtobufV1, _) => client.probed.then_some(self.policy.windows.silence),
            (Family::Json | Family::ProtobufV2, _) => None,
        }
    }

    fn enter(
        &mut self,
        key: RoomKey,
        command: Command,
        client: Client,
        steps: &mut Vec<Output>,
        placed: &mut Placed,
    ) {
        let generation = client.taken_for();
        if self.entered.as_ref().is_some_and(|(_, _, taken_for)| *taken_for != generation) {
            steps.push(Output::Leave);
            placed.left = true;
        }
        steps.push(Output::Enter(key.clone().with_partition(generation.mark()), command.clone()));
        self.entered = Some((key, command, generation));
    }
}

impl Client {
    fn is_json(self) -> bool {
        self.likely.family() == Family::Json
    }

    fn taken_for(self) -> PeerProtocol {
        self.generation.unwrap_or(self.likely.generation())
    }
}

impl HeldCommand {
    fn keep(&mut self, command: Command) {
        let payload = match &command {
            Command::Relay { message, .. } | Command::ReplyOnBehalf { message, .. } => message.len(),
            _ => 0,
        };
        let cost = size_of::<Command>() + payload;
        if self.cost + cost <= MAX_WAITING {
            self.cost += cost;
            self.waiting.push(command);
        }
    }
}
