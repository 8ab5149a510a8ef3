//! The recordings of the Node.js servers, played with each client at the next node of a cluster.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use compat_tests::exceptions::{Exceptions, Mode};
use compat_tests::goldens::{self, ORIGINALS, Original};
use compat_tests::rename::needs_own_server;
use compat_tests::report::Report;
use compat_tests::runner::{Plan, Target, run};
use compat_tests::transcript::{self, Scenario};

use super::balancer;
use super::claim_proxy::ClaimProxy;
use super::decisions;
use super::node::{NodeOptions, NodeProcess};
use super::redis::TestRedis;

/// Time after the start in which no node has a room: the first generation gives no name away before its
/// grace is over.
const GRACE: Duration = Duration::from_secs(7);

/// Selection of scripts.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct GoldenOptions {
    /// Only scripts whose name contains this
    #[arg(long, default_value = "")]
    scenario: String,
    /// Only this form; all of them by default
    #[arg(long)]
    form: Option<GoldenForm>,
    /// Directory for the transcripts of scripts that differ
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// A form in which the recordings are played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GoldenForm {
    /// Each client at the next of three nodes, which detect its protocol
    Auto,
    /// Each client at the next of two nodes, and all rooms at a third one
    Elsewhere,
    /// Each client at the next of three nodes that serve its release only
    Pinned,
}

impl GoldenForm {
    fn mode(self) -> Mode {
        match self {
            GoldenForm::Auto | GoldenForm::Elsewhere => Mode::Auto,
            GoldenForm::Pinned => Mode::Pinned,
        }
    }

    fn description(self) -> &'static str {
        match self {
            GoldenForm::Auto => "through three nodes",
            GoldenForm::Elsewhere => "with every room at a third node",
            GoldenForm::Pinned => "through three nodes pinned to their release",
        }
    }
}

/// Plays all scripts whose room keys can be made their own, as they share the nodes; any difference that a
/// single server does not have fails.
pub(crate) async fn check(program: &Path, redis: &TestRedis, options: &GoldenOptions) -> Result<()> {
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
    let forms = GoldenForm::value_variants().iter().copied();
    for form in forms.filter(|form| options.form.is_none_or(|only| only == *form)) {
        let begin = Instant::now();
        match form {
            GoldenForm::Auto => {
                let (_nodes, balancer) = start_nodes(program, &redis.url(), None).await?;
                tokio::time::sleep(GRACE).await;
                play(form, HashMap::from([("auto".to_owned(), balancer)]), &scripts, options).await?;
            }
            GoldenForm::Elsewhere => play_elsewhere(program, redis, &scripts, options).await?,
            GoldenForm::Pinned => play_pinned(program, redis, &scripts, options).await?,
        }
        println!(
            "goldens: {} recordings {} as on one server in {} s; {left_out} need a server alone",
            scripts.len(),
            form.description(),
            begin.elapsed().as_secs()
        );
    }
    Ok(())
}

type Script = (&'static Original, Scenario);

/// Starts three nodes of a cluster of their own, which serve only that release if there is one, and a load
/// balancer in front of them.
async fn start_nodes(
    program: &Path,
    engine: &str,
    release: Option<&str>,
) -> Result<(Vec<NodeProcess>, SocketAddr)> {
    let protocol = release.map(|release| format!("sigver-{release}"));
    let cluster = protocol.clone();
    let options =
        NodeOptions { engine: Some(engine.to_owned()), cluster, protocol, ..NodeOptions::default() };
    let started: Result<Vec<_>> = (0..3).map(|_| NodeProcess::spawn(program, &options)).collect();
    let mut nodes = Vec::new();
    for node in started? {
        nodes.push(node.serving().await?);
    }
    let balancer = balancer::start(nodes.iter().map(|node| node.address).collect()).await?;
    Ok((nodes, balancer))
}

async fn play_pinned(
    program: &Path,
    redis: &TestRedis,
    scripts: &[Script],
    options: &GoldenOptions,
) -> Result<()> {
    let (mut nodes, mut running) = (Vec::new(), HashMap::new());
    for original in ORIGINALS {
        if scripts.iter().any(|(of, _)| of.version == original.version) {
            let (started, balancer) = start_nodes(program, &redis.url(), Some(original.version)).await?;
            nodes.extend(started);
            running.insert(format!("sigver-{}", original.version), balancer);
        }
    }
    tokio::time::sleep(GRACE).await;
    play(GoldenForm::Pinned, running, scripts, options).await
}

async fn play_elsewhere(
    program: &Path,
    redis: &TestRedis,
    scripts: &[Script],
    options: &GoldenOptions,
) -> Result<()> {
    let proxy = ClaimProxy::start(redis.address).await?;
    let directory = std::env::temp_dir().join(format!("sigver-decisions-{}", redis.address.port()));
    std::fs::create_dir_all(&directory)?;
    let (cluster, engine) = ("elsewhere".to_owned(), format!("redis://{}", proxy.address));
    let (mut nodes, mut files) = (Vec::new(), Vec::new());
    for node in 0..3 {
        let file = directory.join(node.to_string());
        let options = NodeOptions {
            engine: Some(engine.clone()),
            cluster: Some(cluster.clone()),
            decisions: Some(file.clone()),
            ..NodeOptions::default()
        };
        nodes.push(NodeProcess::start(program, &options).await?);
        files.push(file);
        if node == 0 {
            let known = redis.command(&format!("hkeys sigver:{{{cluster}}}:nodes")).await?;
            proxy.set_owner(known.lines().nth(2).context("the first node is not in Redis")?)?;
        }
    }
    tokio::time::sleep(GRACE).await;
    let balancer = balancer::start(nodes.iter().skip(1).map(|node| node.address).collect()).await?;
    let running = HashMap::from([("auto".to_owned(), balancer)]);
    play(GoldenForm::Elsewhere, running, scripts, options).await?;
    let decided: Result<Vec<_>> = files.iter().map(|file| Ok(decisions::read(file)?.len())).collect();
    let decided = decided?;
    ensure!(decided[0] >= scripts.len() / 2 && decided[1..] == [0, 0], "the nodes decided {decided:?} times");
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

async fn play(
    form: GoldenForm,
    running: HashMap<String, SocketAddr>,
    scripts: &[Script],
    options: &GoldenOptions,
) -> Result<()> {
    let mut exceptions = Exceptions::read(&goldens::root().join("exceptions.toml"))?;
    let plan = Plan {
        target: Target::Ours(form.mode()),
        originals: PathBuf::new(),
        server: PathBuf::new(),
        running,
        by_dialect: false,
        jobs: 16,
        timed_jobs: 80,
        tolerance: Duration::from_millis(400),
        exceptions: Arc::new(exceptions.clone()),
    };
    let mut report = Report::default();
    for outcome in run(&plan, scripts.to_vec()).await? {
        let before = report.totals().1;
        report.add(&outcome, &mut exceptions);
        if let (Some(directory), Some(actual), true) =
            (&options.keep, &outcome.actual, report.totals().1 > before)
        {
            std::fs::create_dir_all(directory)?;
            let name = format!("{form:?}-{}-{}.jsonl", outcome.version, outcome.scenario);
            std::fs::write(directory.join(name), transcript::print(std::slice::from_ref(actual))?)?;
        }
    }
    let (_, different) = report.totals();
    if different > 0 {
        print!("{}", report.print(&[]));
    }
    let (count, description) = (scripts.len(), form.description());
    ensure!(different == 0, "{different} of {count} recordings differ {description}");
    Ok(())
}
