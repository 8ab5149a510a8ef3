//! Runs many scripts at a time: which server each is played against, with what it is compared, and when it is played
//! again.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::compare::{Comparison, Difference, Rules, compare};
use crate::exceptions::{Exceptions, Mode};
use crate::goldens::Original;
use crate::hearing::{heard, with_numbers};
use crate::oracle::Server;
use crate::peer::AutoReply;
use crate::player::{Options, play};
use crate::rename::needs_own_server;
use crate::transcript::{Record, Scenario};

/// How often a scenario in which the server draws lots is played before it counts as different.
const DRAWS: usize = 20;
/// How often a script with a difference that is not listed is played again, once everything else is over and the
/// machine is quiet: on a busy one, a heartbeat may come in the middle of a script that should be over by then.
const AGAIN: usize = 2;
/// If more scripts than this differ, the machine is not what makes them differ.
const MANY: usize = 60;
/// How many scripts are played at a time when they are played again. Those about time mostly wait.
const AGAIN_JOBS: usize = 2;
/// How many originals are started at a time.
const STARTS: usize = 3;

/// Against what the scripts are played.
#[derive(Clone, Debug)]
pub enum Target {
    /// The originals, compared with the recordings.
    Originals,
    /// Our server, compared with the recordings.
    Ours(Mode),
    /// Our server, compared with the original at the same time.
    SideBySide,
}

/// What a run needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Against what.
    pub target: Target,
    /// Where the originals are installed.
    pub originals: PathBuf,
    /// Our server's binary.
    pub server: PathBuf,
    /// Pin our server by dialect (`sigver-15`) rather than by version (`sigver-15.0.2`).
    pub by_dialect: bool,
    /// How many scripts at a time.
    pub jobs: usize,
    /// How many scripts about time at a time; they mostly wait.
    pub timed_jobs: usize,
    /// In scripts about time, how far from its time a frame may come.
    pub tolerance: Duration,
    /// The differences that are meant: where lots are drawn, a play that differs in nothing else is as good as equal.
    pub exceptions: Arc<Exceptions>,
}

/// What came of one script.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The original it is about.
    pub version: &'static str,
    /// The scenario.
    pub scenario: String,
    /// How our server was started, if it was ours.
    pub mode: Option<Mode>,
    /// The comparison of the last time it was played.
    pub comparison: Comparison,
    /// How often it was played.
    pub plays: usize,
    /// What really happened, the last time.
    pub actual: Option<Scenario>,
    /// Why it could not be played.
    pub error: Option<String>,
    /// Whether our server died of it, which no other play makes good.
    pub died: bool,
    /// What was different in an earlier play, if a later one was better.
    pub earlier: Vec<Difference>,
}

impl Outcome {
    /// Whether there is nothing but what is listed.
    fn is_good(&self, exceptions: &Exceptions) -> bool {
        let meant = |difference| {
            self.mode.is_some_and(|m| exceptions.lists(m, self.version, &self.scenario, difference))
        };
        self.error.is_none() && self.comparison.differences.iter().all(meant)
    }
}

/// Our server must live, whatever the original did.
#[derive(Debug)]
struct Died(String);

impl std::fmt::Display for Died {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "our server died: {}", self.0)
    }
}

impl std::error::Error for Died {}

/// The servers that scripts share.
struct Servers {
    originals: HashMap<&'static str, Arc<Server>>,
    ours: HashMap<&'static str, Arc<Server>>,
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
        let mut servers = Servers { originals: HashMap::new(), ours: HashMap::new() };
        let mut starting = JoinSet::new();
        let starts = Arc::new(Semaphore::new(STARTS));
        let ours = !matches!(self.target, Target::Originals);
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
        for original in originals.iter().filter(|_| ours) {
            let protocol = self.protocol(original);
            let server = match by_protocol.get(&protocol) {
                Some(server) => server.clone(),
                None => Arc::new(Server::ours(&self.server, &protocol).await?),
            };
            by_protocol.insert(protocol, server.clone());
            servers.ours.insert(original.version, server);
        }
        Ok(servers)
    }
}

/// An original and one of its scripts.
type Script = (&'static Original, Scenario);

/// Plays every script and compares. The order of the outcomes is that of the scripts.
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
    for _ in 0..AGAIN {
        let again = |o: &Outcome| !o.died && !o.is_good(&plan.exceptions);
        let doubtful: Vec<usize> = (0..outcomes.len()).filter(|i| again(&outcomes[*i])).collect();
        if doubtful.is_empty() || doubtful.len() > MANY {
            break;
        }
        for (index, next) in round(plan, &servers, &scripts, doubtful, AGAIN_JOBS).await? {
            let last = std::mem::replace(&mut outcomes[index], next);
            let outcome = &mut outcomes[index];
            outcome.plays += last.plays;
            outcome.earlier =
                if last.earlier.is_empty() { last.comparison.differences } else { last.earlier };
        }
    }
    Ok(outcomes)
}

/// Plays these scripts, so many at a time.
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
    let lots = original.lots(&script.name);
    let draws = if lots.is_some_and(|l| l.members.is_empty()) { DRAWS } else { 1 };
    let rules = Rules {
        tolerance: u64::try_from(plan.tolerance.as_millis()).unwrap_or(u64::MAX),
        interchangeable: lots.map_or(&[], |l| l.members),
        ..Rules::default()
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

/// Plays once: what should have happened if that is not the script, and what did.
async fn once(
    plan: &Plan,
    servers: &Servers,
    original: &'static Original,
    script: &Scenario,
) -> Result<(Option<Scenario>, Scenario)> {
    match plan.target {
        Target::Originals => Ok((None, play_original(plan, servers, original, script).await?)),
        Target::Ours(_) => Ok((None, play_ours(plan, servers, original, script).await?)),
        Target::SideBySide => {
            let (theirs, ours) = tokio::join!(
                play_original(plan, servers, original, script),
                play_ours(plan, servers, original, script)
            );
            Ok((Some(theirs?), ours?))
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

async fn play_ours(
    plan: &Plan,
    servers: &Servers,
    original: &'static Original,
    script: &Scenario,
) -> Result<Scenario> {
    let server = if needs_own_server(script) {
        Arc::new(Server::ours(&plan.server, &plan.protocol(original)).await?)
    } else {
        servers.ours.get(original.version).context("our server was not started")?.clone()
    };
    let played = play_shared(plan, &server, script).await?;
    match server.exit() {
        Some(code) => Err(Died(format!("{code:?}, {}", server.errors())).into()),
        None => Ok(played),
    }
}

async fn play_shared(plan: &Plan, server: &Server, script: &Scenario) -> Result<Scenario> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let mut options = Options::new(server.addr);
    options.suffix = Some(format!("r{number:x}"));
    if let Target::Ours(Mode::Auto) = plan.target {
        options.eager = true;
        options.reflex = probe_reflex(&script.version);
        options.heard = Some(heard);
    }
    options.tolerance = plan.tolerance;
    let played = play(script, &options).await;
    // A shared server is not expected to die, whatever the original did.
    Ok(with_state(script, played, server, true).await)
}

/// Plays against a fresh original, with the keys as they are.
pub async fn play_alone(
    dir: &Path,
    original: &Original,
    script: &Scenario,
    adjust: impl FnOnce(Options) -> Options,
) -> Result<Scenario> {
    let server = Server::original(dir, original).await?;
    let played = play(script, &adjust(Options::new(server.addr))).await;
    Ok(with_state(script, played, &server, script.alive().unwrap_or(true)).await)
}

/// The transcript with its last line, which also says how long the run went on.
async fn with_state(script: &Scenario, mut played: Scenario, server: &Server, should_live: bool) -> Scenario {
    let event = server.state(should_live).await;
    let waited = if script.is_timed() { script.duration() } else { 0 };
    let t = played.duration().max(waited);
    played.records.push(Record { t, peer: None, event });
    played
}

/// What real clients do with the probe of our server (measured on netflux 1.1.0-beta.7 to 4.3.1, see C40 in
/// docs/reference/differences.md): those of sigver 15 take it for a ping and answer, those of 16 to 18 for a
/// heartbeat, and those of 19 and 20 go on as if nothing had come.
fn probe_reflex(version: &str) -> Option<AutoReply> {
    let (pong, heartbeat): (&[u8], &[u8]) = (&[0x28, 0x01], &[0x20, 0x01]);
    let is = |majors: &[&str]| majors.iter().any(|major| version.starts_with(major));
    Some(AutoReply {
        frame: &[0x10, 0x01, 0x20, 0x01],
        answer: is(&["15."]).then_some(pong),
        later: is(&["16.", "17.", "18."]).then_some(heartbeat),
    })
}
