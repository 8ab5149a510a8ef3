//! `compat-report`: plays the recorded scripts against the gateway or the Node.js servers, and prints the
//! differences.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use compat_tests::compare::{ComparisonRules, compare};
use compat_tests::exceptions::{Exceptions, Mode};
use compat_tests::goldens::{self, ORIGINALS, Original};
use compat_tests::interop;
use compat_tests::report::Report;
use compat_tests::runner::{Plan, Target, play_alone, run};
use compat_tests::transcript::{self, Scenario, glob};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "Compares our server with the original sigver servers, frame by frame")]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Play the recordings against the gateway: pinned to each version, then with automatic detection
    Golden {
        /// The gateway's binary
        #[arg(long)]
        server_bin: PathBuf,
        /// Protocol selection of the gateway
        #[arg(long, value_enum, default_value = "both")]
        mode: ModeArg,
        /// Pin by dialect (sigver-15) rather than by version (sigver-15.0.2)
        #[arg(long)]
        by_dialect: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Play the recordings against the Node.js servers: verifies the recordings and the player
    Originals {
        #[command(flatten)]
        common: Common,
    },
    /// Play the scripts against a Node.js server and the gateway side by side, and compare the two
    Live {
        /// The gateway's binary
        #[arg(long)]
        server_bin: PathBuf,
        /// Pin by dialect (sigver-15) rather than by version (sigver-15.0.2)
        #[arg(long)]
        by_dialect: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Probe the Node.js servers, and run the matrix's clients against each
    Interop {
        /// The sigver binary
        #[arg(long)]
        server_bin: PathBuf,
        /// Only these versions
        #[arg(long)]
        only: Vec<String>,
        /// Also wait for heartbeat timeouts
        #[arg(long)]
        thorough: bool,
        /// Directory of the installed Node.js servers
        #[arg(long, default_value_os_t = goldens::root().join("originals"))]
        originals: PathBuf,
    },
    /// Play a script against a Node.js server and record the result
    Record {
        /// Version of the Node.js server
        #[arg(long)]
        original: String,
        /// The script: a transcript file, or only its client lines
        #[arg(long)]
        script: PathBuf,
        /// Output file; standard output if absent
        #[arg(long)]
        out: Option<PathBuf>,
        /// Only scenarios whose name matches ('*' for any characters)
        #[arg(long)]
        scenario: Option<String>,
        /// Directory of the installed Node.js servers
        #[arg(long, default_value_os_t = goldens::root().join("originals"))]
        originals: PathBuf,
        /// Milliseconds to wait after each action
        #[arg(long, default_value_t = 130)]
        pace: u64,
    },
}

#[derive(Args)]
struct Common {
    /// Only these versions
    #[arg(long)]
    only: Vec<String>,
    /// Only scenarios whose name matches ('*' for any characters)
    #[arg(long)]
    scenario: Option<String>,
    /// Leave out the timed scenarios
    #[arg(long)]
    no_timed: bool,
    /// Directory of the recordings
    #[arg(long, default_value_os_t = goldens::dir())]
    golden: PathBuf,
    /// Directory of the installed Node.js servers
    #[arg(long, default_value_os_t = goldens::root().join("originals"))]
    originals: PathBuf,
    /// The list of intended differences
    #[arg(long, default_value_os_t = goldens::root().join("exceptions.toml"))]
    exceptions: PathBuf,
    /// Number of concurrent scripts
    #[arg(long, default_value_t = 16)]
    jobs: usize,
    /// Number of concurrent timed scripts
    #[arg(long, default_value_t = 80)]
    timed_jobs: usize,
    /// Tolerance for the time of a frame in timed scenarios, in milliseconds
    #[arg(long, default_value_t = 400)]
    tolerance: u64,
    /// Directory for the transcripts of failed scripts
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    Pinned,
    Auto,
    Both,
}

impl Common {
    fn is_full(&self) -> bool {
        self.only.is_empty() && self.scenario.is_none() && !self.no_timed
    }

    fn scripts(&self) -> Result<Vec<(&'static Original, Scenario)>> {
        let mut scripts = Vec::new();
        for version in &self.only {
            Original::find(version)?;
        }
        for original in ORIGINALS {
            if !self.only.is_empty() && !self.only.iter().any(|v| v == original.version) {
                continue;
            }
            let all = goldens::load(&self.golden, original.version)?;
            let fits = |s: &Scenario| self.scenario.as_ref().is_none_or(|p| glob(p, &s.name));
            let wanted = all.into_iter().filter(|s| fits(s) && !(self.no_timed && s.is_timed()));
            scripts.extend(wanted.map(|s| (original, s)));
        }
        if scripts.is_empty() {
            bail!("no such scenario");
        }
        Ok(scripts)
    }

    /// Plays every script against every target, and prints the report. Returns true if no script failed.
    async fn report(&self, targets: &[Target], server: PathBuf, by_dialect: bool) -> Result<bool> {
        let begin = Instant::now();
        let mut exceptions = Exceptions::read(&self.exceptions)?;
        let mut report = Report::default();
        for target in targets {
            let plan = Plan {
                target: target.clone(),
                originals: self.originals.clone(),
                server: server.clone(),
                running: HashMap::new(),
                by_dialect,
                jobs: self.jobs,
                timed_jobs: self.timed_jobs,
                tolerance: Duration::from_millis(self.tolerance),
                exceptions: Arc::new(exceptions.clone()),
            };
            for outcome in run(&plan, self.scripts()?).await? {
                let before = report.totals().1;
                report.add(&outcome, &mut exceptions);
                if let (Some(dir), Some(actual), true) =
                    (&self.keep, &outcome.actual, report.totals().1 > before)
                {
                    std::fs::create_dir_all(dir)?;
                    let mode = outcome.mode.map_or("original", Mode::name);
                    let name = format!("{}-{}-{mode}.jsonl", outcome.version, outcome.scenario);
                    std::fs::write(dir.join(name), transcript::print(std::slice::from_ref(actual))?)?;
                }
            }
        }
        let modes: Vec<Mode> =
            targets.iter().filter_map(|t| if let Target::Ours(m) = t { Some(*m) } else { None }).collect();
        let stale = if self.is_full() { exceptions.stale(&modes) } else { Vec::new() };
        eprintln!("took {} s", begin.elapsed().as_secs());
        print!("{}", report.print(&stale));
        Ok(report.totals().1 == 0 && !stale.iter().any(|stale| stale.certain))
    }
}

async fn record(
    original: &str,
    script: &std::path::Path,
    only: Option<&str>,
    dir: &std::path::Path,
    pace: Duration,
) -> Result<String> {
    let original = Original::find(original)?;
    let mut recorded = Vec::new();
    let wanted = goldens::read(script)?.into_iter().filter(|s| only.is_none_or(|p| glob(p, &s.name)));
    for mut scenario in wanted.filter(Scenario::is_playable) {
        scenario.version = original.version.to_owned();
        let mut actual = play_alone(dir, original, &scenario, |options| {
            let pace = if scenario.is_timed() { Duration::ZERO } else { pace };
            compat_tests::player::PlayOptions { pace, ..options }
        })
        .await
        .with_context(|| scenario.name.clone())?;
        actual.version = original.version.to_owned();
        for difference in compare(&scenario, &actual, ComparisonRules::default()).differences {
            eprintln!("{}: unlike the script: {difference}", scenario.name);
        }
        recorded.push(actual);
    }
    Ok(transcript::print(&recorded)?)
}

async fn command(command: Commands) -> Result<bool> {
    match command {
        Commands::Golden { server_bin, mode, by_dialect, common } => {
            let targets: &[Target] = match mode {
                ModeArg::Pinned => &[Target::Ours(Mode::Pinned)],
                ModeArg::Auto => &[Target::Ours(Mode::Auto)],
                ModeArg::Both => &[Target::Ours(Mode::Pinned), Target::Ours(Mode::Auto)],
            };
            common.report(targets, server_bin, by_dialect).await
        }
        Commands::Originals { common } => common.report(&[Target::Originals], PathBuf::new(), false).await,
        Commands::Live { server_bin, by_dialect, common } => {
            common.report(&[Target::SideBySide], server_bin, by_dialect).await
        }
        Commands::Interop { server_bin, only, thorough, originals } => {
            let chosen = |original: &&'static Original| {
                only.is_empty() || only.iter().any(|version| version == original.version)
            };
            let chosen: Vec<&'static Original> = ORIGINALS.iter().filter(chosen).collect();
            let found = interop::check(&chosen, &originals, &server_bin, thorough).await?;
            print!("{}", interop::markdown(&found));
            let wrong = found.iter().filter(|found| !found.problems.is_empty());
            wrong.clone().for_each(|found| eprintln!("{}: {}", found.version, found.problems.join("; ")));
            Ok(wrong.count() == 0)
        }
        Commands::Record { original, script, out, scenario, originals, pace } => {
            let pace = Duration::from_millis(pace);
            let text = record(&original, &script, scenario.as_deref(), &originals, pace).await?;
            match out {
                Some(out) => std::fs::write(&out, text).with_context(|| out.display().to_string())?,
                None => print!("{text}"),
            }
            Ok(true)
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Dropping the servers kills them.
        tokio::select! {
            done = command(Cli::parse().command) => done,
            _ = terminate.recv() => bail!("terminated"),
            _ = interrupt.recv() => bail!("interrupted"),
        }
    };
    match done.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
