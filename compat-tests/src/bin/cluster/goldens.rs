//! The recordings of the Node.js servers, played with each client at the next of three nodes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use compat_tests::exceptions::{Exceptions, Mode};
use compat_tests::goldens::{self, ORIGINALS};
use compat_tests::rename::needs_own_server;
use compat_tests::report::Report;
use compat_tests::runner::{Plan, Target, run};
use compat_tests::transcript;

use super::balancer;
use super::node::{NodeOptions, NodeProcess};

/// Selection of scripts.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct GoldenOptions {
    /// Only scripts whose name contains this
    #[arg(long, default_value = "")]
    scenario: String,
    /// Directory for the transcripts of scripts that differ
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// Plays all scripts whose room keys can be made their own, as they share the nodes; any difference that a
/// single server does not have fails.
pub(crate) async fn check(program: &Path, engine: &str, options: &GoldenOptions) -> Result<()> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let options = NodeOptions { engine: Some(engine.to_owned()), ..NodeOptions::default() };
        nodes.push(NodeProcess::start(program, &options).await?);
    }
    // The first generation gives no name away before its grace is over.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let balancer = balancer::start(nodes.iter().map(|node| node.address).collect()).await?;
    let mut exceptions = Exceptions::read(&goldens::root().join("exceptions.toml"))?;
    let plan = Plan {
        target: Target::Ours(Mode::Auto),
        originals: PathBuf::new(),
        server: PathBuf::new(),
        running: Some(balancer),
        by_dialect: false,
        jobs: 16,
        timed_jobs: 80,
        tolerance: Duration::from_millis(400),
        exceptions: Arc::new(exceptions.clone()),
    };
    let (mut scripts, mut left_out) = (Vec::new(), 0);
    for original in ORIGINALS {
        for script in goldens::load(&goldens::dir(), original.version)? {
            if !script.name.contains(&options.scenario) {
                continue;
            } else if needs_own_server(&script) {
                left_out += 1;
            } else {
                scripts.push((original, script));
            }
        }
    }
    let (begin, count) = (Instant::now(), scripts.len());
    let mut report = Report::default();
    for outcome in run(&plan, scripts).await? {
        let before = report.totals().1;
        report.add(&outcome, &mut exceptions);
        if let (Some(directory), Some(actual), true) =
            (&options.keep, &outcome.actual, report.totals().1 > before)
        {
            std::fs::create_dir_all(directory)?;
            let name = format!("{}-{}.jsonl", outcome.version, outcome.scenario);
            std::fs::write(directory.join(name), transcript::print(std::slice::from_ref(actual))?)?;
        }
    }
    let (_, different) = report.totals();
    if different > 0 {
        print!("{}", report.print(&[]));
    }
    ensure!(different == 0, "{different} of {count} recordings differ through three nodes");
    println!(
        "goldens: {count} recordings through three nodes as on one server in {} s; {left_out} need a server alone",
        begin.elapsed().as_secs()
    );
    Ok(())
}
