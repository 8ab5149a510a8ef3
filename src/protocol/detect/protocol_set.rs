//! The protocols that a gateway serves, as `--protocol` names them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::protocol::dialect::{Dialect, Family, Release, ReleaseSet};

/// Name of the protocol of signallerd.
const SIGNALLER: &str = "signaller";
/// Name of all dialects and the signaller protocol.
const AUTO: &str = "auto";
/// Family names of earlier versions, and the family that each stands for.
const ALIASES: [(&str, Family); 1] = [("current", Family::ProtobufV2)];

/// Protocols that a gateway serves. By default all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtocolSet {
    /// Releases of sigver: at most one of each dialect.
    pub releases: ReleaseSet,
    /// True if the signaller protocol is served.
    pub signaller: bool,
}

/// An invalid list of protocols.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolSetError {
    /// The list has a name that does not exist.
    #[error("unknown protocol '{0}'; known are {names}", names = names().join(", "))]
    Unknown(String),
    /// The list has two releases of one dialect, whose clients send the same frames.
    #[error("{0} and {1} are both {dialect}: their clients cannot be distinguished", dialect = .0.dialect())]
    SameDialect(Release, Release),
    /// The list is empty.
    #[error("no protocol is named; known are {names}", names = names().join(", "))]
    Empty,
}

impl ProtocolSet {
    /// Returns a line for each exact release of a list that was never on npm: it names the nearest one.
    pub(crate) fn warnings(list: &str) -> Vec<String> {
        let names = list.split(',').map(str::trim).filter(|name| Release::is_inexact(name));
        let warning = |name: &str| {
            let nearest: Release = name.parse().ok()?;
            Some(format!("warning: {name} was never on npm; its nearest release, {nearest}, is served"))
        };
        names.filter_map(warning).collect()
    }

    /// Returns true if no release of sigver is served.
    pub(crate) fn is_signaller_only(&self) -> bool {
        self.releases.is_empty()
    }
}

impl Default for ProtocolSet {
    fn default() -> Self {
        ProtocolSet { releases: Dialect::ALL.into_iter().map(Dialect::release).collect(), signaller: true }
    }
}

/// Parses a list of names with commas: `auto`, a family, a dialect, a release, `signaller`. A more precise
/// name replaces a less precise one: `auto,sigver-17.0.1` is `auto` with that variant of sigver-16.
impl FromStr for ProtocolSet {
    type Err = ProtocolSetError;

    fn from_str(list: &str) -> Result<Self, ProtocolSetError> {
        let mut signaller = false;
        let mut dialects = Vec::new();
        let mut exact: Vec<Release> = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == AUTO {
                signaller = true;
                dialects.extend(Dialect::ALL);
            } else if name == SIGNALLER {
                signaller = true;
            } else if let Some(family) = family(name) {
                dialects.extend(Dialect::ALL.into_iter().filter(|dialect| dialect.family() == family));
            } else if let Some(dialect) = Dialect::ALL.into_iter().find(|dialect| dialect.name() == name) {
                dialects.push(dialect);
            } else if let Ok(release) = name.parse::<Release>() {
                let other = exact.iter().find(|other| other.dialect() == release.dialect());
                if let Some(other) = other.filter(|other| **other != release) {
                    return Err(ProtocolSetError::SameDialect(*other, release));
                }
                exact.push(release);
            } else {
                return Err(ProtocolSetError::Unknown(name.to_owned()));
            }
        }
        dialects.retain(|dialect| !exact.iter().any(|release| release.dialect() == *dialect));
        let releases: ReleaseSet = dialects.into_iter().map(Dialect::release).chain(exact).collect();
        if releases.is_empty() && !signaller {
            return Err(ProtocolSetError::Empty);
        }
        Ok(ProtocolSet { releases, signaller })
    }
}

/// Writes a list that parses to the same set.
impl fmt::Display for ProtocolSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == ProtocolSet::default() {
            return f.write_str(AUTO);
        }
        match (self.releases.is_empty(), self.signaller) {
            (true, _) => f.write_str(SIGNALLER),
            (false, true) => write!(f, "{},{SIGNALLER}", self.releases),
            (false, false) => write!(f, "{}", self.releases),
        }
    }
}

fn family(name: &str) -> Option<Family> {
    let alias = ALIASES.into_iter().find(|(alias, _)| *alias == name).map(|(_, family)| family);
    alias.or_else(|| Family::ALL.into_iter().find(|family| family.name() == name))
}

/// Returns the names that a list may have, for an error text.
fn names() -> Vec<&'static str> {
    let families = Family::ALL.into_iter().map(Family::name);
    let dialects = Dialect::ALL.into_iter().map(Dialect::name);
    let last = [SIGNALLER, "and releases such as sigver-15.0.4"];
    [AUTO].into_iter().chain(families).chain(dialects).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        let releases = |list: &str| list.parse::<ProtocolSet>().map(|set| set.releases.to_string());
        assert!(releases("current").unwrap().starts_with("sigver-19.1.2,sigver-20.1.0"));
        assert_eq!(releases("protobuf-v2"), releases("current"));
        assert_eq!(releases("sigver-18").unwrap(), "sigver-18.0.0");
        assert_eq!(releases("sigver-15.0.4, sigver-17").unwrap(), "sigver-15.0.4,sigver-17.0.1");
        assert_eq!(
            releases("protobuf-v1,sigver-17.0.0").unwrap(),
            "sigver-15.0.4,sigver-15.1.0,sigver-17.0.1,sigver-18.0.0"
        );
        let auto: ProtocolSet = "auto".parse().unwrap();
        assert_eq!((auto, auto.releases.len()), (ProtocolSet::default(), Dialect::ALL.len()));
        let signaller: ProtocolSet = "signaller".parse().unwrap();
        assert!(signaller.signaller && signaller.is_signaller_only());
        for (list, expected) in [
            ("auto,sigver-17.0.1", true),
            ("sigver-20,signaller", true),
            ("sigver-20", false),
            ("json,protobuf-v1,protobuf-v2", false),
        ] {
            let set: ProtocolSet = list.parse().unwrap();
            assert_eq!(set.signaller, expected, "{list}");
            assert_eq!(set.to_string().parse(), Ok(set), "{list}");
        }
        assert_eq!((auto.to_string(), signaller.to_string()), ("auto".to_owned(), "signaller".to_owned()));
    }

    #[test]
    fn releases_that_were_never_on_npm_are_warned_about() {
        assert_eq!(
            ProtocolSet::warnings("auto, sigver-15.0.3,sigver-20.1.0,sigver-18,json"),
            ["warning: sigver-15.0.3 was never on npm; its nearest release, sigver-15.0.4, is served"]
        );
        let set: ProtocolSet = "sigver-21.1.0".parse().unwrap();
        assert_eq!(set.to_string(), "sigver-20.1.0");
    }

    #[test]
    fn invalid_lists_are_rejected() {
        for list in ["", ",", "sigver", "sigver-3.14", "AUTO", "sigver-15.0.1,sigver-15.0.2"] {
            assert!(list.parse::<ProtocolSet>().is_err(), "{list}");
        }
        let error = "sigver-99".parse::<ProtocolSet>().unwrap_err().to_string();
        assert!(error.contains("protobuf-v1, protobuf-v2, sigver-1, sigver-4"), "{error}");
        assert!(error.contains("sigver-19, sigver-20"), "{error}");
        assert!(error.ends_with(", signaller, and releases such as sigver-15.0.4"), "{error}");
    }
}
