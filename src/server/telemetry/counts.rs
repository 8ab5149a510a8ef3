//! Plain counters. Locking is up to [`Telemetry`](super::Telemetry).

use strum::VariantArray as _;

use super::{Recognition, UnixSeconds};
use crate::protocol::dialect::{Dialect, Evidence};

/// A number of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionCount {
    /// Connections that are open.
    pub(crate) active: u64,
    /// Connections since the start, open or closed.
    pub(crate) total: u64,
    /// Time of the most recent close.
    pub(crate) last_closed: Option<UnixSeconds>,
}

/// A number of connections that one kind of evidence identified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct EvidenceCount {
    /// Connections that are open.
    pub active: u64,
    /// Connections since the start, open or closed.
    pub total: u64,
}

/// The use of one dialect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DialectUsage {
    /// Connections treated as this dialect.
    pub(crate) assigned: ConnectionCount,
    /// Connections treated as another dialect, which are also consistent with this one.
    pub(crate) possible: ConnectionCount,
    /// `assigned` by evidence.
    pub(crate) by_evidence: [EvidenceCount; Evidence::VARIANTS.len()],
}

/// The use of all dialects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Usage in the order of [`Dialect::ALL`].
    pub(crate) dialects: [DialectUsage; Dialect::ALL.len()],
    /// Connections without a recognised dialect.
    pub(crate) unrecognised: ConnectionCount,
}

impl ConnectionCount {
    pub(super) fn open(&mut self) {
        self.active += 1;
        self.total += 1;
    }

    /// Reverts `open`, without the trace of a close.
    fn revert(&mut self) {
        self.active -= 1;
        self.total -= 1;
    }

    pub(super) fn close(&mut self, at: UnixSeconds) {
        self.active -= 1;
        self.last_closed = self.last_closed.max(Some(at));
    }

    fn add(&mut self, other: ConnectionCount) {
        self.active += other.active;
        self.total += other.total;
        self.last_closed = self.last_closed.max(other.last_closed);
    }
}

impl Counts {
    /// Returns the use of `dialect`.
    pub(crate) fn dialect(&self, dialect: Dialect) -> &DialectUsage {
        // The discriminants are the positions in `Dialect::ALL`.
        &self.dialects[dialect as usize]
    }

    /// Returns the number of all connections, recognised or not.
    pub(crate) fn sum(&self) -> ConnectionCount {
        let mut sum = self.unrecognised;
        self.dialects.iter().for_each(|usage| sum.add(usage.assigned));
        sum
    }

    pub(super) fn open(&mut self, recognition: Option<Recognition>) {
        self.for_each_count(recognition, ConnectionCount::open);
        self.for_evidence(recognition, |count| {
            count.active += 1;
            count.total += 1;
        });
    }

    pub(super) fn revert(&mut self, recognition: Option<Recognition>) {
        self.for_each_count(recognition, ConnectionCount::revert);
        self.for_evidence(recognition, |count| {
            count.active -= 1;
            count.total -= 1;
        });
    }

    pub(super) fn close(&mut self, recognition: Option<Recognition>, at: UnixSeconds) {
        self.for_each_count(recognition, |count| count.close(at));
        self.for_evidence(recognition, |count| count.active -= 1);
    }

    pub(super) fn add(&mut self, other: &Counts) {
        self.unrecognised.add(other.unrecognised);
        for (sum, usage) in self.dialects.iter_mut().zip(&other.dialects) {
            sum.assigned.add(usage.assigned);
            sum.possible.add(usage.possible);
            for (sum, count) in sum.by_evidence.iter_mut().zip(&usage.by_evidence) {
                sum.active += count.active;
                sum.total += count.total;
            }
        }
    }

    /// Applies `change` once to each count that includes such a connection.
    fn for_each_count(
        &mut self,
        recognition: Option<Recognition>,
        mut change: impl FnMut(&mut ConnectionCount),
    ) {
        let Some(Recognition { releases, dialect: assigned, .. }) = recognition else {
            return change(&mut self.unrecognised);
        };
        for (dialect, usage) in Dialect::ALL.into_iter().zip(&mut self.dialects) {
            if dialect == assigned {
                change(&mut usage.assigned);
            } else if releases.iter().any(|release| release.dialect() == dialect) {
                change(&mut usage.possible);
            }
        }
    }

    fn for_evidence(&mut self, recognition: Option<Recognition>, change: impl FnOnce(&mut EvidenceCount)) {
        if let Some(Recognition { dialect, evidence, .. }) = recognition {
            change(&mut self.dialects[dialect as usize].by_evidence[evidence as usize]);
        }
    }
}
