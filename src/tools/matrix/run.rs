//! All pairs, some at a time. What is done with one pair is in `cell`.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::pair_test::{self, Options};
use super::result::{Outcome, PairResult, Verdict};
use crate::tools::client::protocol::Protocol;
use crate::tools::client::target::Target;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members and joiners.
    pub pairs: Vec<(Protocol, Protocol)>,
    /// Joiners whom nobody awaits.
    pub control: Vec<Protocol>,
    /// How many pairs at a time. Each takes three connections.
    pub jobs: usize,
    /// How each is measured.
    pub options: Options,
}

impl Plan {
    /// All pairs of these that can meet.
    pub fn of(tongues: &[Protocol]) -> Self {
        let pairs = tongues.iter().flat_map(|member| tongues.iter().map(|joiner| (*member, *joiner)));
        Plan {
            pairs: pairs.filter(|(member, joiner)| member.meets(*joiner)).collect(),
            control: tongues.to_vec(),
            jobs: 128,
            options: Options::default(),
        }
    }

    /// How many there are to measure.
    pub fn len(&self) -> usize {
        self.pairs.len() + self.control.len()
    }

    /// Whether there is nothing to measure.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Measures everything; `done` is called after each.
pub async fn run(target: &Target, name: &str, plan: &Plan, mut done: impl FnMut(&PairResult)) -> Outcome {
    let started = Instant::now();
    let bound = Arc::new(Semaphore::new(plan.jobs.max(1)));
    let mut running = JoinSet::new();
    let control = plan.control.iter().map(|joiner| (None, *joiner));
    let pairs = plan.pairs.iter().map(|(member, joiner)| (Some(*member), *joiner));
    for (place, (member, joiner)) in pairs.chain(control).enumerate() {
        let (target, bound, options) = (target.clone(), Arc::clone(&bound), plan.options);
        running.spawn(async move {
            // The semaphore is never closed.
            let _permit = bound.acquire_owned().await.ok();
            let measured = tokio::spawn(async move {
                match member {
                    Some(member) => pair_test::measure(&target, member, joiner, options).await,
                    None => pair_test::control(&target, joiner).await,
                }
            });
            let broken = |_| PairResult {
                member,
                joiner,
                verdict: Verdict::Failed("the measurement itself failed".to_owned()),
                told: None,
            };
            (place, measured.await.unwrap_or_else(broken))
        });
    }
    let mut cells = Vec::new();
    while let Some(finished) = running.join_next().await {
        if let Ok((place, cell)) = finished {
            done(&cell);
            cells.push((place, cell));
        }
    }
    cells.sort_by_key(|(place, _)| *place);
    let (control, cells) = cells.into_iter().map(|(_, cell)| cell).partition(|cell| cell.member.is_none());
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Outcome { server: name.to_owned(), took_ms, cells, control }
}
