//! Messages between members and joiners: as many as the server relays (closed loop), or at a steady rate
//! (open loop).

mod load;

use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use load::Load;

use super::bench_client::BenchClient;
use super::error::Error;
use super::measure::{Lost, Percentiles, ensure_fd_limit, histogram, spawn_many, task_result, window};
use super::pacer::{self, LoadThread, PendingSends, Schedule};
use super::pair::{Pair, PairMessages, PairTargets};
use super::process_stats::{Cost, CostMeter, Processes};
use super::progress::Progress;
use crate::tools::client::protocol::Protocol;
use crate::tools::dial::Target;

/// Time before counting starts.
const WARM_UP: Duration = Duration::from_millis(300);
/// Time to wait after the window for answers that were due in it.
const GRACE: Duration = Duration::from_secs(2);
/// The same after the measurement was stopped.
const SHORT_GRACE: Duration = Duration::from_millis(200);
/// Limit of a single write, in bytes.
const AT_ONCE: usize = 64 * 1024;
/// Highest accepted rate, in messages per second.
const MAX_RATE: f64 = 1e7;
/// Limit of bytes in flight per pair; servers close connections with more.
const MAX_IN_FLIGHT: usize = 512 * 1024;
/// Number of steps in which a run of unanswered round trips is recorded.
const PIECES: u64 = 1000;

/// Plan of a throughput measurement.
#[derive(Clone, Debug, Serialize)]
pub struct ThroughputPlan {
    /// Protocol of the members.
    pub member: Protocol,
    /// Protocol of the joiners.
    pub joiner: Protocol,
    /// Number of rooms, each with a member and a joiner.
    pub rooms: usize,
    /// Messages in flight per pair; ignored with a rate.
    #[serde(skip)]
    pub in_flight: usize,
    /// Content size, in bytes; at least 11 in JSON dialects.
    pub bytes: usize,
    /// Measurement duration.
    #[serde(skip)]
    pub duration: Duration,
    /// Messages per second, both directions of all rooms together (open loop); `None` measures the maximum.
    pub rate: Option<f64>,
    /// Node of a cluster at which the joiners are, if another than the members'.
    pub joiners_at: Option<Target>,
    /// Node of a cluster that has the rooms, if another than the members'.
    pub rooms_at: Option<Target>,
}

/// Result of a throughput measurement.
#[derive(Clone, Debug, Serialize)]
pub struct ThroughputResult {
    /// The plan.
    #[serde(flatten)]
    pub plan: ThroughputPlan,
    /// Messages in flight per pair; `None` with a rate.
    pub in_flight: Option<usize>,
    /// Measurement duration, in seconds.
    pub seconds: f64,
    /// Messages received by members and joiners.
    pub messages: u64,
    /// Messages received per second.
    pub messages_per_second: f64,
    /// Time from a joiner's message, or when it was due, to the member's answer.
    pub round_trip: Percentiles,
    /// Round trips without an answer after the grace period; they are included in `round_trip` with the
    /// time until then.
    pub unanswered: u64,
    /// Server cost per message.
    pub server: Option<Cost>,
    /// State of the load generator.
    pub load: Load,
    /// Lost connections.
    pub lost: Lost,
    /// True if the measurement was stopped early.
    pub interrupted: bool,
}

/// Counters that all pairs share.
struct Meter {
    messages: AtomicU64,
    trips: Mutex<Histogram<u64>>,
    /// Delays of sent messages.
    late: Mutex<Histogram<u64>>,
    begin: Instant,
    /// Interval in which round trips are recorded, in nanoseconds since `begin`: by arrival, or by due time
    /// with a rate.
    from: AtomicU64,
    until: AtomicU64,
}

impl Meter {
    fn new() -> Result<Meter, Error> {
        Ok(Meter {
            messages: AtomicU64::new(0),
            trips: Mutex::new(histogram()?),
            late: Mutex::new(histogram()?),
            begin: Instant::now(),
            from: AtomicU64::new(u64::MAX),
            until: AtomicU64::new(u64::MAX),
        })
    }

    fn now(&self) -> u64 {
        nanos(self.begin.elapsed())
    }

    fn counts(&self, at: u64) -> bool {
        at >= self.from.load(Ordering::Relaxed) && at < self.until.load(Ordering::Relaxed)
    }

    fn count(&self, contents: usize) {
        self.messages.fetch_add(contents as u64, Ordering::Relaxed);
    }

    /// Records the time since `trips` of a room were due.
    fn passed(
        &self,
        times: &Mutex<Histogram<u64>>,
        (schedule, room): (Schedule, usize),
        trips: Range<u64>,
        now: u64,
    ) {
        let mut times = times.lock();
        for trip in trips {
            let at = nanos(schedule.at(room, trip));
            if self.counts(at) {
                times.saturating_record(now.saturating_sub(at));
            }
        }
    }

    /// Records the round trips of `contents` answers, oldest first. `sent` holds send times with the number
    /// of messages.
    fn answered(&self, sent: &mut VecDeque<(u64, usize)>, mut contents: usize, now: u64) {
        let mut trips = self.counts(now).then(|| self.trips.lock());
        while contents > 0
            && let Some((at, times)) = sent.front_mut()
        {
            let some = contents.min(*times);
            if let Some(trips) = &mut trips {
                trips.saturating_record_n(now - *at, some as u64);
            }
            *times -= some;
            contents -= some;
            if *times == 0 {
                sent.pop_front();
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Measures throughput.
pub async fn throughput(
    target: &Target,
    plan: &ThroughputPlan,
    processes: Option<&Processes>,
    progress: &Progress,
) -> Result<ThroughputResult, Error> {
    let messages = Arc::new(plan.check()?);
    let clients = if plan.rooms_at.is_some() { 3 } else { 2 };
    ensure_fd_limit(plan.rooms.saturating_mul(clients))?;
    let mut cost = CostMeter::new(processes)?;
    let targets = PairTargets {
        member: target.clone(),
        joiner: plan.joiners_at.as_ref().unwrap_or(target).clone(),
        room: plan.rooms_at.clone(),
    };
    let load_threads = plan.load_threads()?;
    let runtimes: Vec<Handle> = match load_threads.is_empty() {
        true => vec![Handle::current()],
        false => load_threads.iter().map(|thread| thread.tasks.clone()).collect(),
    };
    let pairs = spawn_many(plan.rooms, progress, |room| {
        let (targets, messages, member, joiner) =
            (targets.clone(), Arc::clone(&messages), plan.member, plan.joiner);
        let bind = async move {
            let mut pair = Pair::bind(&targets, member, joiner, &messages.up).await?;
            pair.exchange(&messages).await?;
            Ok(pair)
        };
        let runtime = room % runtimes.len();
        // A socket's readiness is reported to the runtime that opened it.
        let bound = runtimes[runtime].spawn(bind);
        async move { task_result(bound.await).map(|pair| (runtime, pair)) }
    })
    .await?;

    let meter = Arc::new(Meter::new()?);
    let (mut tasks, mut lost) = (JoinSet::new(), Lost::default());
    let dues = plan.start(pairs, &runtimes, &messages, &meter, &mut tasks)?;
    sleep(WARM_UP).await;
    let own = Processes::new(&[std::process::id()]).ok();
    let spent = |own: Option<&Processes>| Some(own?.read().ok()?.cpu);
    let relayed_before = meter.messages.load(Ordering::Relaxed);
    cost.start()?;
    let spent_before = spent(own.as_ref());
    let since = meter.now();
    meter.from.store(since, Ordering::Relaxed);
    let window = window(plan.duration, &mut tasks, &mut lost, progress).await?;
    let relayed = meter.messages.load(Ordering::Relaxed) - relayed_before;
    // Read before the connections are: the server may have died.
    let server = cost.finish(window.elapsed, relayed as f64)?;
    let busy = spent_before.zip(spent(own.as_ref())).map(|(before, after)| {
        after.saturating_sub(before).as_secs_f64() / window.elapsed.as_secs_f64().max(1e-9)
    });
    let until = since + nanos(window.elapsed);
    meter.until.store(until, Ordering::Relaxed);
    let unanswered = match plan.rate {
        Some(rate) => {
            await_unanswered(Schedule::new(plan.rooms, rate), &dues, &meter, (since, until), progress).await
        }
        None => 0,
    };
    tasks.shutdown().await;
    let seconds = window.elapsed.as_secs_f64();
    let round_trip = Percentiles::of(&meter.trips.lock());
    let threads =
        if load_threads.is_empty() { Handle::current().metrics().num_workers() } else { load_threads.len() };
    let sent_late = plan.rate.map(|_| Percentiles::of(&meter.late.lock()));
    Ok(ThroughputResult {
        plan: plan.clone(),
        in_flight: plan.rate.is_none().then_some(plan.in_flight),
        seconds,
        messages: relayed,
        messages_per_second: relayed as f64 / seconds.max(1e-9),
        round_trip,
        unanswered,
        server,
        load: Load::of(threads, busy, sent_late, &round_trip),
        lost,
        interrupted: window.interrupted,
    })
}

impl ThroughputPlan {
    fn check(&self) -> Result<PairMessages, Error> {
        if self.rooms == 0 || self.in_flight == 0 || self.bytes == 0 {
            return Err(Error::InvalidPlan(
                "at least one room, one message in flight and one byte are needed".to_owned(),
            ));
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= MAX_RATE)) {
            let problem =
                format!("the rate must be greater than 0 and at most {MAX_RATE:.0} messages per second");
            return Err(Error::InvalidPlan(problem));
        }
        if self.rate.is_none()
            && self.in_flight > 1
            && self.in_flight.saturating_mul(self.bytes) > MAX_IN_FLIGHT
        {
            return Err(Error::InvalidPlan(format!(
                "{} messages in flight of {} bytes exceed {} KiB per pair, for which servers close connections; use more rooms",
                self.in_flight,
                self.bytes,
                MAX_IN_FLIGHT / 1024
            )));
        }
        if [self.member, self.joiner].contains(&Protocol::Signaller) {
            let why = "a signaller pipe ends after a few messages or seconds; use 'sigver bench sessions'";
            return Err(Error::Unsupported { protocol: Protocol::Signaller, why });
        }
        PairMessages::opaque(self.member, self.joiner, self.bytes)
    }

    /// Returns the threads for a steady rate.
    fn load_threads(&self) -> Result<Vec<LoadThread>, Error> {
        if self.rate.is_none() {
            return Ok(Vec::new());
        }
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let load_threads =
            (0..processors.min(self.rooms)).map(|_| LoadThread::start()).collect::<io::Result<_>>();
        load_threads.map_err(|error| Error::InvalidPlan(format!("cannot start a load thread: {error}")))
    }

    /// Starts all pairs, each on its runtime. Returns the pending sends of each room, if there is a rate.
    fn start(
        &self,
        pairs: Vec<(usize, Pair)>,
        runtimes: &[Handle],
        messages: &PairMessages,
        meter: &Arc<Meter>,
        tasks: &mut JoinSet<Result<(), Error>>,
    ) -> Result<Vec<Arc<PendingSends>>, Error> {
        let schedule = self.rate.map(|rate| Schedule::new(self.rooms, rate));
        let (mut dues, mut rooms) = (Vec::new(), vec![Vec::new(); runtimes.len()]);
        for (room, (runtime, mut pair)) in pairs.into_iter().enumerate() {
            let up = Batch::new(pair.joiner.frame(None, &messages.up)?, self.in_flight);
            let down = Batch::new(pair.member.frame(pair.id.as_ref(), &messages.down)?, self.in_flight);
            pair.member.count();
            pair.joiner.count();
            tasks.spawn_on(echo(pair.member, down, Arc::clone(meter)), &runtimes[runtime]);
            match schedule {
                Some(schedule) => {
                    let due = Arc::new(PendingSends::default());
                    dues.push(Arc::clone(&due));
                    rooms[runtime].push((room, Arc::clone(&due)));
                    tasks.spawn_on(
                        open_loop(pair.joiner, up, Arc::clone(meter), due, schedule, room),
                        &runtimes[runtime],
                    );
                }
                None => drop(tasks.spawn(closed_loop(pair.joiner, up, self.in_flight, Arc::clone(meter)))),
            }
        }
        if let Some(schedule) = schedule {
            for (runtime, rooms) in runtimes.iter().zip(rooms) {
                // Ends with its thread.
                runtime.spawn(pacer::run_pacer(schedule, rooms, meter.begin));
            }
        }
        Ok(dues)
    }
}

/// One frame, repeated as often as one write may need.
struct Batch {
    frames: Vec<u8>,
    length: usize,
}

impl Batch {
    fn new(frame: Vec<u8>, times: usize) -> Batch {
        let times = times.min(AT_ONCE / frame.len().max(1)).max(1);
        let length = frame.len();
        Batch { frames: if times == 1 { frame } else { frame.repeat(times) }, length }
    }

    /// Writes the frame `times` times, and returns the number of contents received while writing.
    async fn write(&self, client: &mut BenchClient, times: usize) -> Result<usize, Error> {
        let at_once = (AT_ONCE / self.length.max(1)).max(1);
        let (mut left, mut contents, mut more) = (times, 0, Vec::new());
        while left > 0 {
            let part = left.min(at_once);
            let length = part * self.length;
            if length > self.frames.len().max(more.len()) {
                // With a rate, the number due at once is not known in advance.
                more = self.frames[..self.length].repeat(part);
            }
            let frames = if length <= self.frames.len() { &self.frames } else { &more };
            contents += client.write_while_reading(&frames[..length]).await?;
            left -= part;
        }
        Ok(contents)
    }
}

/// Answers each content with one.
async fn echo(mut member: BenchClient, down: Batch, meter: Arc<Meter>) -> Result<(), Error> {
    let in_context = |error: Error| error.in_context("a member");
    loop {
        let mut contents = member.receive().await.map_err(in_context)?;
        while contents > 0 {
            meter.count(contents);
            contents = down.write(&mut member, contents).await.map_err(in_context)?;
            member.settle().await.map_err(in_context)?;
        }
    }
}

/// Keeps `in_flight` contents in flight.
async fn closed_loop(
    mut joiner: BenchClient,
    up: Batch,
    in_flight: usize,
    meter: Arc<Meter>,
) -> Result<(), Error> {
    let in_context = |error: Error| error.in_context("a joiner");
    let mut sent = VecDeque::from([(meter.now(), in_flight)]);
    let mut contents = up.write(&mut joiner, in_flight).await.map_err(in_context)?;
    loop {
        while contents > 0 {
            meter.count(contents);
            let now = meter.now();
            meter.answered(&mut sent, contents, now);
            sent.push_back((now, contents));
            contents = up.write(&mut joiner, contents).await.map_err(in_context)?;
        }
        joiner.settle().await.map_err(in_context)?;
        contents = joiner.read().await.map_err(in_context)?;
    }
}

/// Sends contents when they are due.
async fn open_loop(
    mut joiner: BenchClient,
    up: Batch,
    meter: Arc<Meter>,
    due: Arc<PendingSends>,
    schedule: Schedule,
    room: usize,
) -> Result<(), Error> {
    let in_context = |error: Error| error.in_context("a joiner");
    let (mut sent, mut answered) = (0, 0);
    loop {
        let contents = tokio::select! {
            contents = joiner.read() => contents.map_err(in_context)?,
            some = due.some() => {
                let now = meter.now();
                meter.passed(&meter.late, (schedule, room), sent..sent + some, now);
                sent += some;
                up.write(&mut joiner, some as usize).await.map_err(in_context)?
            }
        };
        joiner.settle().await.map_err(in_context)?;
        if contents > 0 {
            meter.count(contents);
            let trips = answered..answered + contents as u64;
            meter.passed(&meter.trips, (schedule, room), trips.clone(), meter.now());
            answered = trips.end;
            due.answered.store(answered, Ordering::Relaxed);
        }
    }
}

/// Waits for outstanding answers to round trips that were due in the window, and records the rest as
/// unanswered. Returns their number.
async fn await_unanswered(
    schedule: Schedule,
    dues: &[Arc<PendingSends>],
    meter: &Meter,
    (since, until): (u64, u64),
    progress: &Progress,
) -> u64 {
    let [since, until] = [since, until].map(Duration::from_nanos);
    let behind = || {
        dues.iter().enumerate().map(|(room, due)| {
            let first = due.answered.load(Ordering::Relaxed).max(schedule.before(room, since));
            (room, first..schedule.before(room, until))
        })
    };
    let begin = Instant::now();
    let grace = || if progress.is_stopped() { SHORT_GRACE } else { GRACE };
    while behind().any(|(_, trips)| !trips.is_empty()) && begin.elapsed() < grace() {
        sleep(Duration::from_millis(10)).await;
    }
    let (now, mut count) = (meter.now(), 0);
    for (room, trips) in behind().filter(|(_, trips)| !trips.is_empty()) {
        count += trips.end - trips.start;
        let mut times = meter.trips.lock();
        // Recorded in steps, because there may be millions.
        let step = (trips.end - trips.start).div_ceil(PIECES);
        for first in trips.clone().step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let time = now.saturating_sub(nanos(schedule.at(room, first)));
            times.saturating_record_n(time, step.min(trips.end - first));
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unanswered_trips_are_counted_in_bounded_steps() {
        let (schedule, meter) = (Schedule::new(1, MAX_RATE), Meter::new().unwrap());
        let (dues, progress) = ([Arc::new(PendingSends::default())], Progress::none());
        progress.stop();
        let missing = await_unanswered(schedule, &dues, &meter, (0, 3_600_000_000_000), &progress).await;
        let due = schedule.before(0, Duration::from_secs(3600));
        assert_eq!((missing, meter.trips.lock().len()), (due, due));
    }
}
