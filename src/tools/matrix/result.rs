//! What came out of it: per pair of dialects, how well they work together; and how that compares with an older result.
//! Nothing is measured here.

use std::fmt;

use serde_json::{Value, json};

use crate::tools::client::protocol::Protocol;

/// How well a pair works together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All that the one has words to say and the other to hear gets through.
    Ok,
    /// They work together, but this is lost.
    Degraded(Vec<String>),
    /// They do not, and why.
    Failed(String),
}

/// One pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairResult {
    /// What the member speaks; nobody is there in the negative control.
    pub member: Option<Protocol>,
    /// What the joiners speak.
    pub joiner: Protocol,
    /// How well it works.
    pub verdict: Verdict,
    /// What the joiner was told, in the negative control.
    pub told: Option<String>,
}

/// A whole matrix.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The server's URL, or what it is.
    pub server: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The pairs.
    pub cells: Vec<PairResult>,
    /// The negative control: joiners of keys that nobody has opened.
    pub control: Vec<PairResult>,
}

impl Verdict {
    /// The better the less.
    fn rank(&self) -> u8 {
        match self {
            Verdict::Ok => 0,
            Verdict::Degraded(_) => 1,
            Verdict::Failed(_) => 2,
        }
    }

    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Degraded(_) => "degraded",
            Verdict::Failed(_) => "failed",
        }
    }

    fn of_json(value: &Value) -> Option<Verdict> {
        Some(match value["result"].as_str()? {
            "ok" => Verdict::Ok,
            "degraded" => {
                let lost = value["lost"].as_array()?.iter();
                Verdict::Degraded(lost.filter_map(|lost| lost.as_str().map(str::to_owned)).collect())
            }
            "failed" => Verdict::Failed(value["why"].as_str().unwrap_or_default().to_owned()),
            _ => return None,
        })
    }

    /// What is worse than in `before`.
    fn worse_than(&self, before: &Verdict) -> Option<String> {
        match (self, before) {
            (Verdict::Degraded(now), Verdict::Degraded(then)) => {
                let new: Vec<&str> =
                    now.iter().filter(|lost| !then.contains(lost)).map(String::as_str).collect();
                (!new.is_empty()).then(|| format!("newly lost: {}", new.join("; ")))
            }
            _ => (self.rank() > before.rank()).then(|| format!("{self}, was {}", before.word())),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ok => f.write_str("ok"),
            Verdict::Degraded(lost) => write!(f, "degraded: {}", lost.join("; ")),
            Verdict::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

impl PairResult {
    /// Its name: `member:joiner`, `nobody:joiner` in the negative control.
    pub fn name(&self) -> String {
        format!("{}:{}", self.member.map_or("nobody", Protocol::name), self.joiner)
    }

    fn to_json(&self) -> Value {
        let mut object = json!({"member": self.member.map(Protocol::name), "joiner": self.joiner.name(),
            "result": self.verdict.word()});
        match &self.verdict {
            Verdict::Ok => {}
            Verdict::Degraded(lost) => object["lost"] = json!(lost),
            Verdict::Failed(why) => object["why"] = json!(why),
        }
        if let Some(told) = &self.told {
            object["told"] = json!(told);
        }
        object
    }

    fn of_json(value: &Value) -> Option<PairResult> {
        let member = match &value["member"] {
            Value::Null => None,
            name => Some(Protocol::of_name(name.as_str()?)?),
        };
        Some(PairResult {
            member,
            joiner: Protocol::of_name(value["joiner"].as_str()?)?,
            verdict: Verdict::of_json(value)?,
            told: value["told"].as_str().map(str::to_owned),
        })
    }
}

impl Outcome {
    /// For machines, and to be compared with later.
    pub fn to_json(&self) -> Value {
        let list = |cells: &[PairResult]| cells.iter().map(PairResult::to_json).collect::<Vec<_>>();
        json!({"server": self.server, "took_ms": self.took_ms, "cells": list(&self.cells),
            "control": list(&self.control)})
    }

    /// A result that was stored; `None` if it is none.
    pub fn of_json(value: &Value) -> Option<Outcome> {
        let list =
            |name: &str| value[name].as_array()?.iter().map(PairResult::of_json).collect::<Option<Vec<_>>>();
        Some(Outcome {
            server: value["server"].as_str().unwrap_or_default().to_owned(),
            took_ms: value["took_ms"].as_u64().unwrap_or_default(),
            cells: list("cells")?,
            control: list("control")?,
        })
    }

    /// All cells, the negative control included.
    pub fn all(&self) -> impl Iterator<Item = &PairResult> {
        self.cells.iter().chain(&self.control)
    }

    /// What failed.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.all().filter(|cell| matches!(cell.verdict, Verdict::Failed(_)));
        failed.map(|cell| format!("{}: {}", cell.name(), cell.verdict)).collect()
    }

    /// What is worse than in an older result. What either of them does not have is not compared, but a new pair must
    /// not fail.
    pub fn regressions(&self, before: &Outcome) -> Vec<String> {
        let mut found = Vec::new();
        for cell in self.all() {
            let then = before.all().find(|then| (then.member, then.joiner) == (cell.member, cell.joiner));
            let worse = match (then, &cell.verdict) {
                (Some(then), verdict) => verdict.worse_than(&then.verdict),
                (None, Verdict::Failed(_)) => Some(format!("{}, and was not measured before", cell.verdict)),
                (None, Verdict::Ok | Verdict::Degraded(_)) => None,
            };
            found.extend(worse.map(|worse| format!("{}: {worse}", cell.name())));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::Dialect;

    fn outcome(verdict: Verdict) -> Outcome {
        let (member, joiner) = (Protocol::Sigver(Dialect::Sigver5), Protocol::Sigver(Dialect::Sigver20));
        let cell = PairResult { member: Some(member), joiner, verdict, told: None };
        Outcome { server: "s".into(), took_ms: 1, cells: vec![cell], control: Vec::new() }
    }

    #[test]
    fn a_stored_result_is_the_same_again() {
        for verdict in
            [Verdict::Ok, Verdict::Degraded(vec!["a".into(), "b".into()]), Verdict::Failed("why".into())]
        {
            let before = outcome(verdict);
            let again = Outcome::of_json(&before.to_json()).unwrap();
            assert_eq!(again.cells, before.cells);
            assert!(again.regressions(&before).is_empty());
        }
        assert!(Outcome::of_json(&json!({"cells": [{"member": "x"}]})).is_none());
    }

    #[test]
    fn only_what_is_worse_is_a_regression() {
        let ok = outcome(Verdict::Ok);
        let lossy = outcome(Verdict::Degraded(vec!["a".into()]));
        let lossier = outcome(Verdict::Degraded(vec!["a".into(), "b".into()]));
        let failed = outcome(Verdict::Failed("why".into()));
        assert!(ok.regressions(&failed).is_empty() && lossy.regressions(&lossier).is_empty());
        assert_eq!(lossy.regressions(&ok), ["sigver-5:sigver-20: degraded: a, was ok"]);
        assert_eq!(lossier.regressions(&lossy), ["sigver-5:sigver-20: newly lost: b"]);
        assert_eq!(failed.regressions(&lossy).len(), 1);
    }

    #[test]
    fn a_pair_that_was_not_measured_before_must_not_fail() {
        let nothing = Outcome { cells: Vec::new(), ..outcome(Verdict::Ok) };
        assert!(outcome(Verdict::Degraded(vec!["a".into()])).regressions(&nothing).is_empty());
        assert_eq!(outcome(Verdict::Failed("why".into())).regressions(&nothing).len(), 1);
    }
}
