//! What the operator allows: the releases a client may speak, and how long we wait for evidence.

use std::time::Duration;

use anyhow::{Result, bail};

use super::partition::RoomPolicy;
use crate::protocol::dialect::{Dialect, Family, Release, ReleaseSet};

/// What the operator allows.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The candidates at the beginning: at most one release of each dialect.
    pub releases: ReleaseSet,
    /// How long we wait.
    pub windows: DetectionTimeouts,
    /// Whether what builds a data channel is translated between the generations.
    pub transcode: bool,
    /// Who meets under one key.
    pub rooms: RoomPolicy,
}

impl Policy {
    /// Clients may speak these releases; all else is as it is by default.
    pub fn of(releases: ReleaseSet) -> Self {
        Policy { releases, windows: DetectionTimeouts::default(), transcode: true, rooms: RoomPolicy::Shared }
    }
}

/// What `--protocol` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// Releases of sigver.
    pub releases: ReleaseSet,
    /// The path relay of signaller, too.
    pub relay: bool,
}

/// The name of the path relay.
const RELAY: &str = "signaller";

/// How long we wait for evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectionTimeouts {
    /// After the client answered a WebSocket ping, how much longer it may take to say its first word before it is
    /// taken for one that waits for ours. Longer: a slower page is not misjudged; shorter: clients of sigver 15 to
    /// 18 wait less.
    pub margin: Duration,
    /// The window when the ping is not answered. Four times this long without an answer, a silent client is spoken
    /// to all the same.
    pub silence: Duration,
    /// How long a client may be silent before it is closed, if speaking first is up to it.
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
    /// Reads what `--protocol` takes: `auto`, a family, a dialect, a release, or several of them with commas.
    /// What is named more precisely replaces what is named less so: `auto,sigver-17.0.1` is auto with that inner
    /// variant of sigver-16. The path relay `signaller` is part of auto, and served where it is named.
    ///
    /// # Errors
    /// A name that does not exist, or two releases of one dialect, which nothing on the wire tells apart.
    pub fn parse(list: &str) -> Result<Protocols> {
        let mut relay = false;
        let mut broad = Vec::new();
        let mut precise: Vec<Release> = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "auto" {
                relay = true;
                broad.extend(Dialect::ALL);
            } else if name == RELAY {
                relay = true;
            } else if let Ok(family) = name.parse::<Family>() {
                broad.extend(Dialect::ALL.into_iter().filter(|dialect| dialect.family() == family));
            } else if let Ok(dialect) = name.parse() {
                broad.push(dialect);
            } else if let Ok(release) = name.parse::<Release>() {
                if let Some(other) = precise.iter().find(|other| other.dialect() == release.dialect())
                    && *other != release
                {
                    bail!(
                        "{other} and {release} are both {}: clients cannot be told apart",
                        release.dialect()
                    );
                }
                precise.push(release);
            } else {
                bail!("unknown protocol '{name}'; known are {}", known());
            }
        }
        let named = |dialect: &Dialect| precise.iter().any(|release| release.dialect() == *dialect);
        let rest = broad.iter().filter(|dialect| !named(dialect)).map(|dialect| dialect.release());
        let releases: ReleaseSet = rest.chain(precise.iter().copied()).collect();
        if releases.is_empty() && !relay {
            bail!("no protocol is named; known are {}", known());
        }
        Ok(Protocols { releases, relay })
    }
}

/// All that can be named, for people.
fn known() -> String {
    let families = Family::ALL.into_iter().map(|family| family.name().to_owned());
    let dialects = Dialect::ALL.into_iter().map(|dialect| dialect.name().to_owned());
    let (auto, relay) = (std::iter::once("auto".to_owned()), std::iter::once(RELAY.to_owned()));
    let names: Vec<String> = auto.chain(families).chain(dialects).chain(relay).collect();
    format!("{}, and releases such as sigver-15.0.4", names.join(", "))
}
