//! `sigver bench`: its options, its progress, and what it prints. What is measured, and how, is in `bench`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::tools::bench::{
    Idle, Phase, Process, Progress, Protocol, Relay, RetainedMemoryPlan, Sessions, Storm, Target, idle, kept,
    relay, sessions, storm,
};
use crate::tools::{draw_target, parse_protocol};

use super::render::RenderText;

/// The code of a command that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// Options of `sigver bench`.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    mode: Mode,
}

/// What is to be measured.
#[derive(Debug, Subcommand)]
enum Mode {
    /// Messages between members and joiners: how many, and how long they take.
    Relay(RelayArgs),
    /// The same with a member and a joiner of different dialects.
    Cross(CrossArgs),
    /// Whole sessions: a member and a joiner come, an offer, an answer, both leave.
    Sessions(SessionsArgs),
    /// Members that answer heartbeats and do nothing else.
    Idle(IdleArgs),
    /// Joiners that come all at once into one room.
    Storm(StormArgs),
    /// What the server still holds when a message has gone through each connection; needs --pid.
    #[command(alias = "kept")]
    RetainedMemory(KeptArgs),
}

/// What all modes have.
#[derive(Debug, Args)]
struct Common {
    /// The server, ws://… or wss://….
    url: String,
    /// Print the result for machines.
    #[arg(long)]
    json: bool,
    /// The server's process, if it runs on this machine (Linux): its processor time and memory are told, too.
    #[arg(long)]
    pid: Option<u32>,
}

/// What members and joiners speak.
#[derive(Debug, Args)]
struct Dialects {
    /// What all speak: see sigver dialects.
    #[arg(long, value_name = "DIALECT", default_value = "sigver-20", value_parser = parse_protocol)]
    dialect: Protocol,
    /// What members speak, if it is another.
    #[arg(long, value_name = "DIALECT", value_parser = parse_protocol)]
    member: Option<Protocol>,
    /// What joiners speak, if it is another.
    #[arg(long, value_name = "DIALECT", value_parser = parse_protocol)]
    joiner: Option<Protocol>,
}

impl Dialects {
    fn member(&self) -> Protocol {
        self.member.unwrap_or(self.dialect)
    }

    fn joiner(&self) -> Protocol {
        self.joiner.unwrap_or(self.dialect)
    }
}

/// What relays have, but for the dialects.
#[derive(Debug, Args)]
struct Load {
    /// Rooms, each with a member and a joiner.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    rooms: usize,
    /// Messages of a pair that are under way at any time.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, conflicts_with = "rate")]
    in_flight: usize,
    /// Bytes of a message's content; those of JSON dialects have at least 11.
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    bytes: usize,
    /// Seconds that are measured.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    duration: Duration,
    /// Messages per second, of all rooms together and both ways, instead of as many as can be.
    #[arg(long, value_name = "MSGS_PER_S")]
    rate: Option<f64>,
}

#[derive(Debug, Args)]
struct RelayArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    dialects: Dialects,
}

#[derive(Debug, Args)]
struct CrossArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// What members speak: see sigver dialects.
    #[arg(long, value_name = "DIALECT", value_parser = parse_protocol)]
    member: Protocol,
    /// What joiners speak.
    #[arg(long, value_name = "DIALECT", value_parser = parse_protocol)]
    joiner: Protocol,
}

#[derive(Debug, Args)]
struct SessionsArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    dialects: Dialects,
    /// Sessions at a time.
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    concurrency: usize,
    /// Seconds that are measured.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    duration: Duration,
}

#[derive(Debug, Args)]
struct IdleArgs {
    #[command(flatten)]
    common: Common,
    /// What members speak: see sigver dialects.
    #[arg(long, value_name = "DIALECT", default_value = "sigver-20", value_parser = parse_protocol)]
    dialect: Protocol,
    /// Members, each in a room of its own.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    members: usize,
    /// Seconds that are measured, once every member has had its first heartbeat; those come every five seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    duration: Duration,
    /// Seconds that are left for the first heartbeats.
    #[arg(long, value_name = "SECONDS", default_value = "6", value_parser = seconds)]
    settle: Duration,
}

#[derive(Debug, Args)]
struct StormArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    dialects: Dialects,
    /// Joiners.
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    joiners: usize,
    /// Connect them before; only what they join with is sent at once.
    #[arg(long)]
    connected: bool,
}

#[derive(Debug, Args)]
struct KeptArgs {
    #[command(flatten)]
    common: Common,
    /// What both speak: see sigver dialects.
    #[arg(long, value_name = "DIALECT", default_value = "sigver-20", value_parser = parse_protocol)]
    dialect: Protocol,
    /// Rooms, each with a member and a joiner.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    rooms: usize,
    /// Bytes of a message's content.
    #[arg(long, value_name = "NUMBER", default_value_t = 16_384)]
    bytes: usize,
}

impl Bench {
    /// Measures, and prints.
    pub async fn run(&self) -> Result<ExitCode> {
        match &self.mode {
            Mode::Relay(args) => {
                args.load.run(&args.common, args.dialects.member(), args.dialects.joiner()).await
            }
            Mode::Cross(args) => args.load.run(&args.common, args.member, args.joiner).await,
            Mode::Sessions(args) => {
                let plan = Sessions {
                    member: args.dialects.member(),
                    joiner: args.dialects.joiner(),
                    concurrency: args.concurrency,
                    duration: args.duration,
                };
                args.common.run(async |at| Ok(sessions(at.0, &plan, at.1, at.2).await?)).await
            }
            Mode::Idle(args) => {
                let plan = Idle {
                    dialect: args.dialect,
                    members: args.members,
                    duration: args.duration,
                    settle: args.settle,
                };
                args.common.run(async |at| Ok(idle(at.0, &plan, at.1, at.2).await?)).await
            }
            Mode::Storm(args) => {
                let plan = Storm {
                    member: args.dialects.member(),
                    joiner: args.dialects.joiner(),
                    joiners: args.joiners,
                    connected: args.connected,
                };
                args.common.run(async |at| Ok(storm(at.0, &plan, at.1, at.2).await?)).await
            }
            Mode::RetainedMemory(args) => {
                let plan = RetainedMemoryPlan { dialect: args.dialect, rooms: args.rooms, bytes: args.bytes };
                let measure = async |at: At<'_>| match at.1 {
                    Some(watched) => Ok(kept(at.0, &plan, watched, at.2).await?),
                    None => bail!("kept looks at the server's memory: --pid PID is needed"),
                };
                args.common.run(measure).await
            }
        }
    }
}

/// Where something is measured, and who is told.
type At<'a> = (&'a Target, Option<&'a Process>, &'a Progress);

impl Load {
    async fn run(&self, common: &Common, member: Protocol, joiner: Protocol) -> Result<ExitCode> {
        let plan = Relay {
            member,
            joiner,
            rooms: self.rooms,
            in_flight: self.in_flight,
            bytes: self.bytes,
            duration: self.duration,
            rate: self.rate,
        };
        common.run(async |at| Ok(relay(at.0, &plan, at.1, at.2).await?)).await
    }
}

impl Common {
    async fn run<T: Serialize + RenderText>(
        &self,
        measure: impl AsyncFnOnce(At<'_>) -> Result<T>,
    ) -> Result<ExitCode> {
        let target = Target::parse(&self.url)?;
        let watched = self.pid.map(Process::of).transpose()?;
        let bar = bar();
        let progress = {
            let bar = bar.clone();
            Progress::new(move |phase| show(&bar, phase))
        };
        let stopper = tokio::spawn(stop_on_ctrl_c(progress.clone()));
        let result = measure((&target, watched.as_ref(), &progress)).await;
        stopper.abort();
        bar.finish_and_clear();
        let result = result.with_context(|| target.to_string())?;
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&result)?),
            false => print!("{}", result.in_words()),
        }
        Ok(if result.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Ends the measurement with what there is at the first Ctrl-C, and the program at the second.
async fn stop_on_ctrl_c(progress: Progress) {
    if tokio::signal::ctrl_c().await.is_ok() {
        progress.stop();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(INTERRUPTED);
    }
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds: f64 = text.parse()?;
    if seconds.is_nan() || seconds <= 0.0 {
        bail!("it must be more than nothing");
    }
    Ok(Duration::try_from_secs_f64(seconds)?)
}

/// A bar on a terminal, and nothing elsewhere.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, draw_target());
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, phase: Phase) {
    let (done, of, words) = match phase {
        Phase::Connecting { done, of } => (done as u64, of as u64, format!("connecting {done}/{of}")),
        Phase::Exchanging { done, of } => (done as u64, of as u64, format!("exchanging {done}/{of}")),
        Phase::Measuring { seconds, of } => {
            ((seconds * 1e3) as u64, (of * 1e3) as u64, "measuring".to_owned())
        }
    };
    if !bar.is_hidden() {
        bar.set_length(of);
        bar.set_position(done);
        bar.set_message(words);
    }
}
