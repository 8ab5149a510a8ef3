//! Measures all pairs of a plan, some concurrently. How one pair is measured is in `pair_test`.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::negative_control;
use super::pair_test::{self, PairOptions};
use super::result::{MatrixResult, PairId, PairResult, Verdict};
use crate::tools::client::protocol::Protocol;
use crate::tools::dial::Target;

/// The pairs to measure.
#[derive(Clone, Debug)]
pub struct MatrixPlan {
    /// Member and joiner of each pair.
    pub pairs: Vec<(Protocol, Protocol)>,
    /// Joiners of rooms without a member.
    pub control: Vec<Protocol>,
    /// Number of pairs that are measured concurrently, with three connections each.
    pub jobs: usize,
    /// Options of each measurement.
    pub options: PairOptions,
}

impl MatrixPlan {
    /// Returns a plan of all pairs of these protocols that can meet, and of all of them as negative control.
    pub fn new(protocols: &[Protocol]) -> Self {
        let pairs = protocols.iter().flat_map(|member| protocols.iter().map(|joiner| (*member, *joiner)));
        MatrixPlan {
            pairs: pairs.filter(|(member, joiner)| member.is_compatible_with(*joiner)).collect(),
            control: protocols.to_vec(),
            jobs: 128,
            options: PairOptions::default(),
        }
    }

    /// Returns the number of measurements.
    pub fn len(&self) -> usize {
        self.pairs.len() + self.control.len()
    }

    /// Returns true if there is nothing to measure.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Measures all pairs of `plan`; `server` describes the target in the result. Calls `on_result` after each
/// pair.
pub async fn run(
    target: &Target,
    server: &str,
    plan: &MatrixPlan,
    mut on_result: impl FnMut(&PairResult),
) -> MatrixResult {
    let started = Instant::now();
    let permits = Arc::new(Semaphore::new(plan.jobs.max(1)));
    let mut running = JoinSet::new();
    let pairs = plan.pairs.iter().map(|(member, joiner)| PairId { member: Some(*member), joiner: *joiner });
    let control = plan.control.iter().map(|joiner| PairId { member: None, joiner: *joiner });
    for (place, pair) in pairs.chain(control).enumerate() {
        let (target, permits, options) = (target.clone(), Arc::clone(&permits), plan.options);
        running.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire_owned().await.ok();
            let measurement = tokio::spawn(async move {
                match pair.member {
                    Some(member) => pair_test::measure(&target, member, pair.joiner, options).await,
                    None => negative_control::control(&target, pair.joiner).await,
                }
            });
            let panicked = |_| {
                let reason = "the measurement itself failed".to_owned();
                PairResult { pair, verdict: Verdict::Failed { reason }, answer: None }
            };
            (place, measurement.await.unwrap_or_else(panicked))
        });
    }
    let mut results = Vec::new();
    while let Some(finished) = running.join_next().await {
        if let Ok((place, result)) = finished {
            on_result(&result);
            results.push((place, result));
        }
    }
    results.sort_by_key(|(place, _)| *place);
    let results = results.into_iter().map(|(_, result)| result);
    let (control, pairs) = results.partition(|result| result.pair.member.is_none());
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    MatrixResult { server: server.to_owned(), duration_ms, pairs, control }
}
