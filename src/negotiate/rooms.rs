//! Who meets under one key: everyone, or only those whose peer-to-peer layers understand one another.
//!
//! In the second case a key stands for several rooms, one for each generation of clients, and a client must not enter
//! one before its generation is known: [`Placing`] holds it back, and moves it if it turns out to be of another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use regex_lite::Regex;

use super::policy::Policy;
use crate::dialect::{Generation, Releases};
use crate::model::{Command, Open, RoomKey};

/// Who meets under one key.
#[derive(Clone, Debug, Default)]
pub enum Rooms {
    /// Everyone.
    #[default]
    Shared,
    /// Those of one generation.
    ByGeneration,
    /// The same under keys that this matches, and everyone under the others.
    ByGenerationIn(Regex),
}

impl Rooms {
    /// Rooms by generation under keys that the expression matches.
    ///
    /// # Errors
    /// The expression is none.
    pub fn by_generation_in(keys: &str) -> Result<Self> {
        Ok(Rooms::ByGenerationIn(Regex::new(keys).context("not an expression for keys")?))
    }

    /// Whether a key stands for several rooms.
    pub fn splits(&self, key: &str) -> bool {
        match self {
            Rooms::Shared => false,
            Rooms::ByGeneration => true,
            Rooms::ByGenerationIn(keys) => keys.is_match(key),
        }
    }
}

/// How long an opener of a JSON dialect has to tell its generation. netflux 0.10.3 takes some 10 ms (measured).
const ANSWER: Duration = Duration::from_millis(200);

/// Where one connection is among the rooms of its key.
#[derive(Debug)]
pub(super) struct Placing {
    policy: Arc<Policy>,
    /// What it asked last, of a key that stands for several rooms, and the generation it was taken for.
    entered: Option<(RoomKey, Command, Generation)>,
    /// What it asks, until its generation is known or the time is over.
    pub(super) held: Option<(RoomKey, Command, Instant)>,
    /// It was moved, and knows nothing of it: the room's next answer is not for it.
    pub(super) moved: bool,
}

/// The generation of a client that may speak any of these, if they are all of one.
pub(super) fn generation(releases: Releases) -> Option<Generation> {
    let mut generations = releases.iter().map(|release| release.dialect().generation());
    let first = generations.next()?;
    generations.all(|generation| generation == first).then_some(first)
}

impl Placing {
    /// For a connection, if keys can stand for several rooms.
    pub(super) fn new(policy: &Arc<Policy>) -> Option<Box<Self>> {
        let placing = Placing { policy: Arc::clone(policy), entered: None, held: None, moved: false };
        (!matches!(policy.rooms, Rooms::Shared)).then(|| Box::new(placing))
    }

    /// Whether the key stands for several rooms.
    pub(super) fn splits(&self, key: &RoomKey) -> bool {
        self.policy.rooms.splits(key.as_str())
    }

    /// Until when one is held back who asks `now`.
    pub(super) fn patience(&self, now: Instant) -> Instant {
        now + self.policy.windows.silence
    }

    /// The same for a client of a JSON dialect: an opener is asked for its generation, and joiners come after it.
    pub(super) fn patience_with_json(&self, command: &Command, now: Instant) -> Option<Instant> {
        match command {
            Command::Open(Open { exclusive: true, .. }) => Some(now + ANSWER),
            Command::Join(_) => Some(now + ANSWER + ANSWER / 4),
            _ => None,
        }
    }

    /// The room for a client of this generation that asks for a key.
    pub(super) fn place(&mut self, key: RoomKey, command: Command, generation: Generation) -> RoomKey {
        let room = key.clone().of(generation.mark());
        self.entered = Some((key, command, generation));
        room
    }

    /// Whether it is in the room of another generation than this one.
    pub(super) fn is_misplaced(&self, generation: Generation) -> bool {
        self.entered.as_ref().is_some_and(|(_, _, taken_for)| *taken_for != generation)
    }

    /// What it asked last.
    pub(super) fn asked(&self) -> Option<(RoomKey, Command)> {
        self.entered.as_ref().map(|(key, command, _)| (key.clone(), command.clone()))
    }
}
