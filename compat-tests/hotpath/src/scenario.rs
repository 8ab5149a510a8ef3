//! What is counted, by name: a dialect and a part of what is done for a message.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use sigver::dialect::Dialect;

use crate::pair::{Mode, Pair};
use crate::socket::Line;

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
    /// A joiner comes, up to the moment when it is bound, and is gone again.
    Join,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 7] =
        [Part::Decode, Part::Route, Part::Encode, Part::Up, Part::Down, Part::Socket, Part::Join];

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
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The dialect of both clients.
    pub dialect: Dialect,
    /// What is done.
    pub part: Part,
}

/// Does it this often.
type Run = Box<dyn FnMut(u64) -> Result<()>>;

impl Scenario {
    /// All there are, in the order of the dialects.
    pub fn all() -> impl Iterator<Item = Scenario> {
        Dialect::ALL.into_iter().flat_map(|dialect| {
            let parts = Part::ALL.into_iter();
            // A member of sigver 6 says one thing to each that joins.
            let parts = parts.filter(move |part| dialect != Dialect::Sigver6 || *part != Part::Down);
            parts.map(move |part| Scenario { dialect, part })
        })
    }

    /// Everything that comes before: what is returned does it as often as it is told to.
    ///
    /// # Errors
    /// The two clients cannot speak to one another.
    pub fn prepare(self) -> Result<Run> {
        let Scenario { dialect, part } = self;
        let pair = |mode| Pair::meet(dialect, mode);
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
            Part::Up => {
                let mut pair = pair(Mode::Auto)?;
                each(move || pair.up() == 1)
            }
            Part::Down => {
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
                let mut line = Line::meet(dialect)?;
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
        write!(f, "{} {}", self.dialect.name(), self.part.name())
    }
}
