//! Counted scenarios by name: the dialects of two clients, and a part of a message's path.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use sigver::protocol::dialect::Dialect;
use strum::{IntoStaticStr, VariantArray};

use crate::messages::MessageSet;
use crate::pair::{DialectPair, Mode, Pair};
use crate::socket::ConnectedPair;

/// A part of a message's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Part {
    /// A joiner's frame becomes a command; its dialect is known.
    Decode,
    /// The command becomes an event in the member's outbox, and is taken out.
    Route,
    /// The event becomes a frame for the member; its dialect is known.
    Encode,
    /// All of these, with detected dialects.
    Up,
    /// The same from member to joiner.
    Down,
    /// `Up`, with WebSockets and connection tasks.
    Socket,
    /// A joiner connects, is linked, and disconnects.
    Join,
    /// `Up`, with a content other than WebRTC signaling.
    ContentUp,
    /// The same from member to joiner.
    ContentDown,
}

impl Part {
    /// All parts.
    pub const ALL: &[Part] = Part::VARIANTS;

    /// Parts that are counted for pairs of two dialects; the others do not depend on the pair.
    const CROSSING: [Part; 4] = [Part::Up, Part::Down, Part::ContentUp, Part::ContentDown];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// A counted scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Dialects of the clients.
    pub ends: DialectPair,
    /// Part of the path.
    pub part: Part,
}

/// Pairs of dialects that stand for the others: whole JSON objects, data in an attribute, and both protobuf
/// generations.
pub const PAIRS: [DialectPair; 3] = [
    DialectPair { member: Dialect::Sigver5, joiner: Dialect::Sigver20 },
    DialectPair { member: Dialect::Sigver13, joiner: Dialect::Sigver20 },
    DialectPair { member: Dialect::Sigver16, joiner: Dialect::Sigver5 },
];

/// Returns the counted pairs: one dialect each, in order, then pairs of two.
pub fn ends() -> impl Iterator<Item = DialectPair> {
    Dialect::ALL.into_iter().map(DialectPair::same).chain(PAIRS)
}

/// Returns true if clients of this dialect have the messages that the part needs.
fn can_send(dialect: Dialect, part: Part) -> bool {
    match part {
        // A member of sigver 6 sends one message to each joiner.
        Part::Down => dialect != Dialect::Sigver6,
        // Sigver 1, 4 and 6 relay WebRTC signaling only.
        Part::ContentUp | Part::ContentDown => {
            !matches!(dialect, Dialect::Sigver1 | Dialect::Sigver4 | Dialect::Sigver6)
        }
        _ => true,
    }
}

/// Runs the scenario a number of times.
type Run = Box<dyn FnMut(u64) -> Result<()>>;

impl Scenario {
    /// Returns the scenario of this part between two clients of one dialect.
    pub const fn same(dialect: Dialect, part: Part) -> Self {
        Scenario { ends: DialectPair::same(dialect), part }
    }

    /// Returns all scenarios, in the order of [`ends`].
    pub fn all() -> impl Iterator<Item = Scenario> {
        ends().flat_map(|ends| {
            let counted = move |part: &Part| match ends.cross() {
                true => Part::CROSSING.contains(part),
                false => can_send(ends.member, *part),
            };
            Part::ALL.iter().copied().filter(counted).map(move |part| Scenario { ends, part })
        })
    }

    /// Does everything that precedes the counted part, and returns the counted part.
    pub fn prepare(self) -> Result<Run> {
        let Scenario { ends, part } = self;
        let messages = match part {
            Part::ContentUp | Part::ContentDown => MessageSet::Content,
            _ => MessageSet::Candidate,
        };
        let pair = |mode| Pair::meet(ends, mode, messages);
        Ok(match part {
            Part::Decode => {
                let mut pair = pair(Mode::Pinned)?;
                each(move || pair.decode().is_some())
            }
            Part::Route => {
                let mut pair = pair(Mode::Pinned)?;
                let command = pair.decode().context("no command")?;
                each(move || pair.route(command.clone()).is_some())
            }
            Part::Encode => {
                let mut pair = pair(Mode::Pinned)?;
                let command = pair.decode().context("no command")?;
                let event = pair.route(command).context("no event")?;
                each(move || pair.encode(event.clone()) == 1)
            }
            Part::Up | Part::ContentUp => {
                let mut pair = pair(Mode::Auto)?;
                each(move || pair.up() == 1)
            }
            Part::Down | Part::ContentDown => {
                let mut pair = pair(Mode::Auto)?;
                each(move || pair.down() == 1)
            }
            Part::Join => {
                let mut pair = pair(Mode::Auto)?;
                each(move || {
                    pair.join();
                    true
                })
            }
            Part::Socket => {
                ensure!(!ends.cross(), "the tasks are counted of one dialect");
                let mut line = ConnectedPair::meet(ends.member)?;
                Box::new(move |count| line.up(count))
            }
        })
    }
}

/// Runs `once` a number of times; each must succeed.
fn each(mut once: impl FnMut() -> bool + 'static) -> Run {
    Box::new(move |count| {
        let done = (0..count).filter(|_| once()).count() as u64;
        ensure!(done == count, "only {done} of {count} were relayed");
        Ok(())
    })
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.ends, self.part.name())
    }
}
