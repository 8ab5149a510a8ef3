//! `exceptions.toml`: the differences we mean, one entry for each, matched against what a comparison found.
//!
//! An entry must be as narrow as the difference it names, and it must be needed: one that matches nothing in a full
//! run is stale, which is an error where it does not hang on the speed of the machine.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::compare::{Difference, Kind};
use crate::transcript::glob;

/// How our server was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Told to be this one version.
    Pinned,
    /// Left to find out.
    Auto,
}

impl Mode {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Pinned => "pinned",
            Mode::Auto => "auto",
        }
    }
}

/// In which modes an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modes {
    /// Only when pinned.
    Pinned,
    /// Only in auto mode.
    Auto,
    /// In both, and it must be needed in both.
    Both,
}

impl Modes {
    /// The modes as a list.
    pub fn list(self) -> &'static [Mode] {
        match self {
            Modes::Pinned => &[Mode::Pinned],
            Modes::Auto => &[Mode::Auto],
            Modes::Both => &[Mode::Pinned, Mode::Auto],
        }
    }
}

/// One listed difference.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The id in the table of `docs/reference/differences.md`. Several entries may share one.
    pub id: String,
    /// Why we differ, in a few words.
    pub why: String,
    /// The originals it is about. It must be needed for each.
    pub versions: Vec<String>,
    /// The modes it is about.
    pub mode: Modes,
    /// The scenarios it is about. It must be needed in each.
    pub scenarios: Vec<String>,
    /// The client that sees it (`server` for the server process); any if absent.
    pub peer: Option<String>,
    /// The step, from 1; any if absent.
    pub step: Option<usize>,
    /// `missing`, `extra`, `changed`, `time` or `server`; any if absent.
    pub kind: Option<String>,
    /// What the report prints as expected, `*` for any characters; anything if absent.
    pub expected: Option<String>,
    /// What the report prints as actual, `*` for any characters; anything if absent.
    pub actual: Option<String>,
}

/// A documented difference that no script shows, and the test that does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// The id in the table of the documentation.
    pub id: String,
    /// Where it is tested.
    pub test: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    exception: Vec<Exception>,
    #[serde(default)]
    elsewhere: Vec<Elsewhere>,
}

/// What an entry was needed for: its index, the mode, the version and the scenario.
type Use = (usize, Mode, String, String);

/// The listed exceptions, and which of them were needed so far.
#[derive(Clone, Debug, Default)]
pub struct Exceptions {
    entries: Vec<Exception>,
    elsewhere: Vec<Elsewhere>,
    used: BTreeSet<Use>,
}

impl Exception {
    fn covers(&self, mode: Mode, version: &str, scenario: &str, difference: &Difference) -> bool {
        let fits = |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|p| glob(p, text));
        self.mode.list().contains(&mode)
            && self.versions.iter().any(|v| v == version)
            && self.scenarios.iter().any(|s| s == scenario)
            && fits(&self.peer, &difference.peer)
            && self.step.is_none_or(|s| s == difference.step)
            && fits(&self.kind, difference.kind.name())
            && fits(&self.expected, &difference.expected)
            && fits(&self.actual, &difference.actual)
    }
}

impl Exceptions {
    /// Parses the file's text.
    pub fn parse(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text)?;
        for entry in &file.exception {
            let narrow = entry.expected.is_some() || entry.actual.is_some();
            if !narrow || entry.versions.is_empty() || entry.scenarios.is_empty() || entry.why.is_empty() {
                bail!(
                    "{}: an exception names versions, scenarios, a reason, and what is expected or actual",
                    entry.id
                );
            }
        }
        Ok(Self { entries: file.exception, elsewhere: file.elsewhere, used: BTreeSet::new() })
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// The listed differences.
    pub fn entries(&self) -> &[Exception] {
        &self.entries
    }

    /// The documented differences that no script shows.
    pub fn elsewhere(&self) -> &[Elsewhere] {
        &self.elsewhere
    }

    /// All ids in the file.
    pub fn ids(&self) -> BTreeSet<&str> {
        let listed = self.entries.iter().map(|e| e.id.as_str());
        listed.chain(self.elsewhere.iter().map(|e| e.id.as_str())).collect()
    }

    /// Whether an exception covers this difference. Nothing counts as needed by that.
    pub fn lists(&self, mode: Mode, version: &str, scenario: &str, difference: &Difference) -> bool {
        self.entries.iter().any(|entry| entry.covers(mode, version, scenario, difference))
    }

    /// The id of an exception that covers this difference. Every entry that does counts as needed.
    pub fn cover(
        &mut self,
        mode: Mode,
        version: &str,
        scenario: &str,
        difference: &Difference,
    ) -> Option<&str> {
        let mut found = None;
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.covers(mode, version, scenario, difference) {
                self.used.insert((index, mode, version.to_owned(), scenario.to_owned()));
                found = found.or(Some(entry.id.as_str()));
            }
        }
        found
    }

    /// After a full run in these modes: which entries were not needed, and for what.
    pub fn stale(&self, modes: &[Mode]) -> Vec<Stale> {
        let mut stale = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            for mode in entry.mode.list().iter().filter(|m| modes.contains(m)) {
                let used: Vec<&Use> = self.used.iter().filter(|u| (u.0, u.1) == (index, *mode)).collect();
                let versions = entry.versions.iter().filter(|v| !used.iter().any(|u| u.2 == **v));
                let scenarios = entry.scenarios.iter().filter(|s| !used.iter().any(|u| u.3 == **s));
                let not_needed =
                    versions.map(|v| format!("for {v}")).chain(scenarios.map(|s| format!("in {s}")));
                stale.extend(not_needed.map(|what| Stale {
                    line: format!("{} (entry {}): not needed {what}, {}", entry.id, index + 1, mode.name()),
                    certain: *mode == Mode::Pinned && entry.kind.as_deref() != Some(Kind::Time.name()),
                }));
            }
        }
        stale
    }
}

/// Something an entry says that a full run did not need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Which entry, and for what.
    pub line: String,
    /// It never is needed. Otherwise it may be on a machine of another speed: in auto mode, and where times are
    /// compared, what happens hangs on when it happens.
    pub certain: bool,
}

/// The ids in the first column of the tables of a Markdown text (`| C03 | ...`).
pub fn documented_ids(markdown: &str) -> BTreeSet<&str> {
    // An anchor may stand before the id.
    let id = |cell: &'_ str| cell.rfind('>').map_or(0, |end| end + 1);
    let first = markdown.lines().filter_map(|l| l.trim().strip_prefix('|')?.split('|').next());
    let first = first.map(|cell| &cell[id(cell)..]);
    let is_id = |id: &&str| {
        let digits = id.strip_prefix('C').unwrap_or_default();
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
    };
    first.map(str::trim).filter(is_id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference() -> Difference {
        Difference {
            step: 2,
            action: "O sends x".into(),
            peer: "O".into(),
            kind: Kind::Changed,
            expected: "close 1006 ".into(),
            actual: "close 1003 Server accepts only JSON".into(),
        }
    }

    fn entry(more: &str) -> String {
        format!(
            "[[exception]]\nid = 'C03'\nwhy = 'it crashed'\nversions = ['5.0.0']\nmode = 'both'\n\
             scenarios = ['bad_json']\nexpected = 'close 1006 *'\n{more}\n"
        )
    }

    fn covers(text: &str, mode: Mode, version: &str, scenario: &str) -> bool {
        Exceptions::parse(text).unwrap().cover(mode, version, scenario, &difference()).is_some()
    }

    #[test]
    fn an_entry_covers_what_it_names_and_nothing_else() {
        assert!(covers(&entry(""), Mode::Pinned, "5.0.0", "bad_json"));
        assert!(!covers(&entry(""), Mode::Pinned, "15.0.1", "bad_json"));
        assert!(!covers(&entry(""), Mode::Pinned, "5.0.0", "json_null"));
        assert!(covers(&entry("peer = 'O'\nstep = 2\nkind = 'changed'"), Mode::Auto, "5.0.0", "bad_json"));
        for other in ["peer = 'J'", "step = 3", "kind = 'missing'", "actual = 'close 1007 *'"] {
            assert!(!covers(&entry(other), Mode::Pinned, "5.0.0", "bad_json"), "{other}");
        }
        let auto = entry("").replace("both", "auto");
        assert!(!covers(&auto, Mode::Pinned, "5.0.0", "bad_json"));
    }

    #[test]
    fn entries_that_say_too_little_are_refused() {
        assert!(Exceptions::parse(&entry("").replace("expected = 'close 1006 *'", "")).is_err());
        assert!(Exceptions::parse(&entry("").replace("['5.0.0']", "[]")).is_err());
        assert!(Exceptions::parse(&entry("colour = 1")).is_err());
    }

    #[test]
    fn what_was_not_needed_is_stale() {
        let mut list = Exceptions::parse(&entry("")).unwrap();
        let modes = [Mode::Pinned, Mode::Auto];
        assert_eq!(list.stale(&modes).len(), 4);
        assert_eq!(list.cover(Mode::Pinned, "5.0.0", "bad_json", &difference()), Some("C03"));
        assert_eq!(list.stale(&modes).len(), 2);
        assert!(list.stale(&modes).iter().all(|stale| !stale.certain));
        assert_eq!(list.stale(&[Mode::Pinned]), []);
    }

    #[test]
    fn globs() {
        for (pattern, text) in [("a*c", "abc"), ("*", ""), ("a*b*", "axxbyy"), ("é*", "éx"), ("abc", "abc")]
        {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*c", "abd"), ("", "x"), ("ab", "abc")] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn ids_are_read_from_tables() {
        let ids = documented_ids(
            "# Title\n| id | what |\n|---|---|\n| <a id=\"c03\"></a>C03 | crash |\n  |C12| x |\n| Cx | y |\nC99\n",
        );
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["C03", "C12"]);
    }
}
