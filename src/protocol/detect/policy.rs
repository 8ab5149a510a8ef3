//! The configuration of detection: the releases that a client may speak, how long to wait for evidence, and the rooms.

use std::time::Duration;

use regex_lite::Regex;
use thiserror::Error;

use crate::protocol::dialect::{Dialect, Family, Release, ReleaseSet};

/// The configuration of detection.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The releases that a client may speak: at most one of each dialect.
    pub releases: ReleaseSet,
    /// Times to wait for evidence.
    pub windows: DetectionTimeouts,
    /// Session descriptions and candidates are translated between the generations.
    pub transcode: bool,
    /// The clients that meet under one key.
    pub rooms: RoomPolicy,
}

impl Policy {
    /// Returns the default policy for these releases.
    pub fn new(releases: ReleaseSet) -> Self {
        Policy { releases, windows: DetectionTimeouts::default(), transcode: true, rooms: RoomPolicy::Shared }
    }
}

/// The clients that meet under one key.
#[derive(Clone, Debug, Default)]
pub enum RoomPolicy {
    /// All of them.
    #[default]
    Shared,
    /// Those of one generation.
    Partitioned,
    /// Those of one generation under keys that match, and all of them under the others.
    PartitionedFor(Regex),
}

impl RoomPolicy {
    /// Returns the policy of rooms by generation under keys that the expression matches.
    ///
    /// # Errors
    /// The text is not a regular expression.
    pub fn partitioned_for(keys: &str) -> Result<Self, PolicyError> {
        Ok(RoomPolicy::PartitionedFor(Regex::new(keys)?))
    }

    /// Returns true if the key stands for several rooms.
    pub fn is_partitioned(&self, key: &str) -> bool {
        match self {
            RoomPolicy::Shared => false,
            RoomPolicy::Partitioned => true,
            RoomPolicy::PartitionedFor(keys) => keys.is_match(key),
        }
    }
}

/// An invalid part of the policy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Two releases of one dialect, which nothing on the wire tells apart.
    #[error("{first} and {second} are both {}: clients cannot be told apart", .second.dialect())]
    SameDialect {
        /// The release named first.
        first: Release,
        /// The release named later.
        second: Release,
    },
    /// A name of no protocol.
    #[error("unknown protocol '{0}'; known are {names}", names = protocol_names())]
    UnknownProtocol(String),
    /// A list without a name.
    #[error("no protocol is named; known are {}", protocol_names())]
    NoProtocol,
    /// An invalid expression for keys.
    #[error("not an expression for keys")]
    KeyExpression(#[from] regex_lite::Error),
}

/// Protocols named in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// Releases of sigver.
    pub releases: ReleaseSet,
    /// The protocol of signallerd is served, too.
    pub signaller: bool,
}

/// Name of the protocol of signallerd.
const SIGNALLER: &str = "signaller";

/// Times to wait for evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectionTimeouts {
    /// Time after the pong in which a client has to send its first frame, or is treated as one that waits for the server's.
    /// Longer: a slower page is not misjudged; shorter: clients of sigver 15 to 18 wait less.
    pub margin: Duration,
    /// Longest such time after the upgrade on a fast link. Without a pong, a silent client is sent the first frame after
    /// four times as long.
    pub silence: Duration,
    /// Time in which a client that has to send the first frame must do so, before it is closed.
    pub first_frame: Duration,
}

impl Default for DetectionTimeouts {
    fn default() -> Self {
        DetectionTimeouts {
            margin: Duration::from_millis(150),
            silence: Duration::from_millis(500),
            first_frame: Duration::from_secs(60),
        }
    }
}

impl Policy {
    /// Parses a list of protocols: `auto`, a family, a dialect, a release, or several of them with commas. A more precise
    /// name replaces a less precise one: `auto,sigver-17.0.1` is auto with that variant of sigver-16. The protocol of
    /// signallerd, `signaller`, is part of auto, and served where it is named.
    ///
    /// # Errors
    /// A name that does not exist, no name, or two releases of one dialect.
    pub fn parse(list: &str) -> Result<Protocols, PolicyError> {
        let mut signaller = false;
        let mut broad = Vec::new();
        let mut precise: Vec<Release> = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "auto" {
                signaller = true;
                broad.extend(Dialect::ALL);
            } else if name == SIGNALLER {
                signaller = true;
            } else if let Some(family) = Family::ALL.into_iter().find(|family| family.name() == name) {
                broad.extend(Dialect::ALL.into_iter().filter(|dialect| dialect.family() == family));
            } else if let Some(dialect) = Dialect::ALL.into_iter().find(|dialect| dialect.name() == name) {
                broad.push(dialect);
            } else if let Some(release) = name.strip_prefix("sigver-").and_then(Release::of_version) {
                if let Some(&other) = precise.iter().find(|other| other.dialect() == release.dialect())
                    && other != release
                {
                    return Err(PolicyError::SameDialect { first: other, second: release });
                }
                precise.push(release);
            } else {
                return Err(PolicyError::UnknownProtocol(name.to_owned()));
            }
        }
        let named = |dialect: &Dialect| precise.iter().any(|release| release.dialect() == *dialect);
        let rest = broad.iter().filter(|dialect| !named(dialect)).map(|dialect| dialect.release());
        let releases: ReleaseSet = rest.chain(precise.iter().copied()).collect();
        if releases.is_empty() && !signaller {
            return Err(PolicyError::NoProtocol);
        }
        Ok(Protocols { releases, signaller })
    }
}

/// Returns all names of protocols, for messages.
fn protocol_names() -> String {
    let families = Family::ALL.into_iter().map(|family| family.name().to_owned());
    let dialects = Dialect::ALL.into_iter().map(|dialect| dialect.name().to_owned());
    let (auto, signaller) = (std::iter::once("auto".to_owned()), std::iter::once(SIGNALLER.to_owned()));
    let names: Vec<String> = auto.chain(families).chain(dialects).chain(signaller).collect();
    format!("{}, and releases such as sigver-15.0.4", names.join(", "))
}
