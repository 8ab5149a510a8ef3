//! What a server still holds for each connection when a message has gone through it both ways.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use super::error::Error;
use super::measure::{allow, many};
use super::pair::{Pair, Parcels};
use super::process_stats::Process;
use super::progress::{Phase, Progress};
use crate::tools::client::protocol::Protocol;
use crate::tools::dial::Target;

/// How long the server has to tidy up.
const REST: Duration = Duration::from_secs(1);

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct RetainedMemoryPlan {
    /// What members and joiners speak.
    pub dialect: Protocol,
    /// How many rooms there are, with a member and a joiner each.
    pub rooms: usize,
    /// How long a message is.
    pub bytes: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct RetainedMemoryResult {
    /// What they speak.
    pub dialect: &'static str,
    /// How many rooms there are.
    pub rooms: usize,
    /// How long a message is.
    pub bytes: usize,
    /// Resident memory with all connections, before the first message, in bytes.
    pub memory_before: u64,
    /// And a second after the last.
    pub memory_after: u64,
    /// What is still held for each connection, in bytes.
    pub bytes_per_connection: f64,
}

/// Measures it.
///
/// # Errors
///
/// When a dialect cannot do it, the server does not let everybody in, or a message does not come.
pub async fn kept(
    target: &Target,
    keep: &RetainedMemoryPlan,
    watched: &Process,
    progress: &Progress,
) -> Result<RetainedMemoryResult, Error> {
    let dialect = keep.dialect;
    let small = Arc::new(Parcels::opaque(dialect, dialect, 1)?);
    let parcels = Parcels::opaque(dialect, dialect, keep.bytes)?;
    if keep.rooms == 0 || keep.bytes == 0 {
        return Err(Error::Senseless("at least one room and one byte are needed".to_owned()));
    }
    allow(2 * keep.rooms)?;
    let mut pairs = many(keep.rooms, progress, |_| {
        let (target, small) = (target.clone(), Arc::clone(&small));
        async move { Pair::bind(&target, dialect, dialect, &small.up).await }
    })
    .await?;
    let before = watched.read()?.memory;
    let count = pairs.len() as f64;
    for (done, pair) in pairs.iter_mut().enumerate() {
        if progress.is_stopped() {
            return Err(Error::Interrupted);
        }
        pair.exchange(&parcels).await?;
        progress.tell(Phase::Exchanging { done: done + 1, of: keep.rooms });
    }
    sleep(REST).await;
    let after = watched.read()?.memory;
    Ok(RetainedMemoryResult {
        dialect: dialect.name(),
        rooms: keep.rooms,
        bytes: keep.bytes,
        memory_before: before,
        memory_after: after,
        bytes_per_connection: (after as f64 - before as f64) / (2.0 * count),
    })
}
