//! The differences between sigver 7 and 14, folded over the releases that a client may speak.

use crate::protocol::dialect::{Dialect, Release, ReleaseSet};

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
    pub(super) likeliest: Release,
    pub(super) error_style: ErrorStyle,
    /// JSON is accepted in binary frames.
    pub(super) accepts_binary_json: Property,
    /// `{"key":K}` opens a room, keys may be of any type, and unknown members are ignored (up to 7.6).
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
    /// `first` tells an opener whether it is the only member (11).
    pub(super) counts_members: Property,
    /// Keepalive by `ping` and `pong` (13 and 14).
    pub(super) pings: Property,
    /// An opener answers all of its joiners at once (6).
    pub(super) sigver_6: Property,
    /// The oldest release with `refuses_keys`.
    pub(super) refusing_release: Option<Release>,
}

impl Capabilities {
    pub(super) fn new(releases: ReleaseSet, likeliest: Release) -> Self {
        let fold = |has: fn(Release) -> bool| Property {
            any: releases.iter().any(has),
            all: releases.iter().all(has),
        };
        let is_refusing = |release: Release| release < Release::V9_1_0;
        Capabilities {
            likeliest,
            error_style: if likeliest.dialect() == Dialect::Sigver7 {
                ErrorStyle::Sigver7
            } else if likeliest < Release::V8_0_2 {
                ErrorStyle::Sigver7_6
            } else if likeliest < Release::V11_0_0 {
                ErrorStyle::Sigver8
            } else {
                ErrorStyle::Sigver11
            },
            accepts_binary_json: fold(Release::takes_bytes),
            opens_by_key: fold(|release| release < Release::V8_0_2),
            joiner_index: fold(|release| release.dialect() == Dialect::Sigver7),
            confirms_open: fold(|release| release == Release::V7_6_4),
            confirms_keys: fold(|release| matches!(release.dialect(), Dialect::Sigver7_6 | Dialect::Sigver8)),
            refuses_keys: fold(is_refusing),
            numeric_ids: fold(|release| matches!(release.dialect(), Dialect::Sigver8 | Dialect::Sigver9)),
            closes_if_undeliverable: fold(|release| release.dialect() == Dialect::Sigver8),
            joiner_becomes_member: fold(|release| release.dialect() == Dialect::Sigver9),
            ignores_falsy_open: fold(|release| release < Release::V10_1_0),
            reports_undeliverable: fold(|release| release == Release::V10_1_0),
            string_ids: fold(|release| release >= Release::V11_0_0),
            counts_members: fold(|release| release == Release::V11_0_0),
            pings: fold(|release| release == Release::V14_0_0),
            sigver_6: fold(|release| release == Release::V6_0_0),
            refusing_release: releases.iter().find(|release| is_refusing(*release)),
        }
    }
}
