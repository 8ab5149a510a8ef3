//! Clients of all dialects through nodes in turn, compared with one server.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, ensure};
use sigver::tools::client::protocol::Protocol;
use sigver::tools::dial::Target;
use sigver::tools::matrix::result::{MatrixResult, PairResult, Verdict};
use sigver::tools::matrix::run::{MatrixPlan, run};

use super::balancer;
use super::node::{NodeOptions, NodeProcess};

/// Measures every pair of dialects with each client at the next of three nodes; what differs from one server
/// fails. Once in common rooms, for which messages are translated, and once in rooms by generation.
pub(crate) async fn check(program: &Path, engine: &str) -> Result<()> {
    for by_generation in [false, true] {
        compare(program, engine, by_generation).await?;
    }
    Ok(())
}

async fn compare(program: &Path, engine: &str, by_generation: bool) -> Result<()> {
    let options = NodeOptions { by_generation, ..NodeOptions::default() };
    let single = NodeProcess::start(program, &options).await?;
    let options = NodeOptions { engine: Some(engine.to_owned()), ..options };
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(NodeProcess::start(program, &options).await?);
    }
    // The first generation gives no name away before its grace is over.
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    let balancer = balancer::start(nodes.iter().map(|node| node.address).collect()).await?;
    let (expected, found) = tokio::join!(measure(single.address), measure(balancer));
    let (expected, found) = (expected?, found?);
    let mut different = Vec::new();
    let pairs =
        |result: &MatrixResult| result.pairs.iter().chain(&result.control).cloned().collect::<Vec<_>>();
    for (expected, found) in pairs(&expected).into_iter().zip(pairs(&found)) {
        // The way in which clients fail that cannot work together depends on when their frames arrive.
        let both_fail =
            [&expected, &found].iter().all(|result| matches!(result.verdict, Verdict::Failed { .. }));
        if !both_fail && format!("{:?}", expected.verdict) != format!("{:?}", found.verdict) {
            different
                .push(format!("{:?}: {:?}, on one server {:?}", found.pair, found.verdict, expected.verdict));
        }
    }
    ensure!(different.is_empty(), "{} pairs differ:\n{}", different.len(), different.join("\n"));
    let works = |result: &&PairResult| !matches!(result.verdict, Verdict::Failed { .. });
    let working = found.pairs.iter().filter(works).count();
    let least = found.pairs.len() / if by_generation { 10 } else { 2 };
    ensure!(working > least, "only {working} of {} pairs work", found.pairs.len());
    let rooms = if by_generation { "rooms by generation" } else { "common rooms" };
    println!("interop: {} pairs of dialects in {rooms} of three nodes as on one server", found.pairs.len());
    Ok(())
}

async fn measure(address: SocketAddr) -> Result<MatrixResult> {
    let target = Target::parse(&format!("ws://{address}"))?;
    let protocols: Vec<_> = Protocol::all().collect();
    let plan = MatrixPlan { jobs: 64, ..MatrixPlan::new(&protocols) };
    Ok(run(&target, "cluster", &plan, |_| {}).await)
}
