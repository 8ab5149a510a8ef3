//! The published releases, their dialects, and the layouts of contents in these. Each is one variant and one
//! row of `release_rows.rs`, `dialect_rows.rs` or `layout_rows.rs`.

mod dialect_rows;
mod facts;
mod layout_rows;
mod release_rows;
mod set;

use std::fmt;
use std::str::FromStr;

use strum::{EnumCount, EnumString, IntoStaticStr, VariantArray};
use thiserror::Error;

pub use dialect_rows::Dialect;
pub(super) use facts::{
    CloseFrames, DialectDoc, EmptyContentClose, FamilyFacts, JoinerId, JsonErrorTexts, SdpEncoding,
    UnknownJoiner, V1Facts, V1Schema, V2Facts,
};
pub(crate) use facts::{Confirmation, JsonCodec, JsonFacts};
pub use layout_rows::ContentLayout;
pub(super) use layout_rows::{Addressing, FieldKind, Schema};
pub use release_rows::Release;
pub use set::ReleaseSet;

use super::keepalive::Keepalive;
use crate::protocol::model::SenderTag;

/// Group of clients whose peer-to-peer layers, above the data channel, understand one another (measured in a
/// browser on nine published clients; dialects without a published client are grouped by dialect).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumCount, VariantArray)]
#[repr(u8)]
pub(crate) enum PeerProtocol {
    /// sigver 1 to 3.
    Sigver1,
    /// sigver 4 and 5.
    Sigver5,
    /// netflux 0.10.3 and similar.
    Netflux0,
    /// netflux 0.10.8 to 1.0. Also netflux 1.1.0-beta.0 to beta.5 and sigver 6, which look the same when they
    /// enter and of which no published client still runs.
    Netflux1,
    /// netflux 1.1.0-beta.7 to 2.0.
    Netflux2,
    /// netflux 2.1 and 3.0.
    Netflux3,
    /// netflux 4.
    Netflux4,
}

/// Encoding and order of the first messages that several dialects share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, EnumString, IntoStaticStr, VariantArray)]
pub enum Family {
    /// JSON in text frames; the key is in a message.
    #[strum(serialize = "json")]
    Json,
    /// Protobuf in binary frames; the key is the path; the server sends first.
    #[strum(serialize = "protobuf-v1")]
    ProtobufV1,
    /// Protobuf in binary frames; the key is the path; the client sends first.
    #[strum(serialize = "protobuf-v2")]
    ProtobufV2,
}

/// Error of a name that is no release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unknown release")]
pub struct UnknownRelease;

/// Returns the parts of a version number; missing ones are 0.
fn parts(version: &str) -> Option<[u32; 3]> {
    let mut parts = [0; 3];
    let mut numbers = version.split('.');
    for (part, number) in parts.iter_mut().zip(&mut numbers) {
        *part = number.parse().ok()?;
    }
    numbers.next().is_none().then_some(parts)
}

/// Returns true if the version number has all of its parts.
fn is_complete(version: &str) -> bool {
    version.split('.').count() == 3
}

/// Returns all variants as an array.
const fn all<T: Copy, const N: usize>(variants: &[T]) -> [T; N] {
    match variants.first_chunk() {
        Some(all) => *all,
        None => unreachable!(),
    }
}

impl Dialect {
    /// All dialects, oldest first.
    pub const ALL: [Dialect; Dialect::COUNT] = all(Dialect::VARIANTS);

    /// Returns the name, as `--protocol` takes it.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns the family of the dialect.
    pub fn family(self) -> Family {
        self.facts().family
    }

    /// Returns the release that is meant where only the dialect is named.
    pub fn release(self) -> Release {
        self.facts().release
    }

    /// Returns all releases of the dialect, oldest first.
    pub fn releases(self) -> impl Iterator<Item = Release> {
        Release::ALL.into_iter().filter(move |release| release.dialect() == self)
    }

    /// Returns the peer-to-peer protocol that its clients speak over an open data channel.
    pub(crate) fn peer_protocol(self) -> PeerProtocol {
        self.facts().peer_protocol
    }

    /// Returns the layout of its contents; `None` in JSON.
    pub fn content_layout(self) -> Option<ContentLayout> {
        self.facts().content_layout
    }

    /// Returns true if the server sends the first message of a connection.
    pub(crate) fn server_sends_first(self) -> bool {
        self.facts().server_sends_first
    }

    /// Returns the tag of payloads from a client of this dialect: its name, which does not change.
    pub const fn tag(self) -> SenderTag {
        let (major, minor) = self.facts().tag;
        SenderTag::new(major, minor)
    }

    /// Returns the dialect of a tag; `None` for the default tag.
    pub(crate) fn from_tag(tag: SenderTag) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|dialect| dialect.tag() == tag.of_dialect())
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl PeerProtocol {
    /// Returns the number of its rooms under a key: 1 or more.
    pub(crate) const fn partition_id(self) -> u8 {
        (self as u8).wrapping_add(1)
    }

    /// Returns the bit of the peer protocol in a set of them.
    pub(crate) const fn bit(self) -> u8 {
        1u8.wrapping_shl(self as u32)
    }
}

impl Family {
    /// All families, oldest first.
    pub const ALL: [Family; Family::COUNT] = all(Family::VARIANTS);

    /// Returns the name, as `--protocol` takes it.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns true if the room key is the path of the URL.
    pub(crate) const fn key_is_path(self) -> bool {
        match self {
            Family::Json => false,
            Family::ProtobufV1 | Family::ProtobufV2 => true,
        }
    }
}

impl Release {
    /// All releases, oldest first.
    pub const ALL: [Release; Release::COUNT] = all(Release::VARIANTS);

    /// The newest release.
    pub(crate) const LATEST: Release = Release::ALL[Release::COUNT - 1];

    /// Returns the dialect of the release.
    pub fn dialect(self) -> Dialect {
        self.facts().dialect
    }

    /// Returns the family of the release.
    pub fn family(self) -> Family {
        self.dialect().family()
    }

    /// Returns true if JSON is also accepted in binary frames (sigver 1 to 7).
    pub(crate) fn accepts_binary_json(self) -> bool {
        self.json().is_some_and(|json| json.opens_by_key)
    }

    /// Returns true if clients that are no members are asked, too, whether they are still connected.
    pub(crate) fn has_keepalive_of_joiners(self) -> bool {
        match &self.facts().family {
            FamilyFacts::Json(facts) => facts.keepalive_of_joiners,
            FamilyFacts::ProtobufV1(facts) => facts.keepalive_of_joiners,
            FamilyFacts::ProtobufV2(_) => true,
        }
    }

    /// Returns true if the server pings, and each ping has to be answered by a pong (sigver 12 to 15).
    pub(crate) fn pings(self) -> bool {
        matches!(self.keepalive(), Keepalive::PingPong { .. })
    }

    /// Returns true if field 4 is a ping, which the client answers with a pong in field 5 (sigver 15 from
    /// 15.0.1 on).
    pub(crate) fn has_protobuf_pong(self) -> bool {
        self.pings() && self.v1().is_some_and(|facts| facts.schema != V1Schema::V15_0_0)
    }

    /// Returns true if field 5 asks for another member (sigver 18).
    pub(crate) fn has_try_another(self) -> bool {
        self.v1().is_some_and(|facts| facts.try_another)
    }

    /// Returns the release of the same major version whose number is nearest; of two, the newer.
    fn nearest(version: &str) -> Option<Self> {
        let [major, minor, patch] = parts(version).filter(|_| is_complete(version))?;
        let distance = |known: [u32; 3]| (known[1].abs_diff(minor), known[2].abs_diff(patch));
        let distances = Release::ALL.into_iter().rev().filter_map(|release| {
            let known = release.versions().iter().filter_map(|known| parts(known));
            Some((known.filter(|known| known[0] == major).map(distance).min()?, release))
        });
        distances.min_by_key(|(distance, _)| *distance).map(|(_, release)| release)
    }

    /// Returns true if `name` is a complete version number that was never on npm: it names the release that
    /// is nearest to it.
    pub(crate) fn is_inexact(name: &str) -> bool {
        let version = name.strip_prefix("sigver-").unwrap_or(name);
        let is_known = Release::ALL.iter().any(|release| release.versions().contains(&version));
        !is_known && Release::nearest(version).is_some()
    }

    /// Returns the version number that names the release: its newest published one.
    pub fn version(self) -> &'static str {
        self.facts().version
    }

    /// Returns the version numbers that behave like this release, oldest first.
    pub fn versions(self) -> &'static [&'static str] {
        self.facts().versions
    }

    /// Returns the version numbers separated by commas, oldest first.
    pub(crate) fn version_list(self) -> String {
        self.versions().join(", ")
    }

    /// Returns how the release finds out that a peer is disconnected.
    pub(crate) fn keepalive(self) -> Keepalive {
        self.facts().keepalive
    }

    /// Returns the facts about a JSON release.
    pub(crate) fn json(self) -> Option<&'static JsonFacts> {
        match &self.facts().family {
            FamilyFacts::Json(facts) => Some(facts),
            FamilyFacts::ProtobufV1(_) | FamilyFacts::ProtobufV2(_) => None,
        }
    }

    /// Returns the facts about a release of sigver 15 to 18.
    pub(super) fn v1(self) -> Option<&'static V1Facts> {
        match &self.facts().family {
            FamilyFacts::ProtobufV1(facts) => Some(facts),
            FamilyFacts::Json(_) | FamilyFacts::ProtobufV2(_) => None,
        }
    }

    /// Returns the facts about a release of sigver 19 or newer.
    pub(super) fn v2(self) -> Option<&'static V2Facts> {
        match &self.facts().family {
            FamilyFacts::ProtobufV2(facts) => Some(facts),
            FamilyFacts::Json(_) | FamilyFacts::ProtobufV1(_) => None,
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sigver-{}", self.version())
    }
}

impl FromStr for Release {
    type Err = UnknownRelease;

    /// Parses `sigver-` and a version number, either complete (`sigver-17.0.0`) or its beginning
    /// (`sigver-17`), which names the newest release that begins so. A complete number that was never on npm
    /// names the nearest release.
    fn from_str(name: &str) -> Result<Self, UnknownRelease> {
        let version = name.strip_prefix("sigver-").ok_or(UnknownRelease)?;
        let exact = |release: &Release| release.versions().contains(&version);
        let begins = |known: &&str| known.strip_prefix(version).is_some_and(|rest| rest.starts_with('.'));
        let newest = || Release::ALL.into_iter().rev().find(|release| release.versions().iter().any(begins));
        let nearest = || Release::nearest(version);
        Release::ALL.into_iter().find(exact).or_else(newest).or_else(nearest).ok_or(UnknownRelease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(name: &str) -> Option<Release> {
        name.parse().ok()
    }

    #[test]
    fn every_version_names_its_release() {
        for known in Release::ALL {
            assert_eq!(release(&known.to_string()), Some(known));
            for version in known.versions() {
                assert_eq!(release(&format!("sigver-{version}")), Some(known), "{version}");
            }
        }
    }

    #[test]
    fn version_prefix_names_newest_release() {
        for (name, expected) in [
            ("sigver-15", Some(Release::V15_1_0)),
            ("sigver-15.0", Some(Release::V15_0_4)),
            ("sigver-17", Some(Release::V17_0_1)),
            ("sigver-20", Some(Release::V20_1_0)),
            ("sigver-1", Some(Release::V3_0_0)),
            ("sigver-7", Some(Release::V7_6_4)),
            ("sigver-7.1", Some(Release::V7_1_0)),
            ("sigver-9.0", Some(Release::V9_0_1)),
            ("sigver-12", Some(Release::V12_0_0)),
            ("sigver-15.0.0", Some(Release::V15_0_0)),
            ("sigver-21", Some(Release::V20_1_0)),
            // Of these, only tags exist.
            ("sigver-21.1.0", Some(Release::V20_1_0)),
            ("sigver-20.0.4", Some(Release::V20_0_2)),
            ("sigver-19.1.1", Some(Release::V19_1_2)),
            ("sigver-15.0.3", Some(Release::V15_0_4)),
            ("sigver-13.0.1", Some(Release::V14_0_0)),
            ("sigver-9.0.2", Some(Release::V9_0_1)),
            ("sigver-7.5.0", Some(Release::V7_6_4)),
            ("sigver-99.0.0", None),
            ("sigver-20.0.x", None),
            ("sigver-20.0.0.0", None),
            ("sigver-0", None),
            ("sigver-", None),
            ("20", None),
        ] {
            assert_eq!(release(name), expected, "{name}");
        }
    }

    #[test]
    fn tags_name_their_dialects() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::from_tag(dialect.tag()), Some(dialect));
            assert_eq!(dialect.tag().to_string(), dialect.name());
        }
        assert_eq!(Dialect::from_tag(SenderTag::default()), None);
        assert_eq!(Dialect::from_tag(SenderTag::new(u8::MAX, 0)), None);
    }

    #[test]
    fn versions_are_listed_oldest_first() {
        let numbers =
            |version: &str| -> Vec<u32> { version.split('.').map(|n| n.parse().unwrap()).collect() };
        for release in Release::ALL {
            assert!(release.versions().is_sorted_by_key(|version| numbers(version)), "{release}");
        }
        assert_eq!(Release::V3_0_0.version_list(), "1.0.0, 2.0.0, 3.0.0");
    }

    #[test]
    fn rows_agree_with_their_dialects() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.release().dialect(), dialect);
            let facts = dialect.facts();
            assert_eq!(facts.content_layout.is_none(), facts.family == Family::Json, "{dialect}");
        }
        for release in Release::ALL {
            let facts = release.facts();
            assert_eq!(
                facts.versions.iter().filter(|version| **version == facts.version).count(),
                1,
                "{release}"
            );
            let family = match facts.family {
                FamilyFacts::Json(_) => Family::Json,
                FamilyFacts::ProtobufV1(_) => Family::ProtobufV1,
                FamilyFacts::ProtobufV2(_) => Family::ProtobufV2,
            };
            assert_eq!(family, facts.dialect.family(), "{release}");
        }
    }

    #[test]
    fn priorities_are_a_total_order() {
        let mut priorities = Dialect::ALL.map(|dialect| usize::from(dialect.facts().priority));
        priorities.sort_unstable();
        assert!(priorities.into_iter().eq(0..Dialect::ALL.len()), "{priorities:?}");
    }
}
