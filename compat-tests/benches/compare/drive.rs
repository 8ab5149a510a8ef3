//! Puts a load on a server, and gives what it has shown. The load is that of `sigver bench`; which loads there are is
//! in `works`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use compat_tests::oracle::Server;
use futures_util::future::try_join_all;
use sigver::tools::bench::{
    Cost, IdlePlan, Lost, Phase, Process, Progress, Protocol, RetainedMemoryPlan, SessionsPlan, StormPlan,
    Target, ThroughputPlan, ThroughputResult, idle, retained_memory, sessions, storm, throughput,
};
use tokio::time::sleep;

use crate::figures::{Figure, Sample};
use crate::machine::{self, Cores, Watch, held_by_the_system, pin};
use crate::servers::Party;
use crate::works::{self, Connected, Load};

/// How long a server that listens is left alone before its size is looked at.
const SETTLED: Duration = Duration::from_millis(200);
/// Sessions at a time.
const CONCURRENCY: usize = 32;
/// In more rooms nothing is warmed up: each connection of that would still hold its port.
const WARMED: usize = 4_000;
/// Contents after which it is looked at what is kept of them.
const LARGE: usize = 16 * 1024;

/// How long is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// The load before that, which does not count: Node compiles what is used often.
    pub warm_up: Duration,
    /// The load that counts.
    pub window: Duration,
    /// How long idle members are left alone, and how long they are looked at: heartbeats come every five seconds.
    pub idle: (Duration, Duration),
}

/// A process that serves, as its clients and the system see it.
#[derive(Clone)]
struct End {
    target: Target,
    watched: Process,
}

impl End {
    fn of(server: &Server, party: Party) -> Result<End> {
        let scheme = if party.tls() { "wss" } else { "ws" };
        Ok(End {
            target: Target::parse(&format!("{scheme}://{}", server.addr))?,
            watched: Process::new(server.pid().context("the server is gone")?)?,
        })
    }
}

/// One turn of one server. If it is several processes, they share a relay; anything else is for the first.
pub async fn turn(servers: &[Server], party: Party, load: Load, measure: &Measure) -> Result<Sample> {
    let ends = servers.iter().map(|server| End::of(server, party)).collect::<Result<Vec<_>>>()?;
    let (Some(server), Some(End { target, watched })) = (servers.first(), ends.first()) else {
        bail!("there is no server");
    };
    // Where a machine is shared, figures that are no ratios of processor times mean little: that is told.
    let spent = || -> Result<f64> { ends.iter().map(|end| Ok(end.watched.read()?.cpu.as_secs_f64())).sum() };
    let watch = Watch::start(spent()?);
    let sample: Result<Sample> = match load {
        Load::ThroughputPlan(shape) => relayed(&ends, shape, None, party.cores(), measure).await,
        Load::Steady(shape, rate) => relayed(&ends, shape, Some(rate.into()), party.cores(), measure).await,
        Load::SessionsPlan => signaled(target, watched, measure).await,
        Load::StormPlan(joiners, connected) => stormed(target, watched, joiners, connected).await,
        Load::IdlePlan(members) => idled(target, watched, members, measure).await,
        Load::RetainedMemoryResult(rooms) => {
            let keep = RetainedMemoryPlan { dialect: tongue(works::CURRENT)?, rooms, bytes: LARGE };
            let retained = retained_memory(target, &keep, watched, &Progress::none()).await?;
            Ok(Sample::from([(Figure::RetainedMemoryResult, retained.bytes_per_connection / 1024.0)]))
        }
        Load::Start => {
            sleep(SETTLED).await;
            let size = watched.read()?.memory as f64 / 1e6;
            Ok(Sample::from([(Figure::Start, millis(server.start)), (Figure::Size, size)]))
        }
    };
    if let Some(dead) = servers.iter().find(|server| server.exit().is_some()) {
        bail!("the server has died: {}", dead.errors());
    }
    let mut sample = sample?;
    if let Some(others) = watch.others(spent()?) {
        sample.insert(Figure::Others, others);
    }
    Ok(sample)
}

/// A relay, by one thread, or by one on each core where the server has both. Each has as much to do with each process.
async fn relayed(
    ends: &[End],
    shape: works::ThroughputPlan,
    rate: Option<f64>,
    cores: f64,
    measure: &Measure,
) -> Result<Sample> {
    let (spent, begin) = (machine::own(), Instant::now());
    let threads = if cores > 1.0 { 2 } else { 1 };
    if !shape.rooms.is_multiple_of(threads * ends.len()) {
        bail!("{} rooms cannot be shared by {threads} threads and {} servers", shape.rooms, ends.len());
    }
    let shape = works::ThroughputPlan { rooms: shape.rooms / threads / ends.len(), ..shape };
    let part = Part { ends: ends.to_vec(), shape, rate, measure: *measure };
    let shares = if threads == 2 {
        let other = part.clone();
        let other = std::thread::spawn(move || -> Result<Vec<ThroughputResult>> {
            pin(Cores::Second)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(other.relayed())
        });
        let first = part.relayed().await;
        let other = other.join().map_err(|_| anyhow!("the other half of the load has panicked"))?;
        [first?, other?].concat()
    } else {
        part.relayed().await?
    };
    // Of all the time, as it has the same to do in all of it but for the connecting.
    let busy = (machine::own() - spent) / begin.elapsed().as_secs_f64();
    let (mut per_second, mut load) = (0.0, 0.0);
    for share in &shares {
        per_second += share.messages_per_second;
        // Each thread has watched every process, in windows that are the same but for the time of connecting.
        load += cost(share.server)?.load / threads as f64;
    }
    let per_core = per_second / load;
    let mut sample = Sample::from([
        (Figure::Rate, per_second / 1e3),
        (Figure::RatePerCore, per_core / 1e3),
        (Figure::Capacity, per_core * cores / 1e3),
        (Figure::Cost, 1e6 / per_core),
        (Figure::Busy, load * 100.0),
        (Figure::LoadBusy, busy * 100.0),
    ]);
    if let ([share], Some(_)) = (&shares[..], rate) {
        if share.unanswered > 0 {
            bail!("{} round trips have not come to their end: it cannot keep up", share.unanswered);
        }
        sample.insert(Figure::Median, share.round_trip.p50_us / 1e3);
        sample.insert(Figure::Tail, share.round_trip.p99_us / 1e3);
    }
    Ok(sample)
}

/// What one thread has of a relay.
#[derive(Clone)]
struct Part {
    ends: Vec<End>,
    /// At each of them.
    shape: works::ThroughputPlan,
    rate: Option<f64>,
    measure: Measure,
}

impl Part {
    /// What was relayed at each end.
    async fn relayed(&self) -> Result<Vec<ThroughputResult>> {
        try_join_all(self.ends.iter().map(|end| self.relayed_at(end))).await
    }

    async fn relayed_at(&self, end: &End) -> Result<ThroughputResult> {
        let mut load = ThroughputPlan {
            member: tongue(self.shape.member)?,
            joiner: tongue(self.shape.joiner)?,
            rooms: self.shape.rooms,
            in_flight: self.shape.flight,
            bytes: self.shape.bytes,
            duration: self.measure.warm_up,
            rate: self.rate,
        };
        if load.rooms <= WARMED {
            throughput(&end.target, &load, None, &Progress::none()).await?;
        }
        load.duration = self.measure.window;
        let relayed = throughput(&end.target, &load, Some(&end.watched), &Progress::none()).await?;
        complete(&relayed.lost)?;
        Ok(relayed)
    }
}

async fn signaled(target: &Target, watched: &Process, measure: &Measure) -> Result<Sample> {
    let current = tongue(works::CURRENT)?;
    let mut load = SessionsPlan {
        member: current,
        joiner: current,
        concurrency: CONCURRENCY,
        duration: measure.warm_up,
    };
    sessions(target, &load, None, &Progress::none()).await?;
    load.duration = measure.window;
    let signaled = sessions(target, &load, Some(watched), &Progress::none()).await?;
    complete(&signaled.lost)?;
    let cost = cost(signaled.server)?;
    Ok(Sample::from([
        (Figure::SessionCost, cost.cpu_us_each),
        (Figure::SessionsPerCore, signaled.sessions as f64 / cost.cpu_seconds),
        (Figure::Busy, cost.load * 100.0),
    ]))
}

async fn stormed(target: &Target, watched: &Process, joiners: usize, connected: Connected) -> Result<Sample> {
    let current = tongue(works::CURRENT)?;
    let load =
        StormPlan { member: current, joiner: current, joiners, connected: connected == Connected::Before };
    let stormed = storm(target, &load, Some(watched), &Progress::none()).await?;
    complete(&stormed.lost)?;
    Ok(Sample::from([
        (Figure::StormPlan, stormed.seconds * 1e3),
        (Figure::StormCost, cost(stormed.server)?.cpu_seconds * 1e3),
    ]))
}

async fn idled(target: &Target, watched: &Process, members: usize, measure: &Measure) -> Result<Sample> {
    let (settle, duration) = measure.idle;
    let load = IdlePlan { dialect: tongue(works::CURRENT)?, members, duration, settle };
    // The connections are gone when it is over: the system's memory is looked at meanwhile.
    let (before, most) = (held_by_the_system(), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&most);
    let progress = Progress::new(move |phase| {
        if matches!(phase, Phase::Measuring { .. }) {
            seen.fetch_max(held_by_the_system(), Ordering::Relaxed);
        }
    });
    let idled = idle(target, &load, Some(watched), &progress).await?;
    let held = most.load(Ordering::Relaxed).saturating_sub(before) as f64;
    complete(&idled.lost)?;
    let (cost, each) = (cost(idled.server)?, idled.bytes_per_member.context("nobody was watched")?);
    Ok(Sample::from([
        (Figure::Member, each / 1e3),
        (Figure::Heartbeats, cost.cpu_us_each),
        // Both ends of a connection are of this machine.
        (Figure::Kernel, held / 2.0 / members as f64 / 1e3),
        (Figure::Held, each * members as f64 / 1e6),
        (Figure::Beats, cost.load * 1e3),
    ]))
}

fn tongue(name: &str) -> Result<Protocol> {
    Protocol::from_name(name).with_context(|| format!("no dialect is called {name}"))
}

fn cost(server: Option<Cost>) -> Result<Cost> {
    server.context("nobody was watched")
}

/// Figures of a part of the clients would be compared with those of all.
fn complete(lost: &Lost) -> Result<()> {
    match &lost.first {
        Some(why) => bail!("{} clients were lost: {why}", lost.count),
        None => Ok(()),
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
