//! The differences between sigver 7 and 14, folded over the releases that a client may speak.

use crate::protocol::dialect::keepalive::Keepalive;
use crate::protocol::dialect::release::{Confirmation, JoinerId, JsonCodec, JsonFacts, UnknownJoiner};
use crate::protocol::dialect::{Release, ReleaseSet};
use crate::protocol::model::SenderTag;

/// A property of releases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Property {
    /// At least one release has it.
    pub(super) any: bool,
    /// All releases have it.
    pub(super) all: bool,
}

/// The release in whose form errors are reported: the most likely one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ErrorStyle {
    /// 7.0 and 7.1.
    Sigver7,
    /// 7.6, and 6 until it is recognized.
    Sigver7_6,
    /// 8 to 10.
    Sigver8,
    /// 11 to 14.
    Sigver11,
}

/// The differences between the releases that a client may speak.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capabilities {
    pub(super) most_likely: Release,
    /// The mark of the client's payloads.
    pub(super) sender: SenderTag,
    pub(super) error_style: ErrorStyle,
    pub(super) most_likely_joiner: Option<UnknownJoiner>,
    /// `{"key":K}` opens a room, keys may be of any type, unknown members are ignored, and JSON is accepted
    /// in binary frames (up to 7.6).
    pub(super) opens_by_key: Property,
    /// Joiners are known by their index (7.0 and 7.1).
    pub(super) joiner_index: Property,
    /// `{"key":K}` is answered with `isKeyOk` (7.6).
    pub(super) confirms_open: Property,
    /// `{"join":K}` is answered with `isKeyOk` (7.6 and 8).
    pub(super) confirms_keys: Property,
    /// A taken key cannot be opened and an unknown one cannot be joined (up to 8).
    pub(super) refuses_keys: Property,
    /// Ids are numbers (8 to 10).
    pub(super) numeric_ids: Property,
    /// An opener whose joiner has disconnected is closed (8).
    pub(super) closes_if_undeliverable: Property,
    /// The first to join a room becomes its member and is answered with `opened` (9 and 10).
    pub(super) joiner_becomes_member: Property,
    /// `{"open":K}` without a key is ignored (up to 9).
    pub(super) ignores_falsy_open: Property,
    /// An id that is no joiner's is answered with `unavailable` (10).
    pub(super) reports_undeliverable: Property,
    /// Requests are answered with `first`, and ids are strings (from 11).
    pub(super) string_ids: Property,
    /// `first` reports to an opener whether it is the only member (11).
    pub(super) counts_members: Property,
    /// Keepalive by `ping` and `pong` (from 12).
    pub(super) pings: Property,
    /// Every client is pinged, and not openers only (from 13).
    pub(super) pings_joiners: Property,
    /// An opener answers all of its joiners at once (6).
    pub(super) sigver_6: Property,
    /// The oldest release with `refuses_keys`.
    pub(super) refusing_release: Option<Release>,
}

impl Capabilities {
    pub(super) fn new(releases: ReleaseSet, most_likely: Release) -> Self {
        let fold = |has: fn(Release, &JsonFacts) -> bool| {
            let has = |release: Release| release.json().is_some_and(|facts| has(release, facts));
            Property { any: releases.any(has), all: releases.all(has) }
        };
        let refuses_keys = |release: &Release| release.json().is_some_and(|facts| facts.refuses_keys);
        Capabilities {
            most_likely,
            sender: most_likely.dialect().tag().with_peer_protocols(releases.uncertain_peer_protocols()),
            error_style: most_likely.json().map_or(ErrorStyle::Sigver11, ErrorStyle::new),
            most_likely_joiner: most_likely.json().map(|facts| facts.unknown_joiner),
            opens_by_key: fold(|_, facts| facts.opens_by_key),
            joiner_index: fold(|_, facts| has_joiner_index(facts)),
            confirms_open: fold(|_, facts| facts.confirmation == Confirmation::IsKeyOk && facts.opens_by_key),
            confirms_keys: fold(|_, facts| facts.confirmation == Confirmation::IsKeyOk),
            refuses_keys: fold(|_, facts| facts.refuses_keys),
            numeric_ids: fold(|_, facts| facts.joiner_id == JoinerId::Number && !facts.opens_by_key),
            closes_if_undeliverable: fold(|_, facts| facts.unknown_joiner == UnknownJoiner::CloseUnavailable),
            joiner_becomes_member: fold(|_, facts| facts.confirmation == Confirmation::Opened),
            ignores_falsy_open: fold(|_, facts| facts.ignores_falsy_open),
            reports_undeliverable: fold(|_, facts| facts.unknown_joiner == UnknownJoiner::Unavailable),
            string_ids: fold(|_, facts| facts.joiner_id == JoinerId::Hex),
            counts_members: fold(|_, facts| facts.confirmation == Confirmation::FirstOpener),
            pings: fold(|release, _| release.keepalive() != Keepalive::None),
            pings_joiners: fold(|_, facts| facts.keepalive_of_joiners),
            sigver_6: fold(|_, facts| facts.codec == JsonCodec::V6),
            refusing_release: releases.iter().find(refuses_keys),
        }
    }
}

impl Capabilities {
    /// Returns the keepalive, if all releases have one.
    pub(super) fn keepalive(&self) -> Keepalive {
        if self.pings.all { self.most_likely.keepalive() } else { Keepalive::None }
    }
}

/// Returns true if joiners of a release of this codec are known by their index.
fn has_joiner_index(facts: &JsonFacts) -> bool {
    facts.codec == JsonCodec::V7To14 && facts.joiner_id == JoinerId::Index
}

impl ErrorStyle {
    fn new(facts: &JsonFacts) -> Self {
        match facts.joiner_id {
            JoinerId::Hex => ErrorStyle::Sigver11,
            _ if has_joiner_index(facts) => ErrorStyle::Sigver7,
            _ if facts.opens_by_key => ErrorStyle::Sigver7_6,
            JoinerId::None | JoinerId::Index | JoinerId::Number => ErrorStyle::Sigver8,
        }
    }
}
