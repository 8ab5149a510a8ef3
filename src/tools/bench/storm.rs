//! Joiners that come all at once into one room with one member: how long until each is answered.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::bench_client::BenchClient;
use super::error::Error;
use super::measure::{Lost, Times, allow, finished, histogram, many};
use super::pair::seat;
use super::process_stats::{Cost, Process};
use super::progress::{Phase, Progress};
use crate::protocol::dialect::Family;
use crate::tools::client::dialects::Role;
use crate::tools::client::message::{MessageKind, TestMessage};
use crate::tools::client::protocol::Protocol;
use crate::tools::client::random_key;
use crate::tools::dial::Target;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Storm {
    /// What the member speaks.
    pub member: Protocol,
    /// What joiners speak.
    pub joiner: Protocol,
    /// How many joiners there are.
    pub joiners: usize,
    /// Whether they are connected before, and only join at once.
    pub connected: bool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct StormResult {
    /// What the member speaks.
    pub member: &'static str,
    /// What joiners speak.
    pub joiner: &'static str,
    /// How many joiners there are.
    pub joiners: usize,
    /// Whether they were connected before.
    pub connected: bool,
    /// How many were answered.
    pub answered: usize,
    /// How long until all were answered, or lost, in seconds.
    pub seconds: f64,
    /// How many were answered in a second.
    pub joins_per_second: f64,
    /// How long each waited since all began.
    pub answer: Times,
    /// What the server has cost; each is a joiner.
    pub server: Option<Cost>,
    /// Who was not answered.
    pub lost: Lost,
}

/// Measures it.
///
/// # Errors
///
/// When a dialect cannot do it, or no joiner is answered.
pub async fn storm(
    target: &Target,
    storm: &Storm,
    watched: Option<&Process>,
    progress: &Progress,
) -> Result<StormResult, Error> {
    storm.check()?;
    allow(storm.joiners + 1)?;
    let before = watched.map(Process::read).transpose()?;
    let (key, first) = (random_key(), Arc::new(TestMessage::new(MessageKind::Offer, "bench")));
    let mut member = seat(target, storm.member, Role::Member, &key, None).await?;
    // It reads what it is told, so that the server need not keep it.
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        loop {
            if let Err(error) = member.hear().await {
                return error.of("the member");
            }
        }
    });
    let joiner = storm.joiner;
    let mut seats = Vec::new();
    if storm.connected {
        let open = |_| {
            let (target, key) = (target.clone(), key.clone());
            async move {
                let seat = BenchClient::open(&target, joiner, Role::Joiner, &key).await;
                seat.map_err(|error| error.of("a joiner"))
            }
        };
        seats = many(storm.joiners, progress, open).await?;
    }
    // Tasks are made before the clock starts.
    let gate = Arc::new(Barrier::new(storm.joiners + 1));
    let mut tasks: JoinSet<Result<(Instant, BenchClient), Error>> = JoinSet::new();
    for _ in 0..storm.joiners {
        let (target, key, first, gate) = (target.clone(), key.clone(), Arc::clone(&first), Arc::clone(&gate));
        let seat = seats.pop();
        tasks.spawn(async move {
            gate.wait().await;
            let of = |error: Error| error.of("a joiner");
            let mut seat = match seat {
                Some(seat) => seat,
                None => BenchClient::open(&target, joiner, Role::Joiner, &key).await.map_err(of)?,
            };
            let data = joiner.capabilities().joins_with_data.then_some(&*first);
            seat.begin(data).await.map_err(of)?;
            Ok((Instant::now(), seat))
        });
    }
    let begun = watched.map(Process::read).transpose()?;
    let begin = Instant::now();
    gate.wait().await;
    let (mut answered, mut lost, mut times, mut last) = (Vec::new(), Lost::default(), histogram()?, begin);
    loop {
        let task = tokio::select! {
            task = tasks.join_next() => task,
            () = progress.stopped() => return Err(Error::Interrupted),
        };
        match task.map(finished) {
            None => break,
            Some(Ok((at, seat))) => {
                last = last.max(at);
                times.saturating_record(u64::try_from((at - begin).as_nanos()).unwrap_or(u64::MAX));
                // Nobody leaves before all are there.
                answered.push(seat);
            }
            Some(Err(error)) => {
                lost.add(&error);
                if lost.count == storm.joiners {
                    return Err(error);
                }
            }
        }
        progress.tell(Phase::Connecting { done: answered.len() + lost.count, of: storm.joiners });
    }
    let (elapsed, end) = (last - begin, watched.map(Process::read).transpose()?);
    if let Some(Ok(error)) = listening.try_join_next() {
        return Err(error);
    }
    let server = before
        .zip(begun)
        .zip(end)
        .map(|((before, begun), end)| Cost::of(before.memory, begun, end, elapsed, storm.joiners as f64));
    let seconds = elapsed.as_secs_f64();
    Ok(StormResult {
        member: storm.member.name(),
        joiner: joiner.name(),
        joiners: storm.joiners,
        connected: storm.connected,
        answered: answered.len(),
        seconds,
        joins_per_second: answered.len() as f64 / seconds.max(1e-9),
        answer: Times::of(&times),
        server,
        lost,
    })
}

impl Storm {
    fn check(&self) -> Result<(), Error> {
        if self.joiners == 0 {
            return Err(Error::Senseless("at least one joiner is needed".to_owned()));
        }
        let cannot = |tongue, why| Err(Error::Cannot { tongue, why });
        for tongue in [self.member, self.joiner] {
            if tongue == Protocol::Signaller {
                return cannot(tongue, "one joiner has one member");
            }
        }
        match self.joiner {
            Protocol::Sigver(dialect) if self.connected && dialect.family() == Family::ProtobufV1 => {
                cannot(self.joiner, "its joiners join by connecting, so that none is connected before")
            }
            _ => Ok(()),
        }
    }
}
