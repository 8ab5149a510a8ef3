//! The recordings in `golden/`, and the Node.js servers they were made from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::transcript::{self, Scenario};

/// A release of the Node.js server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// Version on npm.
    pub version: &'static str,
    /// Name of its dialect in the gateway.
    pub dialect: &'static str,
    /// Script that starts it, in its package.
    pub main: &'static str,
    /// True if its address is hard-coded, so that it needs `bind.js`.
    pub fixed_port: bool,
    /// True if a client can crash it, so that every scenario needs a server of its own.
    pub crashes: bool,
    /// Scenarios with a random choice, whose outcome may differ from the recorded one.
    pub random_choices: &'static [RandomChoice],
}

/// A scenario in which the server chooses a joiner's member at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomChoice {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Members among which the server chooses, if the choice has no further consequences: one may observe
    /// what another did in the recording. If empty, the scenario is played again until the choice matches
    /// the recording.
    pub members: &'static [&'static str],
}

const LOTS_OF_17: &[RandomChoice] = &[
    RandomChoice { scenario: "session", members: &[] },
    RandomChoice { scenario: "extra_joined_then_opener_leaves_then_all_leave", members: &[] },
    RandomChoice { scenario: "three_members_selection", members: &["O", "A", "B"] },
];

const fn original(version: &'static str, dialect: &'static str, main: &'static str) -> Original {
    Original { version, dialect, main, fixed_port: false, crashes: false, random_choices: &[] }
}

/// Returns a release whose port is hard-coded.
const fn fixed(version: &'static str, dialect: &'static str, main: &'static str) -> Original {
    Original { fixed_port: true, ..original(version, dialect, main) }
}

/// Every release that is compared, oldest first: each whose wire behaviour is not that of another.
pub const ORIGINALS: &[Original] = &[
    Original { crashes: true, ..fixed("3.0.0", "sigver-1", "server.js") },
    Original { crashes: true, ..fixed("4.0.0", "sigver-4", "server.js") },
    Original { crashes: true, ..fixed("5.0.0", "sigver-5", "server.js") },
    fixed("6.0.0", "sigver-6", "server.js"),
    fixed("7.0.0", "sigver-7", "server.js"),
    fixed("7.1.0", "sigver-7", "server.es5.js"),
    original("7.6.4", "sigver-7.6", "bin/index.es5.min.js"),
    original("8.0.2", "sigver-8", "server.js"),
    original("8.1.0", "sigver-8", "server.js"),
    original("9.1.0", "sigver-9", "server.js"),
    original("10.1.0", "sigver-9", "server.js"),
    original("11.0.0", "sigver-11", "server.js"),
    original("14.0.0", "sigver-13", "server.js"),
    original("15.0.1", "sigver-15", "server.js"),
    original("15.0.2", "sigver-15", "server.js"),
    original("15.0.4", "sigver-15", "server.js"),
    original("15.1.0", "sigver-15.1", "server.js"),
    original("16.0.0", "sigver-16", "server.js"),
    Original { random_choices: LOTS_OF_17, ..original("17.0.1", "sigver-16", "server.js") },
    original("18.0.0", "sigver-18", "server.js"),
    original("19.0.0", "sigver-19", "dist/server.js"),
    original("19.1.2", "sigver-19", "dist/server.js"),
    original("20.0.2", "sigver-20", "dist/server.js"),
    original("20.1.0", "sigver-20", "dist/server.js"),
];

impl Original {
    /// Returns the random choice of a scenario.
    pub fn random_choices(&self, scenario: &str) -> Option<RandomChoice> {
        self.random_choices.iter().find(|l| l.scenario == scenario).copied()
    }

    /// Finds a release by its version.
    pub fn find(version: &str) -> Result<&'static Original> {
        ORIGINALS.iter().find(|o| o.version == version).with_context(|| format!("no original {version}"))
    }
}

/// Returns the directory of this crate's data, which is part of its sources.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the directory of the recordings.
pub fn dir() -> PathBuf {
    root().join("golden")
}

/// Reads a transcript file.
pub fn read(path: &Path) -> Result<Vec<Scenario>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    transcript::parse(&text).with_context(|| path.display().to_string())
}

/// Returns all playable scenarios of a version, from `VERSION.jsonl` and every `VERSION-*.jsonl`.
pub fn load(dir: &Path, version: &str) -> Result<Vec<Scenario>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let rest = name.strip_prefix(version).and_then(|r| r.strip_suffix(".jsonl"));
        if rest.is_some_and(|r| r.is_empty() || r.starts_with('-')) {
            paths.push(dir.join(name));
        }
    }
    paths.sort();
    let mut scenarios = Vec::new();
    for path in paths {
        scenarios.extend(read(&path)?.into_iter().filter(Scenario::is_playable));
    }
    Ok(scenarios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goldens_survive_a_round_trip() {
        for file in std::fs::read_dir(dir()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e == "jsonl") {
                let text = std::fs::read_to_string(&path).unwrap();
                let printed = transcript::print(&read(&path).unwrap()).unwrap();
                for (a, b) in printed.lines().zip(text.lines()) {
                    assert_eq!(a, b, "{}", path.display());
                }
                assert_eq!(printed.len(), text.len(), "{}", path.display());
            }
        }
    }

    #[test]
    fn every_golden_is_of_a_release_that_is_compared() {
        for file in std::fs::read_dir(dir()).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let Some(version) = name.strip_suffix(".jsonl") else { continue };
            let version = version.split('-').next().unwrap();
            assert!(Original::find(version).is_ok(), "ORIGINALS has no row of {version}");
        }
    }

    #[test]
    fn every_release_has_playable_goldens() {
        for original in ORIGINALS {
            let scenarios = load(&dir(), original.version).unwrap();
            assert!(scenarios.len() >= 18, "{} has {}", original.version, scenarios.len());
            assert!(scenarios.iter().all(|s| s.version == original.version));
            for random_choices in original.random_choices {
                assert!(scenarios.iter().any(|s| s.name == random_choices.scenario), "{random_choices:?}");
            }
        }
    }
}
