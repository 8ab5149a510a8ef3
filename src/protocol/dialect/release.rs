//! The table of everything that was published: which releases there are, and what is true of each.

use std::fmt;

use super::protobuf::ContentLayout;
use crate::protocol::model::SenderTag;

/// A way of speaking that a client can be told by. Several releases may speak it, with inner differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// JSON `type` and `id`, of sigver 1 to 3.
    Sigver1,
    /// JSON `type` and `key`, of sigver 4.
    Sigver4,
    /// JSON open/join/index, of sigver 5.
    Sigver5,
    /// JSON key/joinkey/offer/answer, of sigver 6.
    Sigver6,
    /// JSON key/join/id/data, of sigver 7.0 to 7.4.
    Sigver7,
    /// The same with `isKeyOk`, of sigver 7.6.
    Sigver7_6,
    /// JSON open/join/id/data with `isKeyOk`, of sigver 8.
    Sigver8,
    /// The same with `opened`, of sigver 9 and 10.
    Sigver9,
    /// The same with `first` and ids of text, of sigver 11 and 12.
    Sigver11,
    /// The same with pings, of sigver 13 and 14.
    Sigver13,
    /// Protobuf isFirst/joined/ping, content of layout B, of sigver 15.0.
    Sigver15,
    /// The same with content of layout A, of sigver 15.1.
    Sigver15_1,
    /// Protobuf isFirst/joined/heartbeat, of sigver 16 and 17.
    Sigver16,
    /// Protobuf isFirst/stable/tryAnother, of sigver 18.
    Sigver18,
    /// Protobuf connect/connected, content of layout C, of sigver 19.
    Sigver19,
    /// The same with content of layout D, of sigver 20.
    Sigver20,
}

/// Releases that cannot be told apart by anything they send. Named after the newest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Release {
    /// 1.0.0 to 3.0.0.
    V3_0_0,
    /// 4.0.0.
    V4_0_0,
    /// 5.0.0.
    V5_0_0,
    /// 6.0.0.
    V6_0_0,
    /// 7.0.0.
    V7_0_0,
    /// 7.1.0.
    V7_1_0,
    /// 7.6.4.
    V7_6_4,
    /// 8.0.2.
    V8_0_2,
    /// 8.1.0.
    V8_1_0,
    /// 9.1.0.
    V9_1_0,
    /// 10.1.0.
    V10_1_0,
    /// 11.0.0, and the unpublished 12.
    V11_0_0,
    /// 13.1.3 and 14.0.0.
    V14_0_0,
    /// 15.0.1.
    V15_0_1,
    /// 15.0.2.
    V15_0_2,
    /// 15.0.4.
    V15_0_4,
    /// 15.1.0.
    V15_1_0,
    /// 16.0.0.
    V16_0_0,
    /// 17.0.0 and 17.0.1.
    V17_0_1,
    /// 18.0.0.
    V18_0_0,
    /// 19.0.0.
    V19_0_0,
    /// 19.1.2.
    V19_1_2,
    /// 20.0.0 to 20.0.2.
    V20_0_2,
    /// 20.1.0, and the unpublished 21.
    V20_1_0,
}

/// A set of releases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReleaseSet(u32);

/// Clients whose peer-to-peer layers, above the data channel, understand one another (measured in a browser on nine
/// published clients; where there is none, clients of one dialect).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerProtocol {
    /// Of sigver 1 to 3.
    Sigver1,
    /// Of sigver 4 and 5.
    Sigver5,
    /// netflux 0.10.3, and its like.
    Netflux0,
    /// netflux 0.10.8 to 1.0. With them are 1.1.0-beta.0 to beta.5, and whoever speaks sigver 6: they cannot be told from
    /// them when they enter, and no client of theirs was published that still runs.
    Netflux1,
    /// netflux 1.1.0-beta.7 to 2.0.
    Netflux2,
    /// netflux 2.1 and 3.0.
    Netflux3,
    /// netflux 4.
    Netflux4,
}

impl PeerProtocol {
    /// A number for it, which is not 0.
    pub const fn mark(self) -> u8 {
        self as u8 + 1
    }
}

/// Dialects that resemble one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// JSON in text frames; the key is in a message.
    Json,
    /// Protobuf in binary frames; the key is the path; the server speaks first.
    ProtobufV1,
    /// Protobuf in binary frames; the key is the path; the client speaks first.
    ProtobufV2,
}

impl Dialect {
    /// All dialects, oldest first.
    pub const ALL: [Dialect; 16] = [
        Dialect::Sigver1,
        Dialect::Sigver4,
        Dialect::Sigver5,
        Dialect::Sigver6,
        Dialect::Sigver7,
        Dialect::Sigver7_6,
        Dialect::Sigver8,
        Dialect::Sigver9,
        Dialect::Sigver11,
        Dialect::Sigver13,
        Dialect::Sigver15,
        Dialect::Sigver15_1,
        Dialect::Sigver16,
        Dialect::Sigver18,
        Dialect::Sigver19,
        Dialect::Sigver20,
    ];

    /// The name, as `--protocol` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Sigver1 => "sigver-1",
            Dialect::Sigver4 => "sigver-4",
            Dialect::Sigver5 => "sigver-5",
            Dialect::Sigver6 => "sigver-6",
            Dialect::Sigver7 => "sigver-7",
            Dialect::Sigver7_6 => "sigver-7.6",
            Dialect::Sigver8 => "sigver-8",
            Dialect::Sigver9 => "sigver-9",
            Dialect::Sigver11 => "sigver-11",
            Dialect::Sigver13 => "sigver-13",
            Dialect::Sigver15 => "sigver-15",
            Dialect::Sigver15_1 => "sigver-15.1",
            Dialect::Sigver16 => "sigver-16",
            Dialect::Sigver18 => "sigver-18",
            Dialect::Sigver19 => "sigver-19",
            Dialect::Sigver20 => "sigver-20",
        }
    }

    /// The family it belongs to.
    pub const fn family(self) -> Family {
        match self {
            Dialect::Sigver1
            | Dialect::Sigver4
            | Dialect::Sigver5
            | Dialect::Sigver6
            | Dialect::Sigver7
            | Dialect::Sigver7_6
            | Dialect::Sigver8
            | Dialect::Sigver9
            | Dialect::Sigver11
            | Dialect::Sigver13 => Family::Json,
            Dialect::Sigver15 | Dialect::Sigver15_1 | Dialect::Sigver16 | Dialect::Sigver18 => {
                Family::ProtobufV1
            }
            Dialect::Sigver19 | Dialect::Sigver20 => Family::ProtobufV2,
        }
    }

    /// The release whose inner variant is meant where only the dialect is named: the newest.
    pub fn release(self) -> Release {
        match self {
            // 17 chooses members by lot and words its errors anew; 16 named the dialect.
            Dialect::Sigver16 => Release::V16_0_0,
            other => {
                let newest = Release::ALL.into_iter().rfind(|release| release.dialect() == other);
                newest.unwrap_or(Release::V20_1_0)
            }
        }
    }

    /// The clients that understand its clients once a data channel is open between them.
    pub const fn generation(self) -> PeerProtocol {
        match self {
            Dialect::Sigver1 => PeerProtocol::Sigver1,
            Dialect::Sigver4 | Dialect::Sigver5 => PeerProtocol::Sigver5,
            Dialect::Sigver7 => PeerProtocol::Netflux0,
            Dialect::Sigver6
            | Dialect::Sigver7_6
            | Dialect::Sigver8
            | Dialect::Sigver9
            | Dialect::Sigver11
            | Dialect::Sigver13 => PeerProtocol::Netflux1,
            Dialect::Sigver15 | Dialect::Sigver15_1 => PeerProtocol::Netflux2,
            Dialect::Sigver16 | Dialect::Sigver18 => PeerProtocol::Netflux3,
            Dialect::Sigver19 | Dialect::Sigver20 => PeerProtocol::Netflux4,
        }
    }

    /// How its contents are laid out; JSON has no such thing.
    pub const fn layout(self) -> Option<ContentLayout> {
        match self {
            Dialect::Sigver15 => Some(ContentLayout::V15_0),
            Dialect::Sigver15_1 | Dialect::Sigver16 | Dialect::Sigver18 => Some(ContentLayout::V15_1),
            Dialect::Sigver19 => Some(ContentLayout::V19),
            Dialect::Sigver20 => Some(ContentLayout::V20),
            Dialect::Sigver1
            | Dialect::Sigver4
            | Dialect::Sigver5
            | Dialect::Sigver6
            | Dialect::Sigver7
            | Dialect::Sigver7_6
            | Dialect::Sigver8
            | Dialect::Sigver9
            | Dialect::Sigver11
            | Dialect::Sigver13 => None,
        }
    }

    /// The mark on what a client of this dialect sends, for codecs that look for a hint.
    pub const fn tag(self) -> SenderTag {
        SenderTag(self as u8 + 1)
    }

    /// The dialect of a mark.
    pub fn from_tag(tag: SenderTag) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|dialect| dialect.tag() == tag)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Family {
    /// All families.
    pub const ALL: [Family; 3] = [Family::Json, Family::ProtobufV1, Family::ProtobufV2];

    /// The name, as `--protocol` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Json => "json",
            Family::ProtobufV1 => "protobuf-v1",
            Family::ProtobufV2 => "protobuf-v2",
        }
    }

    /// Whether the room key is the path of the URL.
    pub const fn key_is_path(self) -> bool {
        match self {
            Family::Json => false,
            Family::ProtobufV1 | Family::ProtobufV2 => true,
        }
    }
}

impl Release {
    /// All releases, oldest first.
    pub const ALL: [Release; 24] = [
        Release::V3_0_0,
        Release::V4_0_0,
        Release::V5_0_0,
        Release::V6_0_0,
        Release::V7_0_0,
        Release::V7_1_0,
        Release::V7_6_4,
        Release::V8_0_2,
        Release::V8_1_0,
        Release::V9_1_0,
        Release::V10_1_0,
        Release::V11_0_0,
        Release::V14_0_0,
        Release::V15_0_1,
        Release::V15_0_2,
        Release::V15_0_4,
        Release::V15_1_0,
        Release::V16_0_0,
        Release::V17_0_1,
        Release::V18_0_0,
        Release::V19_0_0,
        Release::V19_1_2,
        Release::V20_0_2,
        Release::V20_1_0,
    ];

    /// The dialect it speaks.
    pub const fn dialect(self) -> Dialect {
        match self {
            Release::V3_0_0 => Dialect::Sigver1,
            Release::V4_0_0 => Dialect::Sigver4,
            Release::V5_0_0 => Dialect::Sigver5,
            Release::V6_0_0 => Dialect::Sigver6,
            Release::V7_0_0 | Release::V7_1_0 => Dialect::Sigver7,
            Release::V7_6_4 => Dialect::Sigver7_6,
            Release::V8_0_2 | Release::V8_1_0 => Dialect::Sigver8,
            Release::V9_1_0 | Release::V10_1_0 => Dialect::Sigver9,
            Release::V11_0_0 => Dialect::Sigver11,
            Release::V14_0_0 => Dialect::Sigver13,
            Release::V15_0_1 | Release::V15_0_2 | Release::V15_0_4 => Dialect::Sigver15,
            Release::V15_1_0 => Dialect::Sigver15_1,
            Release::V16_0_0 | Release::V17_0_1 => Dialect::Sigver16,
            Release::V18_0_0 => Dialect::Sigver18,
            Release::V19_0_0 | Release::V19_1_2 => Dialect::Sigver19,
            Release::V20_0_2 | Release::V20_1_0 => Dialect::Sigver20,
        }
    }

    /// Whether JSON is read from frames of bytes, too (sigver 1 to 7).
    pub fn takes_bytes(self) -> bool {
        self < Release::V8_0_2
    }

    /// The version numbers that behave like this; the first names it.
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Release::V3_0_0 => &["3.0.0", "2.0.0", "1.0.0"],
            Release::V4_0_0 => &["4.0.0"],
            Release::V5_0_0 => &["5.0.0"],
            Release::V6_0_0 => &["6.0.0"],
            Release::V7_0_0 => &["7.0.0"],
            Release::V7_1_0 => &["7.1.0"],
            Release::V7_6_4 => &["7.6.4"],
            Release::V8_0_2 => &["8.0.2"],
            Release::V8_1_0 => &["8.1.0"],
            Release::V9_1_0 => &["9.1.0"],
            Release::V10_1_0 => &["10.1.0"],
            Release::V11_0_0 => &["11.0.0", "12"],
            Release::V14_0_0 => &["14.0.0", "13.1.3"],
            Release::V15_0_1 => &["15.0.1"],
            Release::V15_0_2 => &["15.0.2"],
            Release::V15_0_4 => &["15.0.4"],
            Release::V15_1_0 => &["15.1.0"],
            Release::V16_0_0 => &["16.0.0"],
            Release::V17_0_1 => &["17.0.1", "17.0.0"],
            Release::V18_0_0 => &["18.0.0"],
            Release::V19_0_0 => &["19.0.0"],
            Release::V19_1_2 => &["19.1.2"],
            Release::V20_0_2 => &["20.0.2", "20.0.1", "20.0.0"],
            Release::V20_1_0 => &["20.1.0", "21"],
        }
    }

    /// Its version numbers for people, oldest first.
    pub fn in_words(self) -> String {
        let mut versions = self.versions().to_vec();
        versions.sort_by_key(|version| {
            version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>()
        });
        versions.join(", ")
    }

    /// The release that a version number names: all of it (`17.0.0`), or its beginning (`17`), which stands for
    /// the newest that begins so.
    pub fn of_version(version: &str) -> Option<Release> {
        let exact = |release: &Release| release.versions().contains(&version);
        let begins = |known: &&str| known.strip_prefix(version).is_some_and(|rest| rest.starts_with('.'));
        let newest = || Release::ALL.into_iter().rev().find(|release| release.versions().iter().any(begins));
        Release::ALL.into_iter().find(exact).or_else(newest)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sigver-{}", self.versions().first().copied().unwrap_or_default())
    }
}

impl ReleaseSet {
    /// Whether the release is in the set.
    pub const fn contains(self, release: Release) -> bool {
        self.0 & 1 << release as u32 != 0
    }

    /// How many there are.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its releases, oldest first.
    pub fn iter(self) -> impl Iterator<Item = Release> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let release = Release::ALL.get(rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(*release)
        })
    }

    /// The layout of contents on which all of its releases agree.
    pub fn layout(self) -> Option<ContentLayout> {
        let mut layouts = self.iter().map(|release| release.dialect().layout());
        let first = layouts.next()?;
        first.filter(|_| layouts.all(|layout| layout == first))
    }

    /// Those of its releases for which `keep` holds.
    #[must_use]
    pub fn filter(self, mut keep: impl FnMut(Release) -> bool) -> Self {
        self.iter().filter(|release| keep(*release)).collect()
    }

    /// Those of its releases that are of the family.
    #[must_use]
    pub fn of_family(self, family: Family) -> Self {
        self.filter(|release| release.dialect().family() == family)
    }
}

impl FromIterator<Release> for ReleaseSet {
    fn from_iter<I: IntoIterator<Item = Release>>(releases: I) -> Self {
        ReleaseSet(releases.into_iter().fold(0, |set, release| set | 1 << release as u32))
    }
}

impl fmt::Display for ReleaseSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, release) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{release}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_names_its_release() {
        for release in Release::ALL {
            for version in release.versions() {
                assert_eq!(Release::of_version(version), Some(release), "{version}");
            }
        }
    }

    #[test]
    fn a_beginning_names_the_newest() {
        assert_eq!(Release::of_version("15"), Some(Release::V15_1_0));
        assert_eq!(Release::of_version("15.0"), Some(Release::V15_0_4));
        assert_eq!(Release::of_version("17"), Some(Release::V17_0_1));
        assert_eq!(Release::of_version("20"), Some(Release::V20_1_0));
        assert_eq!(Release::of_version("1"), Some(Release::V3_0_0));
        assert_eq!(Release::of_version("7"), Some(Release::V7_6_4));
        assert_eq!(Release::of_version("7.1"), Some(Release::V7_1_0));
        assert_eq!(Release::of_version("0"), None);
        assert_eq!(Release::of_version(""), None);
    }

    #[test]
    fn marks_come_back() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::from_tag(dialect.tag()), Some(dialect));
            assert_eq!(dialect.release().dialect(), dialect);
        }
        assert_eq!(Dialect::from_tag(SenderTag(0)), None);
    }
}
