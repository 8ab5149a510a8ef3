//! Command line of `sigver bench`: options, progress bar, output.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::output;
use crate::tools::bench::{
    IdlePlan, Phase, Processes, Progress, Protocol, RetainedMemoryPlan, SessionsPlan, StormPlan, Target,
    ThroughputPlan, idle, retained_memory, sessions, storm, throughput,
};
use crate::tools::client::random_key;
use crate::tools::dial::{TokenArgs, TrustArgs};
use crate::tools::{draw_target, parse_protocol};

use super::render::RenderText;
use super::seconds;

/// Exit code after the second Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Options of `sigver bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    mode: BenchMode,
}

/// Measurement modes.
#[derive(Debug, Subcommand)]
enum BenchMode {
    #[command(alias = "relay")]
    /// Message throughput and round-trip times between members and joiners
    Throughput(ThroughputArgs),
    /// Same as throughput, with members and joiners of different dialects
    Cross(CrossArgs),
    /// Whole sessions: member and joiner connect, offer, answer, disconnect
    Sessions(SessionsArgs),
    /// Cost of members that only answer heartbeats
    Idle(IdleArgs),
    /// Many joiners entering one room at once
    Storm(StormArgs),
    /// Memory the server retains per connection after a message; needs --pid
    #[command(alias = "kept")]
    RetainedMemory(RetainedMemoryArgs),
}

/// Options of all modes.
#[derive(Debug, Args)]
struct CommonArgs {
    /// Server URL, ws:// or wss://
    url: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Process id of the server on this machine (Linux), to report its CPU time and memory; repeatable, for
    /// the nodes of a cluster
    #[arg(long)]
    pid: Vec<u32>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    token: TokenArgs,
}

/// Dialect options.
#[derive(Debug, Args)]
struct DialectArgs {
    /// Dialect of members and joiners, see 'sigver dialects'
    #[arg(long, value_name = "DIALECT", default_value = "sigver-20", value_parser = parse_protocol)]
    dialect: Protocol,
    /// Dialect of the members, if different
    #[arg(long, value_name = "DIALECT", value_parser = parse_protocol)]
    member: Option<Protocol>,
    /// Dialect of the joiners, if different
    #[arg(long, value_name = "DIALECT", value_parser = parse_protocol)]
    joiner: Option<Protocol>,
}

impl DialectArgs {
    fn member(&self) -> Protocol {
        self.member.unwrap_or(self.dialect)
    }

    fn joiner(&self) -> Protocol {
        self.joiner.unwrap_or(self.dialect)
    }
}

/// Options of throughput measurements, except the dialects.
#[derive(Debug, Args)]
struct LoadArgs {
    /// Number of rooms, each with a member and a joiner
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    rooms: usize,
    /// Messages in flight per pair
    #[arg(long, value_name = "NUMBER", default_value_t = 1, conflicts_with = "rate")]
    in_flight: usize,
    /// Content size in bytes; at least 11 in JSON dialects
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    bytes: usize,
    /// Measurement duration after warm-up
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    duration: Duration,
    /// Messages per second, both directions of all rooms together (open loop), instead of the maximum
    #[arg(long, value_name = "MSGS_PER_S")]
    rate: Option<f64>,
    /// URL of the node of a cluster at which the joiners connect, if another than the members'
    #[arg(long, value_name = "URL")]
    joiners_at: Option<String>,
    /// URL of the node of a cluster that has the rooms, if another than the members'; the members' dialect
    /// must be one in which a room has several
    #[arg(long, value_name = "URL")]
    rooms_at: Option<String>,
}

#[derive(Debug, Args)]
struct ThroughputArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    dialects: DialectArgs,
}

#[derive(Debug, Args)]
struct CrossArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Dialect of the members, see 'sigver dialects'
    #[arg(long, value_name = "DIALECT", value_parser = parse_protocol)]
    member: Protocol,
    /// Dialect of the joiners
    #[arg(long, value_name = "DIALECT", value_parser = parse_protocol)]
    joiner: Protocol,
}

#[derive(Debug, Args)]
struct SessionsArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    dialects: DialectArgs,
    /// Concurrent sessions
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    concurrency: usize,
    /// Measurement duration after warm-up
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    duration: Duration,
}

#[derive(Debug, Args)]
struct IdleArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    plan: IdlePlan,
}

#[derive(Debug, Args)]
struct StormArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    dialects: DialectArgs,
    /// Number of joiners
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    joiners: usize,
    /// Connect the joiners first, then send all join messages at once
    #[arg(long)]
    connected: bool,
}

#[derive(Debug, Args)]
struct RetainedMemoryArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    plan: RetainedMemoryPlan,
}

impl Bench {
    /// Measures, and prints the result.
    pub(crate) async fn run(&self) -> Result<ExitCode> {
        match &self.mode {
            BenchMode::Throughput(args) => {
                args.load.run(&args.common, args.dialects.member(), args.dialects.joiner()).await
            }
            BenchMode::Cross(args) => args.load.run(&args.common, args.member, args.joiner).await,
            BenchMode::Sessions(args) => {
                let plan = SessionsPlan {
                    member: args.dialects.member(),
                    joiner: args.dialects.joiner(),
                    concurrency: args.concurrency,
                    duration: args.duration,
                };
                args.common.run(async |at| Ok(sessions(at.0, &plan, at.1, at.2).await?)).await
            }
            BenchMode::Idle(args) => {
                args.common.run(async |at| Ok(idle(at.0, &args.plan, at.1, at.2).await?)).await
            }
            BenchMode::Storm(args) => {
                let plan = StormPlan {
                    member: args.dialects.member(),
                    joiner: args.dialects.joiner(),
                    joiners: args.joiners,
                    connected: args.connected,
                };
                args.common.run(async |at| Ok(storm(at.0, &plan, at.1, at.2).await?)).await
            }
            BenchMode::RetainedMemory(args) => {
                let no_process = "retained-memory needs the server's process: add --pid PID";
                if args.common.pid.is_empty() {
                    bail!(no_process);
                }
                let measure = async |at: Measurement<'_>| {
                    let processes = at.1.context(no_process)?;
                    Ok(retained_memory(at.0, &args.plan, processes, at.2).await?)
                };
                args.common.run(measure).await
            }
        }
    }
}

/// Arguments of a measurement.
type Measurement<'a> = (&'a Target, Option<&'a Processes>, &'a Progress);

impl LoadArgs {
    async fn run(&self, common: &CommonArgs, member: Protocol, joiner: Protocol) -> Result<ExitCode> {
        let node = |url: &Option<String>| url.as_deref().map(|url| common.target(url)).transpose();
        let plan = ThroughputPlan {
            member,
            joiner,
            rooms: self.rooms,
            in_flight: self.in_flight,
            bytes: self.bytes,
            duration: self.duration,
            rate: self.rate,
            joiners_at: node(&self.joiners_at)?,
            rooms_at: node(&self.rooms_at)?,
        };
        common.run(async |at| Ok(throughput(at.0, &plan, at.1, at.2).await?)).await
    }
}

impl CommonArgs {
    fn target(&self, url: &str) -> Result<Target> {
        Ok(Target::with_trust(url, &self.trust)?.with_token(&self.token)?)
    }

    async fn run<T: Serialize + RenderText>(
        &self,
        measure: impl AsyncFnOnce(Measurement<'_>) -> Result<T>,
    ) -> Result<ExitCode> {
        let target = self.target(&self.url)?;
        target.check(&format!("/{}", random_key())).await?;
        let processes = match self.pid.as_slice() {
            [] => None,
            pids => Some(Processes::new(pids)?),
        };
        let bar = bar();
        let progress = {
            let bar = bar.clone();
            Progress::new(move |phase| show(&bar, phase))
        };
        let stopper = tokio::spawn(stop_on_ctrl_c(progress.clone()));
        let result = measure((&target, processes.as_ref(), &progress)).await;
        stopper.abort();
        bar.finish_and_clear();
        let result = result.with_context(|| target.to_string())?;
        match self.json {
            true => output::print(&format!("{}\n", serde_json::to_string_pretty(&result)?))?,
            false => output::print(&result.render())?,
        }
        Ok(if result.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Stops the measurement at the first Ctrl-C, and the program at the second.
async fn stop_on_ctrl_c(progress: Progress) {
    if tokio::signal::ctrl_c().await.is_ok() {
        progress.stop();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(INTERRUPTED);
    }
}

/// Returns a progress bar, hidden unless stderr is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, draw_target());
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, phase: Phase) {
    let (done, of, text) = match phase {
        Phase::Connecting { done, of } => (done as u64, of as u64, format!("connecting {done}/{of}")),
        Phase::Exchanging { done, of } => (done as u64, of as u64, format!("exchanging {done}/{of}")),
        Phase::Measuring { seconds, of } => {
            ((seconds * 1e3) as u64, (of * 1e3) as u64, "measuring".to_owned())
        }
    };
    if !bar.is_hidden() {
        bar.set_length(of);
        bar.set_position(done);
        bar.set_message(text);
    }
}
