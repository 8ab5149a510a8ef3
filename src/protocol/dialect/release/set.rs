//! A set of releases.

use std::fmt;

use strum::EnumCount as _;

use super::{ContentLayout, Dialect, Family, PeerProtocol, Release};

/// Set of releases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReleaseSet(u32);

const _: () = assert!(Release::COUNT <= u32::BITS as usize, "every release needs a bit");

/// Releases of each family.
const BY_FAMILY: [ReleaseSet; Family::COUNT] = grouped(Group::Family);
/// Releases of each dialect, from the most likely to the least.
const BY_PRIORITY: [ReleaseSet; Dialect::COUNT] = grouped(Group::Priority);

/// Property by which releases are grouped.
#[derive(Clone, Copy)]
enum Group {
    Family,
    Priority,
}

/// Groups all releases, once and for all: sets of them are looked up for each connection.
#[allow(clippy::indexing_slicing, reason = "the compiler evaluates it")]
const fn grouped<const N: usize>(by: Group) -> [ReleaseSet; N] {
    let (mut sets, mut releases) = ([ReleaseSet(0); N], Release::ALL.as_slice());
    while let [release, rest @ ..] = releases {
        let dialect = release.facts().dialect.facts();
        let group = match by {
            Group::Family => dialect.family as usize,
            Group::Priority => dialect.priority as usize,
        };
        sets[group] = ReleaseSet(sets[group].0 | ReleaseSet::single(*release).0);
        releases = rest;
    }
    sets
}

impl ReleaseSet {
    /// Returns true if the release is in the set.
    pub const fn contains(self, release: Release) -> bool {
        self.0 & ReleaseSet::single(release).0 != 0
    }

    /// Returns the set of one release.
    const fn single(release: Release) -> Self {
        ReleaseSet(1u32.wrapping_shl(release as u32))
    }

    /// Returns the number of releases in the set.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Returns true if there are no releases in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the releases of the set, oldest first.
    pub fn iter(self) -> impl Iterator<Item = Release> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let release = Release::from_repr(u8::try_from(rest.trailing_zeros()).ok()?)?;
            rest &= rest.wrapping_sub(1);
            Some(release)
        })
    }

    /// Returns true if `predicate` holds for a release of the set.
    pub fn any(self, predicate: impl FnMut(Release) -> bool) -> bool {
        self.iter().any(predicate)
    }

    /// Returns true if `predicate` holds for all releases of the set.
    pub fn all(self, predicate: impl FnMut(Release) -> bool) -> bool {
        self.iter().all(predicate)
    }

    /// Returns the only release of the set; `None` if there are more or none.
    pub(crate) fn single_release(self) -> Option<Release> {
        self.common(|release| release)
    }

    /// Returns the content layout that all releases of the set share.
    pub fn content_layout(self) -> Option<ContentLayout> {
        self.common(|release| release.dialect().content_layout()).flatten()
    }

    /// Returns the peer protocol that all releases of the set share.
    pub(crate) fn peer_protocol(self) -> Option<PeerProtocol> {
        self.common(|release| release.dialect().peer_protocol())
    }

    /// Returns the peer protocols of the releases, one bit each, if there are several; 0 if there is one.
    pub(crate) fn uncertain_peer_protocols(self) -> u8 {
        let set = self.peer_protocols();
        if set.is_power_of_two() { 0 } else { set }
    }

    /// Returns the peer protocols of the releases, one bit each.
    pub(crate) fn peer_protocols(self) -> u8 {
        self.iter().fold(0, |set, release| set | release.dialect().peer_protocol().bit())
    }

    /// Returns true if some of the releases have the key in a message, and others in the path of the URL.
    pub(crate) fn has_both_kinds_of_key(self) -> bool {
        let key_is_path = |release: Release| release.family().key_is_path();
        self.any(key_is_path) && !self.all(key_is_path)
    }

    /// Returns the releases of the set for which `keep` holds.
    #[must_use]
    pub fn filter(self, mut keep: impl FnMut(Release) -> bool) -> Self {
        self.iter().filter(|release| keep(*release)).collect()
    }

    /// Returns the releases of the set that belong to the family.
    #[must_use]
    pub(crate) fn of_family(self, family: Family) -> Self {
        let all = BY_FAMILY.get(family as usize).copied().unwrap_or_default();
        ReleaseSet(self.0 & all.0)
    }

    /// Returns the oldest release of the most likely dialect in the set.
    pub(in crate::protocol::dialect) fn most_likely(self) -> Option<Release> {
        BY_PRIORITY.iter().find_map(|dialect| ReleaseSet(self.0 & dialect.0).iter().next())
    }

    /// Returns the releases of the set that speak the dialect.
    #[must_use]
    pub(crate) fn of_dialect(self, dialect: Dialect) -> Self {
        self.filter(|release| release.dialect() == dialect)
    }

    /// Returns the releases of the set whose contents have the layout.
    #[must_use]
    pub(crate) fn of_content_layout(self, layout: ContentLayout) -> Self {
        self.filter(|release| release.dialect().content_layout() == Some(layout))
    }

    /// Returns the value of `fact` that all releases of the set share.
    fn common<T: PartialEq>(self, fact: impl Fn(Release) -> T) -> Option<T> {
        let mut facts = self.iter().map(fact);
        let first = facts.next()?;
        facts.all(|other| other == first).then_some(first)
    }
}

impl FromIterator<Release> for ReleaseSet {
    fn from_iter<I: IntoIterator<Item = Release>>(releases: I) -> Self {
        ReleaseSet(releases.into_iter().fold(0, |set, release| set | ReleaseSet::single(release).0))
    }
}

impl fmt::Display for ReleaseSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, release) in self.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{release}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_agree_with_the_rows() {
        let all: ReleaseSet = Release::ALL.into_iter().collect();
        for family in Family::ALL {
            assert_eq!(all.of_family(family), all.filter(|release| release.family() == family));
        }
        let priority = |release: &Release| release.dialect().facts().priority;
        for (one, other) in Release::ALL.into_iter().zip(Release::ALL.into_iter().skip(1)) {
            let set: ReleaseSet = [one, other].into_iter().collect();
            assert_eq!(set.most_likely(), [one, other].into_iter().min_by_key(priority), "{set}");
        }
        assert_eq!(ReleaseSet::default().most_likely(), None);
    }
}
