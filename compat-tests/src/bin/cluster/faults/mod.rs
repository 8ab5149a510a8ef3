//! Faults under three nodes with clients: nodes and Redis that are stopped, killed, restarted and cut off
//! from one another. The histories of the clients and the decisions of the nodes are checked afterwards.

mod actions;
mod cluster;
mod history;
mod load;
mod proxy;
mod report;
pub(crate) mod rolling;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use report::FaultReport;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// Nothing
    None,
    /// A node ends after SIGTERM
    Stop,
    /// A node is killed
    Kill,
    /// A node is killed, and another process starts at its addresses
    Replace,
    /// A node is stopped for fifteen seconds
    Pause,
    /// A node does not reach Redis for twelve seconds
    CutEngine,
    /// The same, and neither end is notified
    HalfOpenEngine,
    /// Two nodes do not reach each other for twelve seconds
    CutNodes,
    /// The same, and neither end is notified
    HalfOpenNodes,
    /// Messages between two nodes take 200 ms
    SlowNodes,
    /// A node reaches neither Redis nor the others for twelve seconds
    Isolate,
    /// Redis is killed, and starts again without its data
    RedisEmpty,
    /// The same, after five seconds
    RedisEmptyLater,
    /// Redis is killed, and starts again with data that are eight seconds old
    RedisOld,
    /// Redis is stopped for ten seconds
    RedisPause,
    /// The primary is killed, and sentinels promote a replica
    Failover,
    /// Sentinels do not reach the primary and promote a replica, and one node follows; the others reach both
    FailoverCut,
    /// The primary of the slot in a Redis Cluster is killed, its replica promoted, and it starts again
    ClusterFailover,
}

/// Options of the faults.
#[derive(Clone, Debug, Args)]
pub(crate) struct FaultOptions {
    /// The faults; all by default
    faults: Vec<Fault>,
    /// Runs of each
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Clusters at once
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Print each failure
    #[arg(long)]
    verbose: bool,
}

/// Causes faults, prints a line for each, and fails if a promise was broken.
pub(crate) async fn check(program: &Path, redis: &str, options: &FaultOptions) -> Result<()> {
    let all = if options.faults.is_empty() { Fault::value_variants() } else { &options.faults[..] };
    let permits = Arc::new(Semaphore::new(options.jobs));
    let mut runs = JoinSet::new();
    for number in 0..all.len() * options.runs {
        let (fault, permits) = (all[number % all.len()], Arc::clone(&permits));
        let (program, redis) = (program.to_owned(), redis.to_owned());
        runs.spawn(async move {
            let _permit = permits.acquire().await;
            (number, actions::run(fault, &program, &redis).await)
        });
    }
    println!("{}", FaultReport::HEAD);
    let mut broken = Vec::new();
    while let Some(run) = runs.join_next().await {
        let (number, report) = run?;
        match report {
            Ok(report) => {
                println!("{}", report.line());
                if options.verbose {
                    report.details().for_each(|line| println!("    {line}"));
                }
                broken.extend(report.broken());
            }
            Err(error) => broken.push(format!("{:?}: {error:#}", all[number % all.len()])),
        }
    }
    ensure!(broken.is_empty(), "{} promises were broken:\n{}", broken.len(), broken.join("\n"));
    Ok(())
}

/// Time between the start of a cluster and its first room: the grace of the first generation.
const GRACE: Duration = Duration::from_millis(7_000);
/// Time with clients before a fault.
const BEFORE: Duration = Duration::from_secs(3);
/// Time with clients after all must be as before.
const AFTER: Duration = Duration::from_secs(4);
