//! Intended differences from `exceptions.toml`, matched against those that a comparison found.
//!
//! An entry must be as narrow as its difference, and it must be needed: an entry that matches nothing in a
//! full run is an error, unless its need depends on the speed of the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::compare::{Difference, DifferenceKind};
use crate::transcript::glob;

/// Protocol selection of the gateway in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Pinned to one version.
    Pinned,
    /// Automatic detection.
    Auto,
}

impl Mode {
    /// Returns the mode's name.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Pinned => "pinned",
            Mode::Auto => "auto",
        }
    }
}

/// Modes in which an entry applies.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Modes {
    /// Pinned only.
    Pinned,
    /// Automatic detection only.
    Auto,
    /// Both, and it must be needed in both.
    #[default]
    #[serde(skip)]
    Both,
}

impl Modes {
    fn list(self) -> &'static [Mode] {
        match self {
            Modes::Pinned => &[Mode::Pinned],
            Modes::Auto => &[Mode::Auto],
            Modes::Both => &[Mode::Pinned, Mode::Auto],
        }
    }
}

/// An intended difference: one pair of versions and scenarios of an entry of the file.
#[derive(Clone, Debug)]
pub struct Exception {
    /// Id in the table of differences in the documentation. Several entries may share one.
    pub id: String,
    /// Versions concerned. The entry must be needed for each.
    pub versions: Vec<String>,
    /// Scenarios concerned. The entry must be needed in each.
    pub scenarios: Vec<String>,
    mode: Modes,
    kind: Kinds,
    expected: Option<String>,
    actual: Option<String>,
}

/// An entry of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    why: String,
    #[serde(default)]
    mode: Modes,
    kind: Option<Kinds>,
    expected: Option<String>,
    actual: Option<String>,
    #[serde(default)]
    versions: Vec<String>,
    #[serde(default)]
    scenarios: Vec<String>,
    #[serde(default)]
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    versions: Vec<String>,
    scenarios: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kinds {
    Any,
    #[serde(untagged)]
    One(DifferenceKind),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    exception: BTreeMap<String, Vec<Entry>>,
    #[serde(default)]
    elsewhere: BTreeMap<String, Vec<String>>,
}

impl Entry {
    /// Returns the entry's cases, each of which must be needed. The kind follows from the texts if absent.
    fn into_exceptions(mut self, id: &str) -> Result<Vec<Exception>> {
        let implied = match (&self.expected, &self.actual) {
            (Some(_), Some(_)) => DifferenceKind::Changed,
            (Some(_), None) => DifferenceKind::Missing,
            (None, Some(_)) => DifferenceKind::Extra,
            (None, None) => bail!("{id}: an exception names what is expected or actual"),
        };
        if self.cases.is_empty() {
            self.cases.push(Case { versions: self.versions, scenarios: self.scenarios });
        } else if !(self.versions.is_empty() && self.scenarios.is_empty()) {
            bail!("{id}: an exception has either cases or versions and scenarios");
        }
        if self.why.is_empty() || self.cases.iter().any(|c| c.versions.is_empty() || c.scenarios.is_empty()) {
            bail!("{id}: an exception names versions, scenarios and a reason");
        }
        let exception = |Case { versions, scenarios }| Exception {
            id: id.to_owned(),
            versions,
            scenarios,
            mode: self.mode,
            kind: self.kind.unwrap_or(Kinds::One(implied)),
            expected: self.expected.clone(),
            actual: self.actual.clone(),
        };
        Ok(self.cases.into_iter().map(exception).collect())
    }
}

/// A match of an entry: its index, the mode, the version and the scenario.
type Use = (usize, Mode, String, String);

/// All intended differences, and those that were needed so far.
#[derive(Clone, Debug, Default)]
pub struct Exceptions {
    entries: Vec<Exception>,
    elsewhere: BTreeMap<String, Vec<String>>,
    used: BTreeSet<Use>,
}

impl Exception {
    fn covers(&self, mode: Mode, version: &str, scenario: &str, difference: &Difference) -> bool {
        let fits = |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|p| glob(p, text));
        self.mode.list().contains(&mode)
            && self.versions.iter().any(|v| v == version)
            && self.scenarios.iter().any(|s| s == scenario)
            && matches!(self.kind, Kinds::Any) | matches!(self.kind, Kinds::One(k) if k == difference.kind)
            && fits(&self.expected, &difference.expected)
            && fits(&self.actual, &difference.actual)
    }
}

impl Exceptions {
    /// Parses the file's text.
    pub fn parse(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text)?;
        let mut entries = Vec::new();
        for (id, listed) in file.exception {
            for entry in listed {
                entries.extend(entry.into_exceptions(&id)?);
            }
        }
        Ok(Self { entries, elsewhere: file.elsewhere, used: BTreeSet::new() })
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Returns the intended differences.
    pub fn entries(&self) -> &[Exception] {
        &self.entries
    }

    /// Returns the files of the tests that show what no script does.
    pub fn elsewhere(&self) -> impl Iterator<Item = &String> {
        self.elsewhere.keys()
    }

    /// Returns all ids in the file.
    pub fn ids(&self) -> BTreeSet<&str> {
        let listed = self.entries.iter().map(|e| e.id.as_str());
        listed.chain(self.elsewhere.values().flatten().map(String::as_str)).collect()
    }

    /// Returns true if an entry covers this difference, without marking the entry as needed.
    pub fn lists(&self, mode: Mode, version: &str, scenario: &str, difference: &Difference) -> bool {
        self.entries.iter().any(|entry| entry.covers(mode, version, scenario, difference))
    }

    /// Returns the id of an entry that covers this difference. Every entry that does is marked as needed.
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

    /// Returns the entries that a full run in these modes did not need, with the cases.
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
                    certain: *mode == Mode::Pinned && !matches!(entry.kind, Kinds::One(DifferenceKind::Time)),
                }));
            }
        }
        stale
    }
}

/// A part of an entry that a full run did not need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The entry and the case.
    pub line: String,
    /// True if the entry is never needed. Otherwise it may be needed on a machine of another speed: timing
    /// matters in auto mode and where times are compared.
    pub certain: bool,
}

/// Returns the ids in the first column of a Markdown text's tables (`| C03 | ...`).
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
            kind: DifferenceKind::Changed,
            expected: "close 1006 ".into(),
            actual: "close 1003 Server accepts only JSON".into(),
        }
    }

    fn entry(more: &str) -> String {
        format!(
            "[[exception.C03]]\nwhy = 'it crashed'\nversions = ['5.0.0']\nscenarios = ['bad_json']\n\
             expected = 'close 1006 *'\nkind = 'any'\n{more}\n"
        )
    }

    fn covers(text: &str, mode: Mode, version: &str, scenario: &str) -> bool {
        Exceptions::parse(text).unwrap().cover(mode, version, scenario, &difference()).is_some()
    }

    #[test]
    fn entry_covers_only_its_difference() {
        assert!(covers(&entry(""), Mode::Pinned, "5.0.0", "bad_json"));
        assert!(!covers(&entry(""), Mode::Pinned, "15.0.1", "bad_json"));
        assert!(!covers(&entry(""), Mode::Pinned, "5.0.0", "json_null"));
        let of_kind = |kind| entry("").replace("any", kind);
        assert!(covers(&of_kind("changed"), Mode::Auto, "5.0.0", "bad_json"));
        let implied_missing = entry("").replace("kind = 'any'", "");
        for other in
            [implied_missing, of_kind("extra"), entry("actual = 'close 1007 *'"), entry("mode = 'auto'")]
        {
            assert!(!covers(&other, Mode::Pinned, "5.0.0", "bad_json"), "{other}");
        }
        let implied_changed = entry("actual = 'close 1003 *'").replace("kind = 'any'", "");
        assert!(covers(&implied_changed, Mode::Pinned, "5.0.0", "bad_json"));
    }

    #[test]
    fn cases_are_judged_one_by_one() {
        let cases = entry(
            "cases = [{ versions = ['4.0.0'], scenarios = ['a'] }, { versions = ['5.0.0'], scenarios = ['b'] }]",
        );
        assert!(Exceptions::parse(&cases).is_err(), "versions and scenarios, and cases too");
        let cases = cases.replace("versions = ['5.0.0']\nscenarios = ['bad_json']\n", "");
        let mut list = Exceptions::parse(&cases).unwrap();
        assert_eq!(list.cover(Mode::Pinned, "5.0.0", "a", &difference()), None);
        assert_eq!(list.cover(Mode::Pinned, "5.0.0", "b", &difference()), Some("C03"));
        assert_eq!(list.stale(&[Mode::Pinned]).len(), 2, "for 4.0.0 and in a");
    }

    #[test]
    fn entries_that_match_everything_are_rejected() {
        assert!(Exceptions::parse(&entry("").replace("expected = 'close 1006 *'", "")).is_err());
        assert!(Exceptions::parse(&entry("").replace("['5.0.0']", "[]")).is_err());
        assert!(Exceptions::parse(&entry("colour = 1")).is_err());
    }

    #[test]
    fn unneeded_entry_is_stale() {
        let mut list = Exceptions::parse(&entry("")).unwrap();
        let modes = [Mode::Pinned, Mode::Auto];
        assert_eq!(list.stale(&modes).len(), 4);
        assert_eq!(list.cover(Mode::Pinned, "5.0.0", "bad_json", &difference()), Some("C03"));
        assert_eq!(list.stale(&modes).len(), 2);
        assert!(list.stale(&modes).iter().all(|stale| !stale.certain));
        assert_eq!(list.stale(&[Mode::Pinned]), []);
    }

    #[test]
    fn star_matches_any_characters() {
        for (pattern, text) in [("a*c", "abc"), ("*", ""), ("a*b*", "axxbyy"), ("é*", "éx"), ("abc", "abc")]
        {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*c", "abd"), ("", "x"), ("ab", "abc")] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn ids_are_parsed_from_tables() {
        let ids = documented_ids(
            "# Title\n| id | what |\n|---|---|\n| <a id=\"c03\"></a>C03 | crash |\n  |C12| x |\n| Cx | y |\nC99\n",
        );
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["C03", "C12"]);
    }
}
