//! What was counted before, in a file, and what to make of what is counted now. Nothing is counted here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::scenario::{self, Part, Scenario};

/// How far a count may be from what was recorded, as a part of it. From run to run the same program differs by up to
/// 2.5 % (tables are hashed anew), and with changes elsewhere by up to 1.5 %, as the compiler then divides its work
/// otherwise; twelve runs of two builds, rustc 1.95.
pub const TOLERANCE: f64 = 0.05;

/// How many instructions it may be off beyond that, for the smallest of them.
pub const SLACK: u64 = 20;

/// Counts as they were recorded.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// What they depend on beside the code.
    pub made_with: String,
    /// By what the clients speak, and part.
    instructions: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What a count is beside the recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same, as far as that can be told.
    Same,
    /// More instructions than were recorded.
    Slower,
    /// Fewer.
    Faster,
    /// It was not recorded.
    New,
}

impl Baseline {
    /// Counts to be recorded.
    pub fn new(made_with: String, counts: &[(Scenario, u64)]) -> Self {
        let mut instructions: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for (scenario, count) in counts {
            let parts = instructions.entry(scenario.ends.to_string()).or_default();
            parts.insert(scenario.part.name().to_owned(), *count);
        }
        Baseline { made_with, instructions }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// It is not one of these.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("not a baseline")
    }

    /// Writes the file.
    pub fn write(&self) -> String {
        let mut text = format!(
            "# How many instructions each part of a relayed message takes, by the dialect of both clients,\n\
             # or by that of the member and that of the joiner.\n\
             # Written by `target/release/instructions --record`; compat-tests/hotpath/README.md says what the parts are.\n\
             made_with = \"{}\"\n\n[instructions]\n",
            self.made_with
        );
        for ends in scenario::ends() {
            let counted = |part: &Part| self.get(Scenario { ends, part: *part }).map(|count| (*part, count));
            let counts: Vec<String> = Part::ALL
                .iter()
                .filter_map(counted)
                .map(|(part, count)| format!("{} = {count}", part.name()))
                .collect();
            if !counts.is_empty() {
                // Writing to a string does not fail.
                let _ = writeln!(text, "\"{ends}\" = {{ {} }}", counts.join(", "));
            }
        }
        text
    }

    /// What was recorded of it.
    pub fn get(&self, scenario: Scenario) -> Option<u64> {
        self.instructions.get(&scenario.ends.to_string())?.get(scenario.part.name()).copied()
    }

    /// What a count is beside the recorded one.
    pub fn judge(&self, scenario: Scenario, count: u64) -> Verdict {
        let Some(before) = self.get(scenario) else { return Verdict::New };
        let room = SLACK + (before as f64 * TOLERANCE) as u64;
        match count {
            _ if count > before + room => Verdict::Slower,
            _ if count + room < before => Verdict::Faster,
            _ => Verdict::Same,
        }
    }
}

#[cfg(test)]
mod tests {
    use sigver::protocol::dialect::Dialect;

    use super::*;
    use crate::scenario::PAIRS;

    const DECODE: Scenario = Scenario::same(Dialect::Sigver20, Part::Decode);
    const JOIN: Scenario = Scenario::same(Dialect::Sigver7_6, Part::Join);
    const ACROSS: Scenario = Scenario { ends: PAIRS[0], part: Part::Up };

    #[test]
    fn what_is_written_is_read() {
        let baseline = Baseline::new("rustc 1".to_owned(), &[(DECODE, 1000), (JOIN, 7), (ACROSS, 9)]);
        assert_eq!(Baseline::parse(&baseline.write()).unwrap(), baseline);
    }

    #[test]
    fn small_differences_are_none() {
        let baseline = Baseline::new(String::new(), &[(DECODE, 1000)]);
        for (count, verdict) in [
            (1000, Verdict::Same),
            (1070, Verdict::Same),
            (1071, Verdict::Slower),
            (930, Verdict::Same),
            (929, Verdict::Faster),
        ] {
            assert_eq!(baseline.judge(DECODE, count), verdict, "{count}");
        }
        assert_eq!(baseline.judge(JOIN, 1), Verdict::New);
    }
}
