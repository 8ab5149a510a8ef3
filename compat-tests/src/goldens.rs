//! The recordings in `golden/`, and the originals they were made from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::transcript::{self, Scenario};

/// One original release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// Its version on npm.
    pub version: &'static str,
    /// The dialect it speaks, by our name for it.
    pub dialect: &'static str,
    /// The script that starts it, in its package.
    pub main: &'static str,
    /// Whether its address is hard-coded, so that it needs `bind.js`.
    pub fixed_port: bool,
    /// Whether a client can crash it, so that every scenario needs an original of its own.
    pub crashes: bool,
    /// The scenarios in which it draws lots, so that a run may rightly differ from the recorded one.
    pub lots: &'static [Lots],
}

/// A scenario in which the server draws lots: which member a joiner gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lots {
    /// Its name.
    pub scenario: &'static str,
    /// The members among whom is drawn, if the outcome has no consequences: what one of them saw may have been seen
    /// by another. If empty, the scenario is played again until the lots fall as recorded.
    pub members: &'static [&'static str],
}

const LOTS_OF_17: &[Lots] = &[
    Lots { scenario: "session", members: &[] },
    Lots { scenario: "extra_joined_then_opener_leaves_then_all_leave", members: &[] },
    Lots { scenario: "three_members_selection", members: &["O", "A", "B"] },
];

const fn original(version: &'static str, dialect: &'static str, main: &'static str) -> Original {
    Original { version, dialect, main, fixed_port: false, crashes: false, lots: &[] }
}

/// A release whose port is hard-coded.
const fn fixed(version: &'static str, dialect: &'static str, main: &'static str) -> Original {
    Original { fixed_port: true, ..original(version, dialect, main) }
}

/// Every original that is compared, oldest first: each release whose behaviour on the wire is not that of another.
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
    Original { lots: LOTS_OF_17, ..original("17.0.1", "sigver-16", "server.js") },
    original("18.0.0", "sigver-18", "server.js"),
    original("19.0.0", "sigver-19", "dist/server.js"),
    original("19.1.2", "sigver-19", "dist/server.js"),
    original("20.0.2", "sigver-20", "dist/server.js"),
    original("20.1.0", "sigver-20", "dist/server.js"),
];

impl Original {
    /// The lots drawn in a scenario.
    pub fn lots(&self, scenario: &str) -> Option<Lots> {
        self.lots.iter().find(|l| l.scenario == scenario).copied()
    }

    /// Finds a release by its version.
    pub fn find(version: &str) -> Result<&'static Original> {
        ORIGINALS.iter().find(|o| o.version == version).with_context(|| format!("no original {version}"))
    }
}

/// The directory of this crate's data, which is part of its sources.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The directory of the recordings.
pub fn dir() -> PathBuf {
    root().join("golden")
}

/// Reads one transcript file.
pub fn read(path: &Path) -> Result<Vec<Scenario>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    transcript::parse(&text).with_context(|| path.display().to_string())
}

/// All recorded scenarios of one version that can be played, from `VERSION.jsonl` and every `VERSION-*.jsonl`.
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
    fn every_golden_prints_as_it_was_parsed() {
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
    fn every_original_has_goldens_that_can_be_played() {
        for original in ORIGINALS {
            let scenarios = load(&dir(), original.version).unwrap();
            assert!(scenarios.len() >= 18, "{} has {}", original.version, scenarios.len());
            assert!(scenarios.iter().all(|s| s.version == original.version));
            for lots in original.lots {
                assert!(scenarios.iter().any(|s| s.name == lots.scenario), "{lots:?}");
            }
        }
    }
}
