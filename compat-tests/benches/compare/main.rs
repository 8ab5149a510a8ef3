//! `compare`: measures the gateway's cost next to the Node.js servers, in one run on one machine, and its
//! growth. Nothing passes or fails here but a soak: it prints tables and draws plots.
//!
//! ```text
//! works (loads, targets) ─► drive (one turn of one server) ─► figures ─► table ─► document
//!                              │
//!                              └── servers: the Node.js servers, the gateway, the bare relay (reference)
//! growth ─► drive, plot ─► document
//! ```

#![allow(unreachable_pub, reason = "a crate without users")]
#![cfg(target_os = "linux")]

mod document;
mod drive;
mod figures;
mod growth;
mod machine;
mod plot;
mod reference;
mod servers;
mod soak;
mod table;
mod tls;
mod works;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use compat_tests::goldens::root;
use compat_tests::oracle::Node;
use compat_tests::summary::Summary;
use indicatif::{ProgressBar, ProgressStyle};
use sigver::server::fd_limit;
use sigver::tools::bench::FIRST_HEARTBEATS;

use crate::drive::Measure;
use crate::figures::Figure;
use crate::machine::Cores;
use crate::servers::Servers;
use crate::table::Line;
use crate::works::Work;

/// Path of the gateway in a release build.
const SERVER: &str = "target/release/sigver";
/// Uncounted load before a window.
const WARM_UP: Duration = Duration::from_secs(1);

/// Compares the gateway with the Node.js servers
#[derive(Parser)]
#[command(name = "compare")]
struct Args {
    #[command(subcommand)]
    command: Option<Task>,
    #[command(flatten)]
    table: TableArgs,
}

#[derive(Subcommand)]
enum Task {
    /// Measure and draw the growth of the gateway's costs
    Growth(GrowthArgs),
    /// Churn all dialects and event streams for a long time, and fail if the memory grows
    Soak(SoakArgs),
    /// Run the bare relay
    #[command(hide = true, disable_help_flag = true)]
    Reference {
        #[arg(short = 'h')]
        host: Option<String>,
        #[arg(short = 'p')]
        port: Option<u16>,
        #[arg(long, requires = "key")]
        cert: Option<PathBuf>,
        #[arg(long)]
        key: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
struct TableArgs {
    /// The gateway's binary
    #[arg(long, default_value = SERVER)]
    server_bin: PathBuf,
    /// The gateway's binary before a change: takes its turns in place of all other servers
    #[arg(long, conflicts_with = "write")]
    before: Option<PathBuf>,
    /// Directory of the installed Node.js servers
    #[arg(long, default_value_os_t = root().join("originals"))]
    originals: PathBuf,
    /// Names of works, or beginnings of names; all by default
    #[arg(long, value_delimiter = ',')]
    works: Vec<String>,
    /// List the works and exit
    #[arg(long)]
    list: bool,
    /// Turns of each server
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Measurement duration of a turn, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// One short turn with a tenth of the members, as a smoke test
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Replace the table in this document
    #[arg(long)]
    write: Option<PathBuf>,
}

#[derive(clap::Args)]
struct GrowthArgs {
    /// The gateway's binary
    #[arg(long, default_value = SERVER)]
    server_bin: PathBuf,
    /// Names of series: members, rooms, joiners, payload; all by default
    #[arg(long, value_delimiter = ',')]
    series: Vec<String>,
    /// Measurements of each point
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Measurement duration of a turn, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Write all figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Replace the tables in this document, and draw the plots next to it
    #[arg(long)]
    write: Option<PathBuf>,
}

#[derive(clap::Args)]
struct SoakArgs {
    /// The gateway's binary
    #[arg(long, default_value = SERVER)]
    server_bin: PathBuf,
    /// Duration after the warm-up, in minutes
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Duration of the warm-up, in minutes
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Concurrent sessions
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(Task::Reference { cert, key, .. }) = &args.command {
        reference::serve(cert.as_deref().zip(key.as_deref()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(tls) = tls::files() else { return tls::run_with_certificate() };
    fd_limit::raise()?;
    // Before there are threads, all of which belong on the load generator's core.
    machine::pin(Cores::Second)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &args.command {
            Some(Task::Growth(args)) => grow(args, tls).await,
            Some(Task::Soak(args)) => {
                let minutes = |count: f64| Duration::try_from_secs_f64(count * 60.0);
                let plan = soak::Plan {
                    warm_up: minutes(args.warm_up).context("--warm-up")?,
                    duration: minutes(args.minutes).context("--minutes")?,
                    window: Duration::from_millis(200),
                    concurrency: args.concurrency.max(1),
                };
                soak::soak(&args.server_bin, plan).await
            }
            _ => compare(&args.table, tls).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the durations of a turn with a window of `seconds`.
fn measure(seconds: f64, quick: bool) -> Result<Measure> {
    let window = Duration::try_from_secs_f64(seconds).context("--seconds")?;
    let idle = match quick {
        true => (Duration::from_secs(1), Duration::from_secs(5)),
        false => (FIRST_HEARTBEATS, Duration::from_secs(10)),
    };
    Ok(Measure { warm_up: window.min(WARM_UP), window, idle })
}

async fn grow(args: &GrowthArgs, tls: (PathBuf, PathBuf)) -> Result<()> {
    let originals = PathBuf::new();
    let gateway = args.server_bin.clone();
    let servers = Servers { gateway, before: None, originals, tls, nodes: Default::default() };
    let measure = measure(args.seconds, false)?;
    let folder = args.write.as_deref().and_then(std::path::Path::parent);
    let (text, points) = growth::growth(&servers, &measure, args.turns.max(1), &args.series, folder).await?;
    let shape = format!("The median of {} turns of {} s each", args.turns, args.seconds);
    let others = points.iter().filter_map(|point| point.figures.get(&Figure::Others).copied()).collect();
    let text = format!("{}{}\n{text}", heading(&servers, &shape), quiet(others));
    println!("{text}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&points)?)
            .with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.write {
        document::replace(path, "growth", &text)?;
    }
    Ok(())
}

async fn compare(args: &TableArgs, tls: (PathBuf, PathBuf)) -> Result<()> {
    let mut works = selected(&args.works)?;
    if args.before.is_some() {
        works = works.into_iter().filter_map(Work::of_a_change).collect();
        ensure!(!works.is_empty(), "the gateway has no part with its defaults in these works");
    }
    if args.list {
        works.iter().for_each(|work| println!("{:20} {}", work.name, work.text));
        return Ok(());
    }
    let (turns, seconds) = if args.quick { (1, 0.5) } else { (args.turns.max(1), args.seconds) };
    let measure = measure(seconds, args.quick)?;
    let servers = Servers {
        gateway: args.server_bin.clone(),
        before: args.before.clone(),
        originals: args.originals.clone(),
        tls,
        nodes: Default::default(),
    };
    let steps = works.iter().map(|work| work.runs.len() * turns).sum::<usize>();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)")?;
    let bar = ProgressBar::new(steps as u64).with_style(style);
    let (mut lines, mut others, mut failed): (Vec<Line>, Vec<f64>, Vec<&str>) = Default::default();
    for work in &works {
        if bar.is_hidden() {
            eprintln!("{}", work.name);
        }
        let samples = measured(work, turns, &measure, args.quick, &servers, &bar).await;
        failed.extend(samples.is_empty().then_some(work.name));
        others.extend(samples.iter().flatten().filter_map(|sample| sample.get(&Figure::Others).copied()));
        lines.extend(table::lines(work, &samples));
    }
    bar.finish_and_clear();
    let shape = format!(
        "Medians of {turns} turns of {seconds} s{}",
        if args.quick { ", with a tenth of the members" } else { "" }
    );
    let text = format!("{}{}\n{}", heading(&servers, &shape), quiet(others), table::markdown(&lines));
    println!("{text}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&lines)?)
            .with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.write {
        document::replace(path, "table", &text)?;
    }
    if !failed.is_empty() {
        bail!("not measured, as every turn failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Returns the samples of a work. A failed turn is reported and left out.
async fn measured(
    work: &Work,
    turns: usize,
    measure: &Measure,
    quick: bool,
    servers: &Servers,
    bar: &ProgressBar,
) -> table::Turns {
    let mut samples = table::Turns::new();
    'turns: for turn in 1..=turns {
        let mut sample = Vec::new();
        for (party, load) in &work.runs {
            bar.set_message(format!("{}, turn {turn} of {turns}: {}", work.name, party.name()));
            bar.inc(1);
            let load = if quick { load.smaller() } else { *load };
            let done = async {
                let servers = servers.start(*party).await?;
                drive::turn(&servers, *party, load, measure).await
            };
            match done.await {
                Ok(figures) => sample.push(figures),
                Err(error) => {
                    let text = format!("{}, turn {turn}, {}: {error:#}", work.name, party.name());
                    bar.suspend(|| eprintln!("{text}"));
                    continue 'turns;
                }
            }
        }
        samples.push(sample);
    }
    samples
}

fn selected(names: &[String]) -> Result<Vec<Work>> {
    let mut works = works::all();
    let known = |name: &String| works.iter().any(|work| work.name.starts_with(name.as_str()));
    if let Some(name) = names.iter().find(|name| !known(name)) {
        bail!("no work begins with {name}; --list lists them");
    }
    works.retain(|work| names.is_empty() || names.iter().any(|name| work.name.starts_with(name.as_str())));
    Ok(works)
}

/// Returns a note on the machine's other processes.
fn quiet(others: Vec<f64>) -> String {
    let Some(Summary { median, most, .. }) = Summary::from_values(others) else { return String::new() };
    format!(
        "Other processes took {median:.0} % of the machine in that time, {most:.0} % in the worst turn.\n"
    )
}

/// Returns the heading of the table.
fn heading(servers: &Servers, shape: &str) -> String {
    let system = machine::version(std::path::Path::new("node"), "--version");
    let eight = machine::version(&servers.originals.join("node_modules/node8/bin/node"), "--version");
    let nodes = servers.nodes.borrow();
    let under = nodes.iter().map(|(version, node)| {
        let node = if *node == Node::System { &system } else { &eight };
        format!("sigver@{version} under Node {}", node.trim_start_matches('v'))
    });
    let under = under.collect::<Vec<_>>().join(", ");
    let gateway = machine::version(&servers.gateway, "-V");
    let mut text = format!("Machine: {}. Ours: sigver {gateway}.", machine::describe());
    if !under.is_empty() {
        text.push_str(&format!(" Originals: {under}."));
    }
    text.push_str(&format!(" {shape}.\n"));
    text
}
