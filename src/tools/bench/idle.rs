//! Cost of members that only answer heartbeats, each in a room of its own.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;

use super::bench_client::BenchClient;
use super::error::Error;
use super::measure::{Lost, each, ensure_fd_limit, window};
use super::pair::connect_client;
use super::process_stats::{Cost, CostMeter, Processes};
use super::progress::Progress;
use super::seconds;
use crate::tools::client::dialects::Role;
use crate::tools::client::protocol::Protocol;
use crate::tools::client::random_key;
use crate::tools::dial::Target;
use crate::tools::parse_protocol;

/// Time after which every member has had a heartbeat, which is sent every five seconds.
pub const FIRST_HEARTBEATS: Duration = Duration::from_secs(6);

/// Plan of a measurement with idle members.
#[derive(Args, Clone, Debug, Serialize)]
pub struct IdlePlan {
    /// Dialect of the members, see 'sigver dialects'
    #[arg(long, value_name = "DIALECT", default_value = "sigver-20", value_parser = parse_protocol)]
    pub dialect: Protocol,
    /// Number of members, each in a room of its own
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub members: usize,
    /// Measurement duration after warm-up
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    #[serde(skip)]
    pub duration: Duration,
    /// Warm-up: time for the first heartbeats, which are sent every 5 s
    #[arg(long, value_name = "SECONDS", default_value = "6", value_parser = seconds)]
    #[serde(skip)]
    pub settle: Duration,
}

/// Result of a measurement with idle members.
#[derive(Clone, Debug, Serialize)]
pub struct IdleResult {
    /// The plan.
    #[serde(flatten)]
    pub plan: IdlePlan,
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
pub async fn idle(
    target: &Target,
    idle: &IdlePlan,
    processes: Option<&Processes>,
    progress: &Progress,
) -> Result<IdleResult, Error> {
    if idle.members == 0 {
        return Err(Error::InvalidPlan("at least one member is needed".to_owned()));
    }
    ensure_fd_limit(idle.members)?;
    let mut meter = CostMeter::new(processes)?;
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
        plan: idle.clone(),
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
