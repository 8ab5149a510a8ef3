//! Releases that a client may speak, with the one that it is treated as.

use super::{Dialect, Family, Release, ReleaseSet};

/// Dialects in the order in which they are assumed while nothing tells them apart: what most deployed clients speak
/// first, and dialects without a published client last.
const PRIORITY: [Dialect; 16] = [
    Dialect::Sigver20,
    Dialect::Sigver18,
    Dialect::Sigver15,
    Dialect::Sigver16,
    Dialect::Sigver19,
    Dialect::Sigver9,
    Dialect::Sigver7_6,
    Dialect::Sigver7,
    Dialect::Sigver13,
    Dialect::Sigver11,
    Dialect::Sigver5,
    Dialect::Sigver8,
    Dialect::Sigver6,
    Dialect::Sigver4,
    Dialect::Sigver1,
    Dialect::Sigver15_1,
];

/// The releases that a client may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// All of them.
    pub releases: ReleaseSet,
    /// The one that the client is treated as: without any, the current release.
    pub most_likely: Release,
}

impl Candidates {
    /// Returns these releases as candidates.
    pub fn new(releases: ReleaseSet) -> Self {
        let most_likely = PRIORITY
            .into_iter()
            .find_map(|dialect| releases.iter().find(|release| release.dialect() == dialect))
            .unwrap_or(Release::V20_1_0);
        Candidates { releases, most_likely }
    }

    /// Returns the most likely dialect.
    pub fn dialect(self) -> Dialect {
        self.most_likely.dialect()
    }

    /// Returns the family of the most likely dialect.
    pub fn family(self) -> Family {
        self.dialect().family()
    }

    /// Returns the candidates of the most likely family.
    pub(crate) fn within_family(self) -> Self {
        Candidates { releases: self.releases.of_family(self.family()), most_likely: self.most_likely }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_has_a_priority() {
        for dialect in Dialect::ALL {
            assert_eq!(PRIORITY.iter().filter(|other| **other == dialect).count(), 1, "{dialect}");
        }
    }
}
