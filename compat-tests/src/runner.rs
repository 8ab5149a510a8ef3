//! Concurrent runs of many scripts: the server for each, the side it is compared with, and repetitions.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::compare::{Comparison, ComparisonRules, Difference, compare};
use crate::exceptions::{Exceptions, Mode};
use crate::goldens::Original;
use crate::oracle::Server;
use crate::peer::AutoReply;
use crate::player::{PlayOptions, play};
use crate::rename::needs_own_server;
use crate::transcript::{RecordedEvent, Scenario, TranscriptRecord};
use sigver::tools::replay::json_view::{client_view, with_numbers};

/// Attempts at a scenario with a random choice before it counts as different.
const MAX_ATTEMPTS: usize = 20;
/// Repetitions of a script with an unintended difference, after all others are done: on a busy machine a
/// heartbeat may arrive in the middle of a script.
const MAX_REPETITIONS: usize = 2;
/// Number of differing scripts above which nothing is repeated: the machine is not the cause.
const MAX_REPEATED_SCRIPTS: usize = 60;
/// Number of concurrent scripts in repetitions. Timed scripts mostly wait.
const REPETITION_JOBS: usize = 2;
/// Number of Node.js servers that start concurrently.
const CONCURRENT_STARTS: usize = 3;

/// Target of a run.
#[derive(Clone, Debug)]
pub enum Target {
    /// The Node.js servers, compared with the recordings.
    Originals,
    /// The gateway, compared with the recordings.
    Ours(Mode),
    /// The gateway, compared with the Node.js server at the same time.
    SideBySide,
}

/// Plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Target.
    pub target: Target,
    /// Directory of the installed Node.js servers.
    pub originals: PathBuf,
    /// Binary of the gateway.
    pub server: PathBuf,
    /// Addresses of gateways that run already, by the protocol that they serve, `auto` or `sigver-20.1.0`. If
    /// there are any, they are played with in place of processes of the run's own.
    pub running: HashMap<String, SocketAddr>,
    /// True to pin by dialect (`sigver-15`) rather than by version (`sigver-15.0.2`).
    pub by_dialect: bool,
    /// Number of concurrent scripts.
    pub jobs: usize,
    /// Number of concurrent timed scripts, which mostly wait.
    pub timed_jobs: usize,
    /// Tolerance for the time of a frame in timed scripts.
    pub tolerance: Duration,
    /// Intended differences. Where the server chooses at random, a play without other differences counts as
    /// equal.
    pub exceptions: Arc<Exceptions>,
}

/// Outcome of a script.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Version of the Node.js server.
    pub version: &'static str,
    /// Name of the scenario.
    pub scenario: String,
    /// Mode of the gateway, if it was the target.
    pub mode: Option<Mode>,
    /// Comparison of the last play.
    pub comparison: Comparison,
    /// Number of plays.
    pub plays: usize,
    /// Transcript of the last play.
    pub actual: Option<Scenario>,
    /// Reason for which it could not be played.
    pub error: Option<String>,
    /// True if the gateway exited, which no repetition excuses.
    pub died: bool,
    /// Differences of an earlier play, if a later one was better.
    pub earlier: Vec<Difference>,
}

impl Outcome {
    /// Returns true if all differences are intended.
    fn is_good(&self, exceptions: &Exceptions) -> bool {
        let meant = |difference| {
            self.mode.is_some_and(|m| exceptions.lists(m, self.version, &self.scenario, difference))
        };
        self.error.is_none() && self.comparison.differences.iter().all(meant)
    }
}

/// The gateway must keep running, whatever the Node.js server did.
#[derive(Debug)]
struct Died(String);

impl std::fmt::Display for Died {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "our server died: {}", self.0)
    }
}

impl std::error::Error for Died {}

/// Servers that scripts share.
struct Servers {
    originals: HashMap<&'static str, Arc<Server>>,
    gateway: HashMap<&'static str, Arc<Server>>,
}

impl Plan {
    fn protocol(&self, original: &Original) -> String {
        match &self.target {
            Target::Ours(Mode::Auto) => "auto".to_owned(),
            _ if self.by_dialect => original.dialect.to_owned(),
            _ => format!("sigver-{}", original.version),
        }
    }

    fn mode(&self) -> Option<Mode> {
        match &self.target {
            Target::Originals => None,
            Target::Ours(mode) => Some(*mode),
            Target::SideBySide => Some(Mode::Pinned),
        }
    }

    async fn servers(&self, originals: &[&'static Original]) -> Result<Servers> {
        let mut servers = Servers { originals: HashMap::new(), gateway: HashMap::new() };
        let mut starting = JoinSet::new();
        let starts = Arc::new(Semaphore::new(CONCURRENT_STARTS));
        let gateway = self.running.is_empty() && !matches!(self.target, Target::Originals);
        let theirs = !matches!(self.target, Target::Ours(_));
        for original in originals.iter().copied().filter(|o| theirs && !o.crashes) {
            let (dir, starts) = (self.originals.clone(), starts.clone());
            starting.spawn(async move {
                let _permit = starts.acquire_owned().await;
                (original.version, Server::original(&dir, original).await)
            });
        }
        while let Some(started) = starting.join_next().await {
            let (version, server) = started?;
            servers.originals.insert(version, Arc::new(server?));
        }
        let mut by_protocol: HashMap<String, Arc<Server>> = HashMap::new();
        for original in originals.iter().filter(|_| gateway) {
            let protocol = self.protocol(original);
            let server = match by_protocol.get(&protocol) {
                Some(server) => server.clone(),
                None => Arc::new(Server::gateway(&self.server, &protocol).await?),
            };
            by_protocol.insert(protocol, server.clone());
            servers.gateway.insert(original.version, server);
        }
        Ok(servers)
    }
}

/// A release and one of its scripts.
type Script = (&'static Original, Scenario);

/// Plays every script and compares. Outcomes are in the order of the scripts.
pub async fn run(plan: &Plan, scripts: Vec<Script>) -> Result<Vec<Outcome>> {
    let mut originals: Vec<&'static Original> = Vec::new();
    for (original, _) in &scripts {
        if !originals.contains(original) {
            originals.push(original);
        }
    }
    let servers = Arc::new(plan.servers(&originals).await?);
    let scripts = Arc::new(scripts);
    let all = (0..scripts.len()).collect();
    let mut outcomes: Vec<Outcome> =
        round(plan, &servers, &scripts, all, plan.jobs).await?.into_values().collect();
    for _ in 0..MAX_REPETITIONS {
        let again = |o: &Outcome| !o.died && !o.is_good(&plan.exceptions);
        let doubtful: Vec<usize> = (0..outcomes.len()).filter(|i| again(&outcomes[*i])).collect();
        if doubtful.is_empty() || doubtful.len() > MAX_REPEATED_SCRIPTS {
            break;
        }
        for (index, next) in round(plan, &servers, &scripts, doubtful, REPETITION_JOBS).await? {
            let last = std::mem::replace(&mut outcomes[index], next);
            let outcome = &mut outcomes[index];
            outcome.plays += last.plays;
            outcome.earlier =
                if last.earlier.is_empty() { last.comparison.differences } else { last.earlier };
        }
    }
    Ok(outcomes)
}

/// Plays scripts concurrently, at most `jobs` at a time.
async fn round(
    plan: &Plan,
    servers: &Arc<Servers>,
    scripts: &Arc<Vec<Script>>,
    which: Vec<usize>,
    jobs: usize,
) -> Result<BTreeMap<usize, Outcome>> {
    let quick = Arc::new(Semaphore::new(jobs.max(1)));
    let timed = Arc::new(Semaphore::new(plan.timed_jobs.max(1)));
    let mut tasks = JoinSet::new();
    for index in which {
        let permits = if scripts[index].1.is_timed() { timed.clone() } else { quick.clone() };
        let (plan, servers, scripts) = (plan.clone(), servers.clone(), scripts.clone());
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let (original, script) = &scripts[index];
            (index, outcome(&plan, &servers, original, script).await)
        });
    }
    let mut outcomes = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        let (index, outcome) = done.context("a script's task failed")?;
        outcomes.insert(index, outcome);
    }
    Ok(outcomes)
}

async fn outcome(plan: &Plan, servers: &Servers, original: &'static Original, script: &Scenario) -> Outcome {
    let script = &match plan.target {
        Target::Ours(Mode::Auto) => with_numbers(script),
        _ => script.clone(),
    };
    let mut outcome = Outcome {
        version: original.version,
        scenario: script.name.clone(),
        mode: plan.mode(),
        comparison: Comparison::default(),
        plays: 0,
        actual: None,
        error: None,
        died: false,
        earlier: Vec::new(),
    };
    let random_choices = original.random_choices(&script.name);
    let draws = if random_choices.is_some_and(|l| l.members.is_empty()) { MAX_ATTEMPTS } else { 1 };
    let rules = ComparisonRules {
        tolerance: u64::try_from(plan.tolerance.as_millis()).unwrap_or(u64::MAX),
        interchangeable: random_choices.map_or(&[], |l| l.members),
        ..ComparisonRules::default()
    };
    while outcome.plays < draws {
        outcome.plays += 1;
        match once(plan, servers, original, script).await {
            Ok((expected, actual)) => {
                outcome.comparison = compare(expected.as_ref().unwrap_or(script), &actual, rules);
                outcome.actual = Some(actual);
            }
            Err(error) => {
                outcome.died = error.is::<Died>();
                outcome.error = Some(format!("{error:#}"));
            }
        }
        if outcome.error.is_some() || outcome.is_good(&plan.exceptions) {
            break;
        }
    }
    outcome
}

/// Plays once. Returns the expected transcript, if it is not the script, and the actual one.
async fn once(
    plan: &Plan,
    servers: &Servers,
    original: &'static Original,
    script: &Scenario,
) -> Result<(Option<Scenario>, Scenario)> {
    match plan.target {
        Target::Originals => Ok((None, play_original(plan, servers, original, script).await?)),
        Target::Ours(_) => Ok((None, play_gateway(plan, servers, original, script).await?)),
        Target::SideBySide => {
            let (theirs, gateway) = tokio::join!(
                play_original(plan, servers, original, script),
                play_gateway(plan, servers, original, script)
            );
            Ok((Some(theirs?), gateway?))
        }
    }
}

async fn play_original(
    plan: &Plan,
    servers: &Servers,
    original: &'static Original,
    script: &Scenario,
) -> Result<Scenario> {
    match servers.originals.get(original.version).filter(|_| !needs_own_server(script)) {
        Some(server) => play_shared(plan, server, script).await,
        None => play_alone(&plan.originals, original, script, |o| o).await,
    }
}

async fn play_gateway(
    plan: &Plan,
    servers: &Servers,
    original: &'static Original,
    script: &Scenario,
) -> Result<Scenario> {
    if !plan.running.is_empty() {
        let protocol = plan.protocol(original);
        let address = *plan.running.get(&protocol).with_context(|| format!("no gateway for {protocol}"))?;
        let mut played = play(script, &options(plan, address, script)).await;
        let event = RecordedEvent::Server { alive: true, exit: serde_json::Value::Null, error: None };
        finish(script, &mut played, event);
        return Ok(played);
    }
    let server = if needs_own_server(script) {
        Arc::new(Server::gateway(&plan.server, &plan.protocol(original)).await?)
    } else {
        servers.gateway.get(original.version).context("our server was not started")?.clone()
    };
    let played = play_shared(plan, &server, script).await?;
    match server.exit() {
        Some(code) => Err(Died(format!("{code:?}, {}", server.errors())).into()),
        None => Ok(played),
    }
}

async fn play_shared(plan: &Plan, server: &Server, script: &Scenario) -> Result<Scenario> {
    let played = play(script, &options(plan, server.addr, script)).await;
    // A shared server must not exit, whatever the Node.js server did.
    Ok(with_state(script, played, server, true).await)
}

/// Returns the options of a play with a server that others use as well.
fn options(plan: &Plan, address: SocketAddr, script: &Scenario) -> PlayOptions {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let mut options = PlayOptions::new(address);
    options.suffix = Some(format!("r{number:x}"));
    if let Target::Ours(Mode::Auto) = plan.target {
        options.eager = true;
        options.auto_reply = probe_reply(&script.version);
        options.client_view = Some(client_view);
    }
    options.tolerance = plan.tolerance;
    options
}

/// Plays against a fresh Node.js server, with unchanged keys.
pub async fn play_alone(
    dir: &Path,
    original: &Original,
    script: &Scenario,
    adjust: impl FnOnce(PlayOptions) -> PlayOptions,
) -> Result<Scenario> {
    let server = Server::original(dir, original).await?;
    let played = play(script, &adjust(PlayOptions::new(server.addr))).await;
    Ok(with_state(script, played, &server, script.alive().unwrap_or(true)).await)
}

/// Returns the transcript with its final line, which also records the duration.
async fn with_state(script: &Scenario, mut played: Scenario, server: &Server, should_live: bool) -> Scenario {
    let event = server.state(should_live).await;
    finish(script, &mut played, event);
    played
}

fn finish(script: &Scenario, played: &mut Scenario, event: RecordedEvent) {
    let waited = if script.is_timed() { script.duration() } else { 0 };
    let t = played.duration().max(waited);
    played.records.push(TranscriptRecord { t, peer: None, event });
}

/// Reaction of real clients to the gateway's probe (measured on netflux 1.1.0-beta.7 to 4.3.1, C40 in the
/// table of differences): those of sigver 15 treat it as a ping and answer, those of 16 to 18 as
/// a heartbeat, those of 19 and 20 ignore it.
fn probe_reply(version: &str) -> Option<AutoReply> {
    let (pong, heartbeat): (&[u8], &[u8]) = (&[0x28, 0x01], &[0x20, 0x01]);
    let is = |majors: &[&str]| majors.iter().any(|major| version.starts_with(major));
    Some(AutoReply {
        is_shown: false,
        frame: &[0x10, 0x01, 0x20, 0x01],
        answer: is(&["15."]).then_some(pong),
        later: is(&["16.", "17.", "18."]).then_some(heartbeat),
    })
}
