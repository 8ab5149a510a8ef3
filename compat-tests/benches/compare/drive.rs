//! Puts a load on a server and returns its figures. The load generator is that of `sigver bench`; the list
//! of loads is in `works`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use compat_tests::oracle::Server;
use futures_util::future::try_join_all;
use sigver::tools::bench::{
    Cost, IdlePlan, Lost, Phase, Processes, Progress, Protocol, RetainedMemoryPlan, SessionsPlan, StormPlan,
    Target, ThroughputPlan, ThroughputResult, idle, retained_memory, sessions, storm, throughput,
};
use tokio::time::sleep;

use crate::figures::{Figure, Sample};
use crate::machine::{self, Cores, Watch, held_by_the_system, pin};
use crate::servers::Party;
use crate::works::{self, Connected, Load};

/// Time between a server's start and the reading of its size.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// Concurrent sessions.
const CONCURRENCY: usize = 32;
/// Number of rooms above which nothing is warmed up: closed connections would still occupy ports.
const MAX_WARMED_ROOMS: usize = 4_000;
/// Content size for the measurement of retained memory, in bytes.
const LARGE: usize = 16 * 1024;

/// Durations of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Uncounted load before the window: Node compiles code that is used often.
    pub warm_up: Duration,
    /// Counted load.
    pub window: Duration,
    /// Settling time and measurement duration of idle members; heartbeats are sent every five seconds.
    pub idle: (Duration, Duration),
}

/// A serving process, as its clients and the system see it.
#[derive(Clone)]
struct End {
    target: Target,
    processes: Processes,
}

impl End {
    fn of(server: &Server, party: Party) -> Result<End> {
        let scheme = if party.tls() { "wss" } else { "ws" };
        Ok(End {
            target: Target::parse(&format!("{scheme}://{}", server.addr))?,
            processes: Processes::new(&[server.pid().context("the server has ended")?])?,
        })
    }
}

/// Runs one turn of one server. Several processes share a throughput load; any other load is for the first.
pub async fn turn(servers: &[Server], party: Party, load: Load, measure: &Measure) -> Result<Sample> {
    let ends = servers.iter().map(|server| End::of(server, party)).collect::<Result<Vec<_>>>()?;
    let (Some(server), Some(End { target, processes })) = (servers.first(), ends.first()) else {
        bail!("there is no server");
    };
    // Where a machine is shared, only ratios of CPU times mean much: the share of other processes is
    // reported.
    let spent =
        || -> Result<f64> { ends.iter().map(|end| Ok(end.processes.read()?.cpu.as_secs_f64())).sum() };
    let watch = Watch::start(spent()?);
    let sample: Result<Sample> = match load {
        Load::Throughput(shape) => throughput_figures(&ends, shape, None, party.cores(), measure).await,
        Load::Steady(shape, rate) => {
            throughput_figures(&ends, shape, Some(rate.into()), party.cores(), measure).await
        }
        Load::Sessions => session_figures(target, processes, measure).await,
        Load::Storm(joiners, connected) => storm_figures(target, processes, joiners, connected).await,
        Load::Idle(members) => idle_figures(target, processes, members, measure).await,
        Load::RetainedMemory(rooms) => {
            let keep = RetainedMemoryPlan { dialect: protocol(works::CURRENT)?, rooms, bytes: LARGE };
            let retained = retained_memory(target, &keep, processes, &Progress::none()).await?;
            Ok(Sample::from([(Figure::RetainedMemory, retained.bytes_per_connection / 1024.0)]))
        }
        Load::Start => {
            sleep(SETTLE_TIME).await;
            let size = processes.read()?.memory as f64 / 1e6;
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

/// Runs a throughput load on one thread, or on one per core where the server has both. Every thread loads
/// every process equally.
async fn throughput_figures(
    ends: &[End],
    shape: works::LoadShape,
    rate: Option<f64>,
    cores: f64,
    measure: &Measure,
) -> Result<Sample> {
    let (spent, begin) = (machine::own(), Instant::now());
    let threads = if cores > 1.0 { 2 } else { 1 };
    if !shape.rooms.is_multiple_of(threads * ends.len()) {
        bail!("{} rooms cannot be shared by {threads} threads and {} servers", shape.rooms, ends.len());
    }
    let shape = works::LoadShape { rooms: shape.rooms / threads / ends.len(), ..shape };
    let part = Part { ends: ends.to_vec(), shape, rate, measure: *measure };
    let shares = if threads == 2 {
        let other = part.clone();
        let other = std::thread::spawn(move || -> Result<Vec<ThroughputResult>> {
            pin(Cores::Second)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(other.throughput_figures())
        });
        let first = part.throughput_figures().await;
        let other = other.join().map_err(|_| anyhow!("the other half of the load has panicked"))?;
        [first?, other?].concat()
    } else {
        part.throughput_figures().await?
    };
    // Averaged over the whole run, of which only connecting differs.
    let busy = (machine::own() - spent) / begin.elapsed().as_secs_f64();
    let (mut per_second, mut load) = (0.0, 0.0);
    for share in &shares {
        per_second += share.messages_per_second;
        // Each thread has sampled every process, in windows that differ only by the time of connecting.
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

/// One thread's share of a throughput load.
#[derive(Clone)]
struct Part {
    ends: Vec<End>,
    /// Load on each server.
    shape: works::LoadShape,
    rate: Option<f64>,
    measure: Measure,
}

impl Part {
    /// Returns the result of each server.
    async fn throughput_figures(&self) -> Result<Vec<ThroughputResult>> {
        try_join_all(self.ends.iter().map(|end| self.throughput_at(end))).await
    }

    async fn throughput_at(&self, end: &End) -> Result<ThroughputResult> {
        let mut load = ThroughputPlan {
            member: protocol(self.shape.member)?,
            joiner: protocol(self.shape.joiner)?,
            rooms: self.shape.rooms,
            in_flight: self.shape.flight,
            bytes: self.shape.bytes,
            duration: self.measure.warm_up,
            rate: self.rate,
            joiners_at: None,
            rooms_at: None,
        };
        if load.rooms <= MAX_WARMED_ROOMS {
            throughput(&end.target, &load, None, &Progress::none()).await?;
        }
        load.duration = self.measure.window;
        let throughput_figures =
            throughput(&end.target, &load, Some(&end.processes), &Progress::none()).await?;
        complete(&throughput_figures.lost)?;
        Ok(throughput_figures)
    }
}

async fn session_figures(target: &Target, processes: &Processes, measure: &Measure) -> Result<Sample> {
    let current = protocol(works::CURRENT)?;
    let mut load = SessionsPlan {
        member: current,
        joiner: current,
        concurrency: CONCURRENCY,
        duration: measure.warm_up,
    };
    sessions(target, &load, None, &Progress::none()).await?;
    load.duration = measure.window;
    let session_figures = sessions(target, &load, Some(processes), &Progress::none()).await?;
    complete(&session_figures.lost)?;
    let cost = cost(session_figures.server)?;
    Ok(Sample::from([
        (Figure::SessionCost, cost.cpu_us_each),
        (Figure::SessionsPerCore, session_figures.sessions as f64 / cost.cpu_seconds),
        (Figure::Busy, cost.load * 100.0),
    ]))
}

async fn storm_figures(
    target: &Target,
    processes: &Processes,
    joiners: usize,
    connected: Connected,
) -> Result<Sample> {
    let current = protocol(works::CURRENT)?;
    let load =
        StormPlan { member: current, joiner: current, joiners, connected: connected == Connected::Before };
    let storm_figures = storm(target, &load, Some(processes), &Progress::none()).await?;
    complete(&storm_figures.lost)?;
    Ok(Sample::from([
        (Figure::Storm, storm_figures.seconds * 1e3),
        (Figure::StormCost, cost(storm_figures.server)?.cpu_seconds * 1e3),
    ]))
}

async fn idle_figures(
    target: &Target,
    processes: &Processes,
    members: usize,
    measure: &Measure,
) -> Result<Sample> {
    let (settle, duration) = measure.idle;
    let load = IdlePlan { dialect: protocol(works::CURRENT)?, members, duration, settle };
    // The connections are closed when the call returns: kernel memory is sampled during it.
    let (before, most) = (held_by_the_system(), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&most);
    let progress = Progress::new(move |phase| {
        if matches!(phase, Phase::Measuring { .. }) {
            seen.fetch_max(held_by_the_system(), Ordering::Relaxed);
        }
    });
    let idle_figures = idle(target, &load, Some(processes), &progress).await?;
    let held = most.load(Ordering::Relaxed).saturating_sub(before) as f64;
    complete(&idle_figures.lost)?;
    let (cost, each) =
        (cost(idle_figures.server)?, idle_figures.bytes_per_member.context("no process was watched")?);
    Ok(Sample::from([
        (Figure::Member, each / 1e3),
        (Figure::Heartbeats, cost.cpu_us_each),
        // Both ends of a connection are on this machine.
        (Figure::Kernel, held / 2.0 / members as f64 / 1e3),
        (Figure::Held, each * members as f64 / 1e6),
        (Figure::Beats, cost.load * 1e3),
    ]))
}

fn protocol(name: &str) -> Result<Protocol> {
    Protocol::from_name(name).with_context(|| format!("no dialect is called {name}"))
}

fn cost(server: Option<Cost>) -> Result<Cost> {
    server.context("no process was watched")
}

/// Returns an error if connections were lost: figures of some clients would be compared with those of all.
fn complete(lost: &Lost) -> Result<()> {
    match &lost.first {
        Some(why) => bail!("{} clients were lost: {why}", lost.count),
        None => Ok(()),
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
