//! Cost of members that only answer heartbeats, each in a room of its own.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::bench_client::BenchClient;
use super::error::Error;
use super::measure::{Lost, each, ensure_fd_limit, window};
use super::pair::connect_client;
use super::process_stats::{Cost, CostMeter, Process};
use super::progress::Progress;
use crate::tools::client::dialects::Role;
use crate::tools::client::protocol::Protocol;
use crate::tools::client::random_key;
use crate::tools::dial::Target;

/// Time after which every member has had a heartbeat, which is sent every five seconds.
pub const FIRST_HEARTBEATS: Duration = Duration::from_secs(6);

/// Plan of a measurement with idle members.
#[derive(Clone, Debug)]
pub struct IdlePlan {
    /// Protocol of the members.
    pub dialect: Protocol,
    /// Number of members.
    pub members: usize,
    /// Measurement duration, after [`settle`](Self::settle); at least five seconds, if heartbeats are to
    /// count.
    pub duration: Duration,
    /// Time between the last connection and the measurement; [`FIRST_HEARTBEATS`], if heartbeats are to
    /// count.
    pub settle: Duration,
}

/// Result of a measurement with idle members.
#[derive(Clone, Debug, Serialize)]
pub struct IdleResult {
    /// Protocol of the members.
    pub dialect: &'static str,
    /// Number of members.
    pub members: usize,
    /// Time until all were members, in seconds.
    pub connecting_seconds: f64,
    /// Measurement duration, in seconds.
    pub seconds: f64,
    /// Server cost during the measurement, per member and second.
    pub server: Option<Cost>,
    /// Resident memory of the server per member, in bytes.
    pub bytes_per_member: Option<f64>,
    /// Lost connections.
    pub lost: Lost,
    /// True if the measurement was stopped early.
    pub interrupted: bool,
}

/// Measures idle members.
///
/// # Errors
///
/// The server rejects a member, or no member is left.
pub async fn idle(
    target: &Target,
    idle: &IdlePlan,
    process: Option<&Process>,
    progress: &Progress,
) -> Result<IdleResult, Error> {
    if idle.members == 0 {
        return Err(Error::InvalidPlan("at least one member is needed".to_owned()));
    }
    ensure_fd_limit(idle.members)?;
    let mut meter = CostMeter::new(process)?;
    let begin = Instant::now();
    let dialect = idle.dialect;
    let (mut tasks, mut lost) = (JoinSet::new(), Lost::default());
    let make = |_| {
        let target = target.clone();
        async move { connect_client(&target, dialect, Role::Member, &random_key(), None).await }
    };
    // Each member answers heartbeats while others still connect.
    each(idle.members, progress, make, |member| drop(tasks.spawn(stay(member)))).await?;
    let connecting_seconds = begin.elapsed().as_secs_f64();
    let settled = window(idle.settle, &mut tasks, &mut lost, progress).await?;
    if settled.interrupted {
        return Err(Error::Interrupted);
    }
    meter.start()?;
    let window = window(idle.duration, &mut tasks, &mut lost, progress).await?;
    let (count, seconds) = (idle.members as f64, window.elapsed.as_secs_f64());
    let server = meter.finish(window.elapsed, count * seconds)?;
    tasks.shutdown().await;
    Ok(IdleResult {
        dialect: dialect.name(),
        members: idle.members,
        connecting_seconds,
        seconds,
        server,
        bytes_per_member: server.map(|cost| (cost.memory_after as f64 - cost.memory_before as f64) / count),
        lost,
        interrupted: window.interrupted,
    })
}

/// Answers heartbeats until the connection ends.
async fn stay(mut member: BenchClient) -> Result<(), Error> {
    loop {
        member.receive().await.map_err(|error| error.in_context("a member"))?;
    }
}
