//! A rolling restart: three nodes behind a load balancer, with clients that join without a pause, are stopped
//! and replaced one after the other.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use rustix::process::Signal;
use tokio::time::sleep;

use super::cluster::{EngineSource, NODES, TestCluster};
use super::history::{Lives, Outcome, double_firsts};
use super::load::Load;
use super::{BEFORE, GRACE};
use crate::balancer;
use crate::redis::TestRedis;

/// Time after which netflux comes back when its connection was closed.
const REJOIN: Duration = Duration::from_secs(3);
/// Longest time from a connection to the answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Joins for each interval of the clients: to a new room one at each node, and so on.
const JOINS_PER_INTERVAL: f64 = 1.5;
/// Time with clients between two restarts.
const BETWEEN: Duration = Duration::from_secs(4);

/// Options of the rolling restart.
#[derive(Clone, Debug, Args)]
pub(crate) struct RollingOptions {
    /// Joins in a second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
}

/// Restarts each node. A client that did not come into its room, by its own rules, fails; so do two first
/// members at once.
pub(crate) async fn check(program: &Path, redis: &str, options: &RollingOptions) -> Result<()> {
    let server = TestRedis::start(redis).await?;
    let mut cluster = TestCluster::start(program, EngineSource::Proxied(server.address)).await?;
    sleep(GRACE).await;
    let balancer = balancer::start(cluster.addresses()).await?;
    let interval = Duration::from_secs_f64(JOINS_PER_INTERVAL / options.rate);
    let load = Load::start_with(&[balancer; NODES], "rolling", interval, Some(REJOIN))?;
    sleep(BEFORE).await;
    let begin = load.now();
    for node in 0..NODES {
        let since = load.now();
        cluster.signal(node, Signal::TERM).await?;
        let ended = load.now();
        cluster.start_node(node).await?;
        println!(
            "rolling restart: node {node} stopped in {:.1} s, its successor served {:.1} s later",
            (ended - since).as_secs_f64(),
            (load.now() - ended).as_secs_f64()
        );
        sleep(BETWEEN).await;
    }
    let took = load.now() - begin;
    load.stop();
    // The last ones may come again.
    sleep(REJOIN + ANSWER).await;
    let attempts = load.attempts.lock().clone();
    let failed = attempts.iter().filter_map(|attempt| {
        let waited = attempt.answered.saturating_sub(attempt.sent);
        match &attempt.outcome {
            // Linked before: that the room closes then is no failure to join.
            Outcome::Failed(failure) if failure.contains("linked") || failure.contains("first member") => {
                None
            }
            Outcome::Failed(failure) => Some(format!("{}: {failure}", attempt.room)),
            Outcome::First(_) if waited > ANSWER => Some(format!("{}: after {waited:?}", attempt.room)),
            Outcome::First(_) | Outcome::Linked(_) | Outcome::Left => None,
        }
    });
    let failed: Vec<String> = failed.collect();
    let doubles = double_firsts(&attempts);
    let conflicts = Lives::new(&cluster.decisions()?).conflicts();
    let misdelivered = load.misdelivered.lock().clone();
    println!(
        "rolling restart: {} joins, {:.0} a second, over three restarts; {} came again; {} failed, {} double firsts",
        attempts.len(),
        attempts.iter().filter(|attempt| attempt.sent >= begin).count() as f64 / took.as_secs_f64(),
        load.rejoins.load(Ordering::Relaxed),
        failed.len(),
        doubles.len() + conflicts.len(),
    );
    ensure!(failed.is_empty(), "joins failed: {:?}", failed.iter().take(10).collect::<Vec<_>>());
    ensure!(doubles.is_empty() && conflicts.is_empty(), "two owners: {doubles:?} {conflicts:?}");
    ensure!(misdelivered.is_empty(), "to a third client: {misdelivered:?}");
    Ok(())
}
