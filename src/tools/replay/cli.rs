//! `sigver replay`: its options, which scenario is played against which server, and what is printed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};

use crate::tools::dial::Target;
use crate::tools::ephemeral_server;
use crate::tools::replay::compare::{Comparison, ComparisonOrder, ComparisonRules, compare};
use crate::tools::replay::player::{PlayOptions, play};
use crate::tools::replay::rename::needs_own_server;
use crate::tools::replay::script::steps;
use crate::tools::replay::transcript::{self, RecordedEvent, Scenario, glob};

const ABOUT: &str = "\
FILE is a recording as 'sigver record' makes it; docs/reference/transcript-format.md describes the format. Without a URL, the \
recordings are played against a server of this program, for the time of the command.

IdMapping that a server draws may differ, if they differ consistently. Room keys get a suffix, so that a server can be used \
again and again.

Exit code: 0 if nothing is different, 1 if something is, 2 if it could not be tried.";

/// The time at which the clients of a recording act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pace {
    /// At the recorded times, if the server did something by itself in a conversation of some seconds, such
    /// as a heartbeat; else quickly.
    Auto,
    /// At the recorded times, and what comes must come at its time.
    Recorded,
    /// When no more consequences of the last action can arrive
    Quick,
}

/// The options.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct ReplayArgs {
    /// Recordings, then the server's URL, as ws://HOST:PORT or wss://HOST
    #[arg(required = true, value_name = "FILE... [URL]")]
    what: Vec<String>,
    /// Only scenarios of this name; * stands for any characters
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// One JSON object, for programs
    #[arg(long)]
    json: bool,
    /// Protocols of the server of this program, as --protocol of the gateway [default: auto]
    #[arg(long, value_name = "LIST")]
    protocol: Option<String>,
    /// Times at which clients act
    #[arg(long, value_enum, default_value = "auto")]
    pace: Pace,
    /// At the recorded times, how much earlier or later something may come, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 400)]
    tolerance: u64,
    /// Compare what each client saw after each step, and not only what it saw in which order: for scripted
    /// conversations, in which no client acts while a frame is in transit
    #[arg(long)]
    steps: bool,
    /// Leave room keys as they are; scenarios are then played one after the other
    #[arg(long)]
    keep_keys: bool,
    /// Number of scenarios that are played concurrently
    #[arg(long, value_name = "N", default_value_t = 4)]
    jobs: usize,
}

/// In a conversation longer than this, in milliseconds, a server may do something by itself.
const LONG: u64 = 3000;
/// Delay after an action, in milliseconds, beyond which a frame is not its consequence.
const BY_ITSELF: u64 = 300;

/// A scenario that was played.
struct Played {
    file: String,
    scenario: Scenario,
    comparison: Comparison,
    notes: Vec<String>,
}

/// The servers to play against.
enum Servers {
    /// The user's.
    Given(Target),
    /// Servers of this program: a shared one, and new ones for scenarios that need their own.
    Own { shared: Target, protocol: String },
}

impl Servers {
    async fn own(protocol: &str) -> Result<Servers> {
        let shared = ephemeral_server::start(protocol).await?.into();
        Ok(Servers::Own { shared, protocol: protocol.to_owned() })
    }

    async fn target(&self, alone: bool) -> Result<Target> {
        match self {
            Servers::Given(target) => Ok(target.clone()),
            Servers::Own { protocol, .. } if alone => Ok(ephemeral_server::start(protocol).await?.into()),
            Servers::Own { shared, .. } => Ok(shared.clone()),
        }
    }
}

impl ReplayArgs {
    /// Runs it.
    pub(crate) async fn run(mut self) -> Result<ExitCode> {
        let is_url = |what: &String| what.contains("://");
        let url = self.what.pop_if(|last| is_url(last));
        if let Some(url) = self.what.iter().find(|what| is_url(what)) {
            bail!("{url}: the server comes last, and there is one");
        }
        if self.what.is_empty() {
            bail!("no recording is named");
        }
        let (scripts, skipped) = self.scripts()?;
        let servers = match (&url, &self.protocol) {
            (Some(_), Some(_)) => {
                bail!("--protocol is for the server of this program, not for that of a URL")
            }
            (Some(url), None) => {
                let target = Target::parse(url)?;
                // A server that cannot be reached is an error, not a difference.
                drop(target.dial().await?);
                Servers::Given(target)
            }
            (None, protocol) => Servers::own(protocol.as_deref().unwrap_or("auto")).await?,
        };
        let own = matches!(servers, Servers::Own { .. });
        let alone = |script: &Scenario| self.keep_keys || needs_own_server(script);
        let jobs = if !own && scripts.iter().any(|(_, script)| alone(script)) { 1 } else { self.jobs.max(1) };
        let (this, servers) = (&self, &servers);
        let played = scripts.into_iter().map(|(file, script)| async move {
            let alone = own && (this.keep_keys || needs_own_server(&script));
            let target = servers.target(alone).await?;
            anyhow::Ok(this.play(file, script, target).await)
        });
        let mut played = stream::iter(played).buffered(jobs);
        let (mut passed, mut failed, mut list) = (0, 0, Vec::new());
        while let Some(scenario) = played.next().await {
            let scenario = scenario?;
            match scenario.comparison.differences.is_empty() {
                true => passed += 1,
                false => failed += 1,
            }
            match self.json {
                true => list.push(scenario.json()),
                false => scenario.print(),
            }
        }
        if self.json {
            let all = json!({"passed": passed, "failed": failed, "skipped": skipped, "scenarios": list});
            println!("{all:#}");
        } else {
            let skipped =
                if skipped > 0 { format!(", {skipped} without WebSockets skipped") } else { String::new() };
            println!("{passed} passed, {failed} failed{skipped}");
        }
        Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// The scenarios to play, with the names of their files, and how many cannot be.
    fn scripts(&self) -> Result<(Vec<(String, Scenario)>, usize)> {
        let wanted = |name: &str| self.scenario.is_empty() || self.scenario.iter().any(|p| glob(p, name));
        let (mut scripts, mut skipped) = (Vec::new(), 0);
        for file in &self.what {
            let text = std::fs::read_to_string(PathBuf::from(file))
                .with_context(|| format!("cannot read {file}"))?;
            for script in transcript::parse(&text).with_context(|| file.clone())? {
                match (wanted(&script.name), script.is_playable()) {
                    (true, true) => scripts.push((file.clone(), script)),
                    (true, false) => skipped += 1,
                    (false, _) => {}
                }
            }
        }
        if scripts.is_empty() {
            bail!("there is no such scenario to play in {}", self.what.join(", "));
        }
        Ok((scripts, skipped))
    }

    fn order(&self, script: &Scenario) -> ComparisonOrder {
        let timed = match self.pace {
            Pace::Auto => script.is_timed() || acts_by_itself(script),
            Pace::Recorded => true,
            Pace::Quick => false,
        };
        match (timed, self.steps && !script.is_timed()) {
            (true, _) => ComparisonOrder::Times,
            (false, true) => ComparisonOrder::Steps,
            (false, false) => ComparisonOrder::Clients,
        }
    }

    async fn play(&self, file: String, script: Scenario, target: Target) -> Played {
        let order = self.order(&script);
        let mut options = PlayOptions::new(target);
        options.suffix = (!self.keep_keys).then(|| format!("r{:08x}", fastrand::u32(..)));
        options.eager = true;
        options.order = order;
        options.tolerance = Duration::from_millis(self.tolerance);
        let actual = play(&script, &options).await;
        let rules = ComparisonRules { tolerance: self.tolerance, order, ..ComparisonRules::default() };
        let comparison = compare(&script, &actual, rules);
        let notes = actual.records.into_iter().filter_map(|record| match record.event {
            RecordedEvent::Note(note) => Some(format!("note at {} ms: {note}", record.t)),
            _ => None,
        });
        let notes = notes.collect();
        Played { file, scenario: script, comparison, notes }
    }
}

/// Returns true if the server seems to have sent frames without an action of a client.
fn acts_by_itself(script: &Scenario) -> bool {
    let late = |t: u64, steps_t: u64| t.saturating_sub(steps_t) > BY_ITSELF;
    script.duration() > LONG
        && steps(script).iter().any(|step| step.seen.iter().any(|seen| late(seen.t, step.t)))
}

impl Played {
    fn print(&self) {
        if self.comparison.differences.is_empty() {
            return;
        }
        println!("--- {}: {} {}", self.file, self.scenario.version, self.scenario.name);
        for difference in &self.comparison.differences {
            println!("  {}", difference.to_string().replace('\n', "\n  "));
        }
        self.notes.iter().for_each(|note| println!("  {note}"));
    }

    fn json(&self) -> Value {
        let differences = self.comparison.differences.iter().map(|d| {
            json!({
                "step": d.step, "action": d.action, "peer": d.peer, "kind": d.kind.name(),
                "expected": d.expected, "actual": d.actual,
            })
        });
        json!({
            "file": self.file,
            "version": self.scenario.version,
            "scenario": self.scenario.name,
            "frames": self.comparison.frames,
            "differences": differences.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(seen: u64, end: u64) -> Scenario {
        let line = |t: u64, rest: &str| format!(r#"{{"v":"any","sc":"s","t":{t},"peer":"P1",{rest}}}"#);
        let lines = [
            line(0, r#""dir":"connect","path":"/k""#),
            line(seen, r#""dir":"open""#),
            line(end, r#""dir":"send-close","code":1000,"reason":"""#),
        ];
        transcript::parse(&lines.join("\n")).unwrap().remove(0)
    }

    #[test]
    fn unprompted_frames_make_times_count() {
        assert!(!acts_by_itself(&script(5, 9000)), "the client thought for long");
        assert!(!acts_by_itself(&script(800, 900)), "it is short");
        assert!(acts_by_itself(&script(5000, 9000)));
    }
}
