//! Recorded instruction counts, and their comparison with new ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::scenario::{self, Part, Scenario};

/// Accepted deviation from the record. The same program differs between runs, as maps are hashed with other
/// keys, and between builds, as the compiler divides its work differently.
pub const TOLERANCE: f64 = 0.05;

/// Accepted deviation in instructions beyond that, for the smallest counts.
pub const SLACK: u64 = 20;

/// A record of counts.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Compiler, valgrind and processor that the counts depend on.
    pub made_with: String,
    /// Counts by pair of dialects and part.
    instructions: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Verdict of a count against the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Equal within the tolerance.
    Same,
    /// More instructions than recorded.
    Slower,
    /// Fewer instructions than recorded.
    Faster,
    /// Not recorded.
    New,
}

impl Baseline {
    /// Returns a record of these counts.
    pub fn new(made_with: String, counts: &[(Scenario, u64)]) -> Self {
        let mut instructions: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for (scenario, count) in counts {
            let parts = instructions.entry(scenario.ends.to_string()).or_default();
            parts.insert(scenario.part.name().to_owned(), *count);
        }
        Baseline { made_with, instructions }
    }

    /// Parses a record.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("not a baseline")
    }

    /// Renders the record as TOML.
    pub fn write(&self) -> String {
        let mut text = format!(
            "# How many instructions each part of a relayed message takes, by the dialect of both clients,\n\
             # or by that of the member and that of the joiner.\n\
             # Written by `target/release/instructions --record`; compat-tests/hotpath/README.md describes the parts.\n\
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

    /// Returns the recorded count of a scenario.
    pub fn get(&self, scenario: Scenario) -> Option<u64> {
        self.instructions.get(&scenario.ends.to_string())?.get(scenario.part.name()).copied()
    }

    /// Compares a count with the record.
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
    fn record_survives_a_round_trip() {
        let baseline = Baseline::new("rustc 1".to_owned(), &[(DECODE, 1000), (JOIN, 7), (ACROSS, 9)]);
        assert_eq!(Baseline::parse(&baseline.write()).unwrap(), baseline);
    }

    #[test]
    fn differences_within_tolerance_are_ignored() {
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
