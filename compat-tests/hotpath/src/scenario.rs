//! What is counted, by name: what the two clients speak, and a part of what is done for a message.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use sigver::protocol::dialect::Dialect;

use crate::pair::{Mode, Pair, StreamLifecycle};
use crate::socket::Line;
use crate::words::Words;

/// A part of what is done for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A joiner's frame becomes a command; its dialect is known.
    Decode,
    /// The command becomes an event in the member's queue, and is taken out.
    Route,
    /// The event becomes a frame for the member; its dialect is known.
    Encode,
    /// All of that, of two clients that were recognised.
    Up,
    /// The same from the member to the joiner.
    Down,
    /// As `Up`, and with the WebSockets and the tasks of both connections.
    Socket,
    /// As `Up`, with a content that is none of what builds a data channel.
    ContentUp,
    /// The same from the member to the joiner.
    ContentDown,
    /// A joiner comes, up to the moment when it is bound, and is gone again.
    Join,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 9] = [
        Part::Decode,
        Part::Route,
        Part::Encode,
        Part::Up,
        Part::Down,
        Part::Socket,
        Part::Join,
        Part::ContentUp,
        Part::ContentDown,
    ];

    /// Those of two dialects: the others are what they are in the one and the other.
    const CROSSING: [Part; 4] = [Part::Up, Part::Down, Part::ContentUp, Part::ContentDown];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Decode => "decode",
            Part::Route => "route",
            Part::Encode => "encode",
            Part::Up => "up",
            Part::Down => "down",
            Part::Socket => "socket",
            Part::Join => "join",
            Part::ContentUp => "content-up",
            Part::ContentDown => "content-down",
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What the clients speak.
    pub ends: StreamLifecycle,
    /// What is done.
    pub part: Part,
}

/// Pairs of dialects that stand for the others: whole objects of JSON, data in an attribute, and both protobufs, with a
/// payload in another form at the other end.
pub const PAIRS: [StreamLifecycle; 3] = [
    StreamLifecycle { member: Dialect::Sigver5, joiner: Dialect::Sigver20 },
    StreamLifecycle { member: Dialect::Sigver13, joiner: Dialect::Sigver20 },
    StreamLifecycle { member: Dialect::Sigver16, joiner: Dialect::Sigver5 },
];

/// Whose messages are counted: clients of one dialect, in the order of the dialects, and then of two.
pub fn ends() -> impl Iterator<Item = StreamLifecycle> {
    Dialect::ALL.into_iter().map(StreamLifecycle::same).chain(PAIRS)
}

/// Whether both clients of this dialect can say what the part needs.
fn has_words(dialect: Dialect, part: Part) -> bool {
    match part {
        // A member of sigver 6 says one thing to each that joins.
        Part::Down => dialect != Dialect::Sigver6,
        // Sigver 1, 4 and 6 have words only for what builds a data channel.
        Part::ContentUp | Part::ContentDown => {
            !matches!(dialect, Dialect::Sigver1 | Dialect::Sigver4 | Dialect::Sigver6)
        }
        _ => true,
    }
}

/// Does it this often.
type Run = Box<dyn FnMut(u64) -> Result<()>>;

impl Scenario {
    /// This part of it, between two clients of this dialect.
    pub const fn same(dialect: Dialect, part: Part) -> Self {
        Scenario { ends: StreamLifecycle::same(dialect), part }
    }

    /// All there are, in the order of [`ends`].
    pub fn all() -> impl Iterator<Item = Scenario> {
        ends().flat_map(|ends| {
            let counted = move |part: &Part| match ends.cross() {
                true => Part::CROSSING.contains(part),
                false => has_words(ends.member, *part),
            };
            Part::ALL.into_iter().filter(counted).map(move |part| Scenario { ends, part })
        })
    }

    /// Everything that comes before: what is returned does it as often as it is told to.
    ///
    /// # Errors
    /// The two clients cannot speak to one another.
    pub fn prepare(self) -> Result<Run> {
        let Scenario { ends, part } = self;
        let words = match part {
            Part::ContentUp | Part::ContentDown => Words::Content,
            _ => Words::Candidate,
        };
        let pair = |mode| Pair::meet(ends, mode, words);
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
                let mut line = Line::meet(ends.member)?;
                Box::new(move |count| line.up(count))
            }
        })
    }
}

/// Once for each, and each has to go well.
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
