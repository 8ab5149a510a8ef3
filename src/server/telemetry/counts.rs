//! The counts themselves: plain numbers, in and out. Who locks them is in the module above.

use super::{Recognition, UnixSeconds};
use crate::protocol::dialect::Dialect;
use crate::protocol::dialect::Evidence;

/// How many there are and were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCount {
    /// Connected now.
    pub now: u64,
    /// Since the start, those of now among them.
    pub total: u64,
    /// When the last of those that are gone went.
    pub gone: Option<UnixSeconds>,
}

/// How many were recognised by one kind of evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByEvidence {
    /// Connected now.
    pub now: u64,
    /// Since the start, those of now among them.
    pub total: u64,
}

/// The use of one dialect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialectUsage {
    /// The connections that are taken to speak it.
    pub taken: ConnectionCount,
    /// Those that are taken for another one, though all they sent could be this one.
    pub perhaps: ConnectionCount,
    /// Of `taken`, by what they were recognised, in the order of [`Evidence::ALL`].
    pub by: [ByEvidence; Evidence::ALL.len()],
}

/// The use of all dialects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In the order of [`Dialect::ALL`].
    pub dialects: [DialectUsage; Dialect::ALL.len()],
    /// Those that were not recognised, or not yet.
    pub unrecognised: ConnectionCount,
}

impl ConnectionCount {
    pub(super) fn enter(&mut self) {
        self.now += 1;
        self.total += 1;
    }

    /// As if it had never come.
    fn take_back(&mut self) {
        self.now -= 1;
        self.total -= 1;
    }

    pub(super) fn leave(&mut self, at: UnixSeconds) {
        self.now -= 1;
        self.gone = self.gone.max(Some(at));
    }

    fn add(&mut self, other: ConnectionCount) {
        self.now += other.now;
        self.total += other.total;
        self.gone = self.gone.max(other.gone);
    }

    /// When the last was seen, as of `now`: those that are connected are seen.
    pub fn seen(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        if self.now > 0 { Some(now) } else { self.gone }
    }
}

impl Counts {
    /// The use of a dialect.
    pub fn of(&self, dialect: Dialect) -> &DialectUsage {
        // The dialects are numbered as they are listed.
        &self.dialects[dialect as usize]
    }

    /// All connections, recognised or not.
    pub fn all(&self) -> ConnectionCount {
        let mut all = self.unrecognised;
        self.dialects.iter().for_each(|used| all.add(used.taken));
        all
    }

    pub(super) fn enter(&mut self, known: Option<Recognition>) {
        self.each(known, ConnectionCount::enter);
        self.by(known, |by| {
            by.now += 1;
            by.total += 1;
        });
    }

    pub(super) fn take_back(&mut self, known: Option<Recognition>) {
        self.each(known, ConnectionCount::take_back);
        self.by(known, |by| {
            by.now -= 1;
            by.total -= 1;
        });
    }

    pub(super) fn leave(&mut self, known: Option<Recognition>, at: UnixSeconds) {
        self.each(known, |tally| tally.leave(at));
        self.by(known, |by| by.now -= 1);
    }

    pub(super) fn add(&mut self, other: &Counts) {
        self.unrecognised.add(other.unrecognised);
        for (sum, used) in self.dialects.iter_mut().zip(&other.dialects) {
            sum.taken.add(used.taken);
            sum.perhaps.add(used.perhaps);
            for (sum, by) in sum.by.iter_mut().zip(&used.by) {
                sum.now += by.now;
                sum.total += by.total;
            }
        }
    }

    /// Every tally in which a connection counts, each once.
    fn each(&mut self, known: Option<Recognition>, mut change: impl FnMut(&mut ConnectionCount)) {
        let Some(known) = known else {
            return change(&mut self.unrecognised);
        };
        change(&mut self.dialects[known.dialect as usize].taken);
        for dialect in Dialect::ALL {
            let possible = known.releases.iter().any(|release| release.dialect() == dialect);
            if possible && dialect != known.dialect {
                change(&mut self.dialects[dialect as usize].perhaps);
            }
        }
    }

    fn by(&mut self, known: Option<Recognition>, change: impl FnOnce(&mut ByEvidence)) {
        if let Some(known) = known {
            change(&mut self.dialects[known.dialect as usize].by[known.evidence as usize]);
        }
    }
}
