//! The result of a matrix: how well each pair of dialects works together, and how that compares with an older
//! result.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tools::client::protocol::Protocol;

/// The verdict on a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// Everything that both protocols can express arrives.
    Ok,
    /// The pair works together, with losses.
    Degraded {
        /// The losses.
        losses: Vec<String>,
    },
    /// The pair does not work together.
    Failed {
        /// The cause.
        reason: String,
    },
}

/// A member's and a joiner's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairId {
    /// The member's protocol; `None` in the negative control, in which the room has no member.
    pub member: Option<Protocol>,
    /// The joiners' protocol.
    pub joiner: Protocol,
}

/// The result of one pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairResult {
    /// The pair.
    #[serde(flatten)]
    pub pair: PairId,
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The server's answer to the joiner, in the negative control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// The result of a whole matrix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MatrixResult {
    /// The server's URL, or a description.
    pub server: String,
    /// Duration of the measurement, in milliseconds.
    pub duration_ms: u64,
    /// The pairs.
    pub pairs: Vec<PairResult>,
    /// The negative control: joiners of rooms without a member.
    pub control: Vec<PairResult>,
}

/// A pair that failed, or that is worse than expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFailure {
    /// The pair.
    pub pair: PairId,
    /// The failure.
    pub reason: String,
}

impl Verdict {
    /// Returns 0 for the best verdict.
    fn rank(&self) -> u8 {
        match self {
            Verdict::Ok => 0,
            Verdict::Degraded { .. } => 1,
            Verdict::Failed { .. } => 2,
        }
    }

    /// Returns the name of the verdict.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Degraded { .. } => "degraded",
            Verdict::Failed { .. } => "failed",
        }
    }

    /// Returns what is worse than in `before`.
    fn regression(&self, before: &Verdict) -> Option<String> {
        match (self, before) {
            (Verdict::Degraded { losses }, Verdict::Degraded { losses: known }) => {
                let new: Vec<&str> =
                    losses.iter().filter(|loss| !known.contains(loss)).map(String::as_str).collect();
                (!new.is_empty()).then(|| format!("newly lost: {}", new.join("; ")))
            }
            _ => (self.rank() > before.rank()).then(|| format!("{self}, was {}", before.name())),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ok => f.write_str("ok"),
            Verdict::Degraded { losses } => write!(f, "degraded: {}", losses.join("; ")),
            Verdict::Failed { reason } => write!(f, "failed: {reason}"),
        }
    }
}

impl fmt::Display for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.member.map_or("none", Protocol::name), self.joiner)
    }
}

impl fmt::Display for PairFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pair, self.reason)
    }
}

impl MatrixResult {
    /// Returns all pairs, the negative control included.
    pub fn all(&self) -> impl Iterator<Item = &PairResult> {
        self.pairs.iter().chain(&self.control)
    }

    /// Returns the pairs that failed.
    pub fn failures(&self) -> Vec<PairFailure> {
        let failed = self.all().filter(|result| matches!(result.verdict, Verdict::Failed { .. }));
        failed.map(|result| PairFailure { pair: result.pair, reason: result.verdict.to_string() }).collect()
    }

    /// Returns the pairs that are worse than in an older result. Pairs that only one of the results has are
    /// not compared, but a new pair must not fail.
    pub(crate) fn regressions(&self, before: &MatrixResult) -> Vec<PairFailure> {
        let mut found = Vec::new();
        for PairResult { pair, verdict, .. } in self.all() {
            let old = before.all().find(|old| old.pair == *pair);
            let reason = match (old, verdict) {
                (Some(old), verdict) => verdict.regression(&old.verdict),
                (None, Verdict::Failed { .. }) => Some(format!("{verdict}, and was not measured before")),
                (None, Verdict::Ok | Verdict::Degraded { .. }) => None,
            };
            found.extend(reason.map(|reason| PairFailure { pair: *pair, reason }));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::Dialect;

    fn result(verdict: Verdict) -> MatrixResult {
        let (member, joiner) = (Protocol::Sigver(Dialect::Sigver5), Protocol::Sigver(Dialect::Sigver20));
        let pair = PairId { member: Some(member), joiner };
        let pairs = vec![PairResult { pair, verdict, answer: None }];
        MatrixResult { server: "s".into(), duration_ms: 1, pairs, control: Vec::new() }
    }

    fn degraded(losses: &[&str]) -> Verdict {
        Verdict::Degraded { losses: losses.iter().map(|loss| (*loss).to_owned()).collect() }
    }

    fn failed() -> MatrixResult {
        result(Verdict::Failed { reason: "why".into() })
    }

    fn regressions(now: &MatrixResult, before: &MatrixResult) -> Vec<String> {
        now.regressions(before).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn stored_result_is_read_back() {
        for before in [result(Verdict::Ok), result(degraded(&["a", "b"])), failed()] {
            let text = serde_json::to_string(&before).unwrap();
            let again: MatrixResult = serde_json::from_str(&text).unwrap();
            assert_eq!(again.pairs, before.pairs);
            assert!(again.regressions(&before).is_empty());
        }
        let text = serde_json::to_string(&result(degraded(&["a"])).pairs).unwrap();
        let expected = r#"[{"member":"sigver-5","joiner":"sigver-20","verdict":"degraded","losses":["a"]}]"#;
        assert_eq!(text, expected);
        assert!(serde_json::from_str::<MatrixResult>(r#"{"pairs":[{"member":"x"}]}"#).is_err());
    }

    #[test]
    fn only_a_worse_verdict_is_a_regression() {
        let (ok, lossy, lossier) =
            (result(Verdict::Ok), result(degraded(&["a"])), result(degraded(&["a", "b"])));
        assert!(ok.regressions(&failed()).is_empty() && lossy.regressions(&lossier).is_empty());
        assert_eq!(regressions(&lossy, &ok), ["sigver-5:sigver-20: degraded: a, was ok"]);
        assert_eq!(regressions(&lossier, &lossy), ["sigver-5:sigver-20: newly lost: b"]);
        assert_eq!(failed().regressions(&lossy).len(), 1);
    }

    #[test]
    fn new_pair_must_not_fail() {
        let nothing = MatrixResult { pairs: Vec::new(), ..result(Verdict::Ok) };
        assert!(result(degraded(&["a"])).regressions(&nothing).is_empty());
        assert_eq!(failed().regressions(&nothing).len(), 1);
    }
}
