//! `sigver replay`: its options, the server that each scenario is played against, and the output.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::output;
use crate::tools::client::random_key;
use crate::tools::dial::{Target, TokenArgs, TrustArgs};
use crate::tools::replay::client_views::ClientViews;
use crate::tools::replay::compare::{Comparison, ComparisonOrder, ComparisonRules, compare};
use crate::tools::replay::meant::MeantDifference;
use crate::tools::replay::player::{PlayOptions, play};
use crate::tools::replay::rename::needs_own_server;
use crate::tools::replay::script::{Observed, Seen, steps};
use crate::tools::replay::transcript::{self, FrameKind, RecordedEvent, Scenario, glob};
use crate::tools::{draw_target, ephemeral_server};

const ABOUT: &str = "\
FILE is a recording as 'sigver record' makes it, or a folder of them; docs/reference/transcript-format.md describes the format. Without a URL, the \
recordings are played against a server of this program, for the time of the command.

Ids that a server generates may differ, if they differ consistently. Room keys get a suffix, so that one server can be \
used repeatedly.

Exit code: 0 if there is no difference, 1 if there is one, 2 if the recordings could not be played.";

/// The time at which the clients of a recording act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pace {
    /// At the recorded times, if the server did something by itself in a conversation of some seconds, such
    /// as a heartbeat; else quickly.
    Auto,
    /// At the recorded times; frames must arrive at their times, too.
    Recorded,
    /// Quickly: each action as soon as no more consequences of the last one can arrive.
    Quick,
}

/// The options of `sigver replay`.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct ReplayArgs {
    /// Recordings, then the server's URL, as ws://HOST:PORT or wss://HOST
    #[arg(required = true, value_name = "FILE... [URL]")]
    recordings: Vec<String>,
    /// Only scenarios of this name; * stands for any characters
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
    /// Protocols of the server of this program, as --protocol of the gateway [default: auto]
    #[arg(long, value_name = "LIST")]
    protocol: Option<String>,
    /// Times at which clients act
    #[arg(long, value_enum, default_value = "auto")]
    pace: Pace,
    /// Tolerance of the arrival of a frame at its recorded time, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 400)]
    tolerance: u64,
    /// Compare what each client received after each step, and not only in which order: for scripted
    /// conversations, in which no client acts while a frame is in transit
    #[arg(long)]
    steps: bool,
    /// Leave room keys as they are; scenarios are then played one after the other
    #[arg(long)]
    keep_keys: bool,
    /// Number of scenarios that are played concurrently
    #[arg(long, value_name = "N", default_value_t = 4)]
    jobs: usize,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    token: TokenArgs,
}

/// Duration of a conversation beyond which a server may send frames unprompted, in milliseconds.
const MIN_UNPROMPTED_DURATION: u64 = 3000;
/// Delay after an action, in milliseconds, beyond which a frame is not its consequence.
const CONSEQUENCE_TIME: u64 = 300;

/// The scenarios to play, with the names of their files, and the servers to play them against.
struct ReplayPlan {
    scenarios: Vec<(String, Scenario)>,
    skipped: usize,
    servers: Servers,
}

/// The result of one scenario.
#[derive(Serialize)]
struct ScenarioResult {
    file: String,
    version: String,
    scenario: String,
    #[serde(flatten)]
    comparison: Comparison,
    notes: Vec<String>,
}

/// The result of all scenarios.
#[derive(Default, Serialize)]
struct ReplayReport {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// True if what each client received was compared step by step.
    #[serde(skip)]
    is_stepwise: bool,
    /// The meant differences of all scenarios.
    meant: Vec<MeantDifference>,
    scenarios: Vec<ScenarioResult>,
}

/// The servers to play against.
enum Servers {
    /// The server that the user named.
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
    /// Plays the recordings. Returns the exit code.
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let plan = self.plan().await?;
        let mut report =
            ReplayReport { skipped: plan.skipped, is_stepwise: self.steps, ..ReplayReport::default() };
        let bar = progress_bar(plan.scenarios.len());
        let mut results = pin!(self.execute(&plan));
        while let Some(result) = results.next().await {
            let result = result?;
            bar.inc(1);
            if !self.json {
                bar.suspend(|| output::print(&result.to_text()))?;
            }
            report.add(result);
        }
        bar.finish_and_clear();
        if self.json {
            output::print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
        } else {
            output::print(&report.summary())?;
        }
        Ok(if report.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn plan(&self) -> Result<ReplayPlan> {
        let is_url = |argument: &String| argument.contains("://");
        let (url, files) = match self.recordings.split_last() {
            Some((last, files)) if is_url(last) => (Some(last), files),
            _ => (None, &self.recordings[..]),
        };
        if let Some(url) = files.iter().find(|argument| is_url(argument)) {
            bail!("{url}: the server comes last, and there is one");
        }
        if files.is_empty() {
            bail!("no recording is named");
        }
        let (scenarios, skipped) = self.scenarios(files)?;
        let servers = match (url, &self.protocol) {
            (Some(_), Some(_)) => {
                bail!("--protocol is for the server of this program, not for the server of a URL")
            }
            (Some(url), None) => {
                let target = Target::with_trust(url, &self.trust)?.with_token(&self.token)?;
                // A server that cannot be reached is an error, not a difference.
                target.check(&format!("/{}", random_key())).await?;
                Servers::Given(target)
            }
            (None, protocol) => Servers::own(protocol.as_deref().unwrap_or("auto")).await?,
        };
        Ok(ReplayPlan { scenarios, skipped, servers })
    }

    /// Plays the scenarios; returns their results in order, each as soon as it is known.
    fn execute(&self, plan: &ReplayPlan) -> impl Stream<Item = Result<ScenarioResult>> {
        let has_own_servers = matches!(plan.servers, Servers::Own { .. });
        let is_exclusive = |scenario: &Scenario| self.keep_keys || needs_own_server(scenario);
        let is_serial = !has_own_servers && plan.scenarios.iter().any(|(_, scenario)| is_exclusive(scenario));
        let results = plan.scenarios.iter().map(move |(file, scenario)| async move {
            let target = plan.servers.target(has_own_servers && is_exclusive(scenario)).await?;
            Ok(self.play(file, scenario, target).await)
        });
        stream::iter(results).buffered(if is_serial { 1 } else { self.jobs.max(1) })
    }

    /// Returns the scenarios to play, with the names of their files, and the number of scenarios that
    /// cannot be played.
    fn scenarios(&self, files: &[String]) -> Result<(Vec<(String, Scenario)>, usize)> {
        let wanted = |name: &str| self.scenario.is_empty() || self.scenario.iter().any(|p| glob(p, name));
        let (mut scripts, mut skipped) = (Vec::new(), 0);
        for file in &recordings(files)? {
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
        let files = files.join(", ");
        match (scripts.is_empty(), skipped) {
            (false, _) => Ok((scripts, skipped)),
            (true, 0) if self.scenario.is_empty() => bail!("nothing is recorded in {files}"),
            (true, 0) => bail!("there is no such scenario to play in {files}"),
            (true, _) => bail!("there are only scenarios without WebSockets in {files}"),
        }
    }

    fn order(&self, script: &Scenario) -> ComparisonOrder {
        let timed = match self.pace {
            Pace::Auto => script.is_timed() || has_unprompted_frames(script),
            Pace::Recorded => true,
            Pace::Quick => false,
        };
        match (timed, self.steps && !script.is_timed()) {
            (true, _) => ComparisonOrder::Times,
            (false, true) => ComparisonOrder::Steps,
            (false, false) => ComparisonOrder::Clients,
        }
    }

    async fn play(&self, file: &str, script: &Scenario, target: Target) -> ScenarioResult {
        let order = self.order(script);
        let mut options = PlayOptions::new(target);
        options.suffix = (!self.keep_keys).then(|| format!("r{:08x}", fastrand::u32(..)));
        options.eager = true;
        options.order = order;
        options.tolerance = Duration::from_millis(self.tolerance);
        let actual = play(script, &options).await;
        let rules =
            ComparisonRules { tolerance: self.tolerance, order, explain: true, ..ComparisonRules::default() };
        let comparison = compare(script, &actual, rules);
        let notes = actual.records.into_iter().filter_map(|record| match record.event {
            RecordedEvent::Note(note) => Some(format!("note at {} ms: {note}", record.t)),
            _ => None,
        });
        ScenarioResult {
            file: file.to_owned(),
            version: script.version.clone(),
            scenario: script.name.clone(),
            comparison,
            notes: notes.collect(),
        }
    }
}

/// Returns the names of the recordings: the files, and those in folders that `sigver record` wrote.
fn recordings(names: &[String]) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for name in names {
        if !Path::new(name).is_dir() {
            files.push(name.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(name).with_context(|| format!("cannot read {name}"))? {
            let path = entry.with_context(|| format!("cannot read {name}"))?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                inside.push(path.to_string_lossy().into_owned());
            }
        }
        if inside.is_empty() {
            bail!("there is no recording (*.jsonl) in the folder {name}");
        }
        // session_2 before session_10.
        inside.sort_by_key(|path| (path.len(), path.clone()));
        files.append(&mut inside);
    }
    Ok(files)
}

/// Returns true if the server seems to have sent frames without an action of a client: heartbeats, and what
/// arrived late after the last action.
fn has_unprompted_frames(script: &Scenario) -> bool {
    let views = ClientViews::from_scenario(script);
    let is_heartbeat = |seen: &Seen| match &seen.what {
        Observed::Frame(frame) if frame.op == FrameKind::Binary => {
            views.dialect(&seen.peer).is_heartbeat(&frame.bytes)
        }
        _ => false,
    };
    let late = |t: u64, steps_t: u64| t.saturating_sub(steps_t) > CONSEQUENCE_TIME;
    script.duration() > MIN_UNPROMPTED_DURATION
        && steps(script)
            .iter()
            .any(|step| step.seen.iter().any(|seen| late(seen.t, step.t) || is_heartbeat(seen)))
}

fn progress_bar(scenarios: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(u64::try_from(scenarios).ok(), draw_target());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} scenarios {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

impl ScenarioResult {
    /// Returns the differences as lines of text; none if there are no differences.
    fn to_text(&self) -> String {
        if self.comparison.differences.is_empty() {
            return String::new();
        }
        let mut text = format!("--- {}: {} {}\n", self.file, self.version, self.scenario);
        for difference in &self.comparison.differences {
            text.push_str(&format!("  {}\n", difference.to_string().replace('\n', "\n  ")));
        }
        self.notes.iter().for_each(|note| text.push_str(&format!("  {note}\n")));
        text
    }
}

impl ReplayReport {
    fn add(&mut self, result: ScenarioResult) {
        match result.comparison.differences.is_empty() {
            true => self.passed += 1,
            false => self.failed += 1,
        }
        for found in &result.comparison.meant {
            match self.meant.iter_mut().find(|known| known.meaning == found.meaning) {
                Some(known) => known.count += found.count,
                None => self.meant.push(found.clone()),
            }
        }
        self.meant.sort_by_key(|difference| difference.id);
        self.scenarios.push(result);
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        if !self.meant.is_empty() {
            text.push_str("Meant differences (docs/reference/differences.md):\n");
        }
        for MeantDifference { id, meaning, count } in &self.meant {
            text.push_str(&format!("  {id}  {count:>3} x  {meaning}\n"));
        }
        let hint = match self.is_stepwise && self.failed > 0 {
            true => {
                "Real clients act while frames are in transit: replay their recordings without --steps.\n"
            }
            false => "",
        };
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!(", {skipped} without WebSockets skipped"),
        };
        format!("{text}{hint}{} passed, {} failed{skipped}\n", self.passed, self.failed)
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
    fn unprompted_frames_are_detected() {
        assert!(!has_unprompted_frames(&script(5, 9000)), "the client waited for long");
        assert!(!has_unprompted_frames(&script(800, 900)), "the conversation is short");
        assert!(has_unprompted_frames(&script(5000, 9000)));
    }
}
