//! Memory that a server retains per connection after a message has passed both ways.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::sleep;

use super::error::Error;
use super::measure::{ensure_fd_limit, spawn_many};
use super::pair::{Pair, PairMessages, PairTargets};
use super::process_stats::Processes;
use super::progress::{Phase, Progress};
use crate::tools::client::protocol::Protocol;
use crate::tools::dial::Target;
use crate::tools::parse_protocol;

/// Time that the server has to release buffers.
const RELEASE_TIME: Duration = Duration::from_secs(1);

/// Plan of a measurement of retained memory.
#[derive(Args, Clone, Debug, Serialize)]
pub struct RetainedMemoryPlan {
    /// Dialect of members and joiners, see 'sigver dialects'
    #[arg(long, value_name = "DIALECT", default_value = "sigver-20", value_parser = parse_protocol)]
    pub dialect: Protocol,
    /// Number of rooms, each with a member and a joiner
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub rooms: usize,
    /// Content size in bytes
    #[arg(long, value_name = "NUMBER", default_value_t = 16_384)]
    pub bytes: usize,
}

/// Result of a measurement of retained memory.
#[derive(Clone, Debug, Serialize)]
pub struct RetainedMemoryResult {
    /// The plan.
    #[serde(flatten)]
    pub plan: RetainedMemoryPlan,
    /// Resident memory with all connections, before the first message, in bytes.
    pub memory_before: u64,
    /// Resident memory one second after the last message, in bytes.
    pub memory_after: u64,
    /// Retained memory per connection, in bytes.
    pub bytes_per_connection: f64,
}

/// Measures retained memory.
pub async fn retained_memory(
    target: &Target,
    plan: &RetainedMemoryPlan,
    processes: &Processes,
    progress: &Progress,
) -> Result<RetainedMemoryResult, Error> {
    let dialect = plan.dialect;
    let small = Arc::new(PairMessages::opaque(dialect, dialect, 1)?);
    let messages = PairMessages::opaque(dialect, dialect, plan.bytes)?;
    if plan.rooms == 0 || plan.bytes == 0 {
        return Err(Error::InvalidPlan("at least one room and one byte are needed".to_owned()));
    }
    ensure_fd_limit(2 * plan.rooms)?;
    let mut pairs = spawn_many(plan.rooms, progress, |_| {
        let (target, small) = (target.clone(), Arc::clone(&small));
        async move { Pair::bind(&PairTargets::from(&target), dialect, dialect, &small.up).await }
    })
    .await?;
    let before = processes.read()?.memory;
    let count = pairs.len() as f64;
    for (done, pair) in pairs.iter_mut().enumerate() {
        if progress.is_stopped() {
            return Err(Error::Interrupted);
        }
        pair.exchange(&messages).await?;
        progress.report(Phase::Exchanging { done: done + 1, of: plan.rooms });
    }
    sleep(RELEASE_TIME).await;
    let after = processes.read()?.memory;
    Ok(RetainedMemoryResult {
        plan: plan.clone(),
        memory_before: before,
        memory_after: after,
        bytes_per_connection: (after as f64 - before as f64) / (2.0 * count),
    })
}
