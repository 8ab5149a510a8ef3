//! Joiners that enter a room at once: time until each is answered.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::bench_client::BenchClient;
use super::error::Error;
use super::measure::{Lost, Percentiles, ensure_fd_limit, histogram, spawn_many, task_result};
use super::pair::connect_client;
use super::process_stats::{Cost, CostMeter, Processes};
use super::progress::{Phase, Progress};
use crate::protocol::dialect::Family;
use crate::tools::client::dialects::Role;
use crate::tools::client::message::{MessageKind, TestMessage};
use crate::tools::client::protocol::Protocol;
use crate::tools::client::random_key;
use crate::tools::dial::Target;

/// Plan of a join storm.
#[derive(Clone, Debug, Serialize)]
pub struct StormPlan {
    /// Protocol of the member.
    pub member: Protocol,
    /// Protocol of the joiners.
    pub joiner: Protocol,
    /// Number of joiners.
    pub joiners: usize,
    /// True if joiners connect first, and only their join messages are sent at once.
    pub connected: bool,
}

/// Result of a join storm.
#[derive(Clone, Debug, Serialize)]
pub struct StormResult {
    /// The plan.
    #[serde(flatten)]
    pub plan: StormPlan,
    /// Number of answered joiners.
    pub answered: usize,
    /// Time until the last answer, in seconds.
    pub seconds: f64,
    /// Answered joiners per second.
    pub joins_per_second: f64,
    /// Time of each answer since the start.
    pub answer: Percentiles,
    /// Server cost per joiner.
    pub server: Option<Cost>,
    /// Joiners that were not answered.
    pub lost: Lost,
}

/// Measures a join storm.
pub async fn storm(
    target: &Target,
    storm: &StormPlan,
    processes: Option<&Processes>,
    progress: &Progress,
) -> Result<StormResult, Error> {
    storm.check()?;
    ensure_fd_limit(storm.joiners + 1)?;
    let mut cost = CostMeter::new(processes)?;
    let key = random_key();
    let mut member = connect_client(target, storm.member, Role::Member, &key, None).await?;
    // The member reads, so that the server does not queue for it.
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        loop {
            if let Err(error) = member.receive().await {
                return error.in_context("the member");
            }
        }
    });
    let clients = match storm.connected {
        true => connect_joiners(target, storm, &key, progress).await?,
        false => Vec::new(),
    };
    // Tasks are spawned before the clock starts.
    let gate = Arc::new(Barrier::new(storm.joiners + 1));
    let mut tasks = spawn_joins(target, storm, &key, clients, &gate);
    cost.start()?;
    let begin = Instant::now();
    gate.wait().await;
    let (mut answered, mut lost, mut times, mut last) = (Vec::new(), Lost::default(), histogram()?, begin);
    loop {
        let task = tokio::select! {
            task = tasks.join_next() => task,
            () = progress.stopped() => return Err(Error::Interrupted),
        };
        match task.map(task_result) {
            None => break,
            Some(Ok((at, client))) => {
                last = last.max(at);
                times.saturating_record(u64::try_from((at - begin).as_nanos()).unwrap_or(u64::MAX));
                // All joiners stay until the last is answered.
                answered.push(client);
            }
            Some(Err(error)) => {
                lost.add(&error);
                if lost.count == storm.joiners {
                    return Err(error);
                }
            }
        }
        progress.report(Phase::Connecting { done: answered.len() + lost.count, of: storm.joiners });
    }
    let elapsed = last - begin;
    let server = cost.finish(elapsed, storm.joiners as f64)?;
    if let Some(Ok(error)) = listening.try_join_next() {
        return Err(error);
    }
    let seconds = elapsed.as_secs_f64();
    Ok(StormResult {
        plan: storm.clone(),
        answered: answered.len(),
        seconds,
        joins_per_second: answered.len() as f64 / seconds.max(1e-9),
        answer: Percentiles::of(&times),
        server,
        lost,
    })
}

/// Connects the joiners, which do not join yet.
async fn connect_joiners(
    target: &Target,
    storm: &StormPlan,
    key: &str,
    progress: &Progress,
) -> Result<Vec<BenchClient>, Error> {
    let joiner = storm.joiner;
    let open = |_| {
        let (target, key) = (target.clone(), key.to_owned());
        async move {
            let client = BenchClient::open(&target, joiner, Role::Joiner, &key).await;
            client.map_err(|error| error.in_context("a joiner"))
        }
    };
    spawn_many(storm.joiners, progress, open).await
}

/// Spawns a task for each joiner, which joins when the gate opens: by its connection, if there is one in
/// `clients`. Its result is the time of the answer.
fn spawn_joins(
    target: &Target,
    storm: &StormPlan,
    key: &str,
    mut clients: Vec<BenchClient>,
    gate: &Arc<Barrier>,
) -> JoinSet<Result<(Instant, BenchClient), Error>> {
    let (joiner, first) = (storm.joiner, Arc::new(TestMessage::new(MessageKind::Offer, "bench")));
    let mut tasks = JoinSet::new();
    for _ in 0..storm.joiners {
        let (target, key, first, gate) =
            (target.clone(), key.to_owned(), Arc::clone(&first), Arc::clone(gate));
        let client = clients.pop();
        tasks.spawn(async move {
            gate.wait().await;
            let in_context = |error: Error| error.in_context("a joiner");
            let mut client = match client {
                Some(client) => client,
                None => BenchClient::open(&target, joiner, Role::Joiner, &key).await.map_err(in_context)?,
            };
            let data = joiner.capabilities().joins_with_data.then_some(&*first);
            client.begin(data).await.map_err(in_context)?;
            Ok((Instant::now(), client))
        });
    }
    tasks
}

impl StormPlan {
    fn check(&self) -> Result<(), Error> {
        if self.joiners == 0 {
            return Err(Error::InvalidPlan("at least one joiner is needed".to_owned()));
        }
        let cannot = |protocol, why| Err(Error::Unsupported { protocol, why });
        for protocol in [self.member, self.joiner] {
            if protocol == Protocol::Signaller {
                return cannot(protocol, "a signaller connector has one listener");
            }
        }
        match self.joiner {
            Protocol::Sigver(dialect) if self.connected && dialect.family() == Family::ProtobufV1 => {
                cannot(self.joiner, "its joiners join by connecting")
            }
            _ => Ok(()),
        }
    }
}
