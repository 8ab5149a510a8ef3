//! Releases that a client may speak, with the one that it is treated as.

use super::{Dialect, Family, Release, ReleaseSet};

/// The releases that a client may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// All of them.
    pub releases: ReleaseSet,
    /// The one that the client is treated as: without any, the latest release.
    pub most_likely: Release,
}

impl Candidates {
    /// Returns these releases as candidates.
    pub fn new(releases: ReleaseSet) -> Self {
        Candidates { releases, most_likely: releases.most_likely().unwrap_or(Release::LATEST) }
    }

    /// Returns the most likely dialect.
    pub fn dialect(self) -> Dialect {
        self.most_likely.dialect()
    }

    /// Returns the family of the most likely dialect.
    pub(crate) fn family(self) -> Family {
        self.dialect().family()
    }

    /// Returns the candidates of the most likely family.
    pub(crate) fn within_family(self) -> Self {
        Candidates { releases: self.releases.of_family(self.family()), most_likely: self.most_likely }
    }
}
