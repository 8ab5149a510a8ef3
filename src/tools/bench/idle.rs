//! Members that answer heartbeats and do nothing else, each in a room of its own: what they cost.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::bench_client::BenchClient;
use super::error::Error;
use super::measure::{Lost, allow, each, window};
use super::pair::seat;
use super::process_stats::{Cost, Process};
use super::progress::Progress;
use crate::tools::client::dialects::Role;
use crate::tools::client::protocol::Protocol;
use crate::tools::client::random_key;
use crate::tools::dial::Target;

/// After so long every member has had a heartbeat: they come every five seconds.
pub const FIRST_BEATS: Duration = Duration::from_secs(6);

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Idle {
    /// What members speak.
    pub dialect: Protocol,
    /// How many there are.
    pub members: usize,
    /// How long they are looked at, after [`settle`](Self::settle); at least five seconds, if heartbeats are to count.
    pub duration: Duration,
    /// How long they are left alone first; [`FIRST_BEATS`], if heartbeats are to count.
    pub settle: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct IdleResult {
    /// What members speak.
    pub dialect: &'static str,
    /// How many there are.
    pub members: usize,
    /// How long it took until all were members, in seconds.
    pub connecting_seconds: f64,
    /// How long they were looked at, in seconds.
    pub seconds: f64,
    /// What the server has cost while they were looked at; each is a member in a second.
    pub server: Option<Cost>,
    /// Resident memory of the server for each member, in bytes.
    pub bytes_per_member: Option<f64>,
    /// Who was lost.
    pub lost: Lost,
    /// Whether it was ended early.
    pub interrupted: bool,
}

/// Measures it.
///
/// # Errors
///
/// When the server does not let everybody in, or nobody is left.
pub async fn idle(
    target: &Target,
    idle: &Idle,
    watched: Option<&Process>,
    progress: &Progress,
) -> Result<IdleResult, Error> {
    if idle.members == 0 {
        return Err(Error::Senseless("at least one member is needed".to_owned()));
    }
    allow(idle.members)?;
    let before = watched.map(Process::read).transpose()?;
    let begin = Instant::now();
    let dialect = idle.dialect;
    let (mut tasks, mut lost) = (JoinSet::new(), Lost::default());
    let make = |_| {
        let target = target.clone();
        async move { seat(&target, dialect, Role::Member, &random_key(), None).await }
    };
    // Each answers heartbeats while others are still connecting.
    each(idle.members, progress, make, |member| drop(tasks.spawn(stay(member)))).await?;
    let connecting_seconds = begin.elapsed().as_secs_f64();
    let settled = window(idle.settle, &mut tasks, &mut lost, progress).await?;
    if settled.interrupted {
        return Err(Error::Interrupted);
    }
    let begin = watched.map(Process::read).transpose()?;
    let window = window(idle.duration, &mut tasks, &mut lost, progress).await?;
    let end = watched.map(Process::read).transpose()?;
    tasks.shutdown().await;
    let (count, seconds) = (idle.members as f64, window.elapsed.as_secs_f64());
    let server = before
        .zip(begin)
        .zip(end)
        .map(|((before, begin), end)| Cost::of(before.memory, begin, end, window.elapsed, count * seconds));
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
        member.hear().await.map_err(|error| error.of("a member"))?;
    }
}
