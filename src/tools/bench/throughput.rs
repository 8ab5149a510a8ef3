//! Messages between members and joiners: as many as the server can, or at a steady rate. How a pair is bound is in
//! `pair`.

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
use super::measure::{Lost, Times, allow, finished, histogram, many, window};
use super::pacer::{self, LoadThread, PendingSends, Schedule};
use super::pair::{Pair, Parcels};
use super::process_stats::{Cost, Process};
use super::progress::Progress;
use crate::tools::client::protocol::Protocol;
use crate::tools::dial::Target;

/// How long messages are sent before they are counted.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long an answer that was due in the window is waited for when it is over.
const GRACE: Duration = Duration::from_secs(2);
/// How long it is waited for if somebody has asked for the end.
const SHORT_GRACE: Duration = Duration::from_millis(200);
/// As many contents as are written at once have at most so many bytes.
const AT_ONCE: usize = 64 * 1024;
/// More messages per second are a mistake.
const MAX_RATE: f64 = 1e7;
/// More bytes of a pair under way are what servers close for.
const MAX_IN_FLIGHT: usize = 512 * 1024;
/// Of so many round trips in a row that have no answer each is counted with a time of its own.
const PIECES: u64 = 1000;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Relay {
    /// What members speak.
    pub member: Protocol,
    /// What joiners speak.
    pub joiner: Protocol,
    /// How many rooms there are, with a member and a joiner each.
    pub rooms: usize,
    /// How many messages of a pair are under way at any time; of no meaning with a rate.
    pub in_flight: usize,
    /// How long a message is; one of JSON has at least 11 bytes.
    pub bytes: usize,
    /// How long they are counted.
    pub duration: Duration,
    /// How many messages are sent in a second, in all rooms together, both ways; without it, as many as can be.
    pub rate: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct ThroughputResult {
    /// What members speak.
    pub member: &'static str,
    /// What joiners speak.
    pub joiner: &'static str,
    /// How many rooms there are.
    pub rooms: usize,
    /// How many messages of a pair are under way; `None` with a rate.
    pub in_flight: Option<usize>,
    /// How long a message is.
    pub bytes: usize,
    /// How many messages were to be sent in a second.
    pub rate: Option<f64>,
    /// How long they were counted, in seconds.
    pub seconds: f64,
    /// How many came, at members and joiners.
    pub messages: u64,
    /// How many came in a second.
    pub messages_per_second: f64,
    /// From when a joiner sends a message, or is due to, until it has the member's answer.
    pub round_trip: Times,
    /// How many of those that were due have no answer two seconds later; their times are counted as they are then.
    pub unanswered: u64,
    /// What the server has cost; each is a message.
    pub server: Option<Cost>,
    /// What is to be known of the load.
    pub load: Load,
    /// Who was lost.
    pub lost: Lost,
    /// Whether it was ended early.
    pub interrupted: bool,
}

/// What all pairs share.
struct Meter {
    messages: AtomicU64,
    trips: Mutex<Histogram<u64>>,
    /// How late messages are sent.
    late: Mutex<Histogram<u64>>,
    begin: Instant,
    /// From and until when round trips are recorded, in nanoseconds since `begin`: when they come, or when they are due
    /// if there is a rate.
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

    /// Records how long after they were due this has happened to these trips of a room.
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

    /// Records the round trips of so many contents: the oldest of those that were `sent`, when and how many at once.
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

/// Measures it.
///
/// # Errors
///
/// When a dialect cannot do it, the server does not let everybody in, or nobody is left.
pub async fn relay(
    target: &Target,
    relay: &Relay,
    watched: Option<&Process>,
    progress: &Progress,
) -> Result<ThroughputResult, Error> {
    let parcels = Arc::new(relay.check()?);
    allow(2 * relay.rooms)?;
    let before = watched.map(Process::read).transpose()?;
    let shifts = relay.shifts()?;
    let homes: Vec<Handle> = match shifts.is_empty() {
        true => vec![Handle::current()],
        false => shifts.iter().map(|shift| shift.tasks.clone()).collect(),
    };
    let pairs = many(relay.rooms, progress, |room| {
        let (target, parcels, member, joiner) =
            (target.clone(), Arc::clone(&parcels), relay.member, relay.joiner);
        let bind = async move {
            let mut pair = Pair::bind(&target, member, joiner, &parcels.up).await?;
            pair.exchange(&parcels).await?;
            Ok(pair)
        };
        let home = room % homes.len();
        // Who opens a socket is told when something comes.
        let bound = homes[home].spawn(bind);
        async move { finished(bound.await).map(|pair| (home, pair)) }
    })
    .await?;

    let meter = Arc::new(Meter::new()?);
    let (mut tasks, mut lost) = (JoinSet::new(), Lost::default());
    let dues = relay.start(pairs, &homes, &parcels, &meter, &mut tasks)?;
    sleep(WARM_UP).await;
    let own = Process::of(std::process::id()).ok();
    let spent = |own: Option<Process>| Some(own?.read().ok()?.cpu);
    let (messages, begin) = (meter.messages.load(Ordering::Relaxed), watched.map(Process::read).transpose()?);
    let spent_before = spent(own);
    let since = meter.now();
    meter.from.store(since, Ordering::Relaxed);
    let window = window(relay.duration, &mut tasks, &mut lost, progress).await?;
    let (messages, end) = (
        meter.messages.load(Ordering::Relaxed) - messages,
        // The server may have died with everybody's connection still in its last moments.
        watched.map(Process::read).transpose()?,
    );
    let busy = spent_before.zip(spent(own)).map(|(before, after)| {
        after.saturating_sub(before).as_secs_f64() / window.elapsed.as_secs_f64().max(1e-9)
    });
    let until = since + nanos(window.elapsed);
    meter.until.store(until, Ordering::Relaxed);
    let unanswered = match relay.rate {
        Some(rate) => late(Schedule::new(relay.rooms, rate), &dues, &meter, (since, until), progress).await,
        None => 0,
    };
    tasks.shutdown().await;
    let server = before
        .zip(begin)
        .zip(end)
        .map(|((before, begin), end)| Cost::of(before.memory, begin, end, window.elapsed, messages as f64));
    let seconds = window.elapsed.as_secs_f64();
    let round_trip = Times::of(&meter.trips.lock());
    let threads = if shifts.is_empty() { Handle::current().metrics().num_workers() } else { shifts.len() };
    let sent_late = relay.rate.map(|_| Times::of(&meter.late.lock()));
    Ok(ThroughputResult {
        member: relay.member.name(),
        joiner: relay.joiner.name(),
        rooms: relay.rooms,
        in_flight: relay.rate.is_none().then_some(relay.in_flight),
        bytes: relay.bytes,
        rate: relay.rate,
        seconds,
        messages,
        messages_per_second: messages as f64 / seconds.max(1e-9),
        round_trip,
        unanswered,
        server,
        load: Load::of(threads, busy, sent_late, &round_trip),
        lost,
        interrupted: window.interrupted,
    })
}

impl Relay {
    fn check(&self) -> Result<Parcels, Error> {
        if self.rooms == 0 || self.in_flight == 0 || self.bytes == 0 {
            return Err(Error::Senseless(
                "at least one room, one message in flight and one byte are needed".to_owned(),
            ));
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= MAX_RATE)) {
            let words =
                format!("a rate must be more than nothing, and at most {MAX_RATE:.0} messages per second");
            return Err(Error::Senseless(words));
        }
        if self.rate.is_none()
            && self.in_flight > 1
            && self.in_flight.saturating_mul(self.bytes) > MAX_IN_FLIGHT
        {
            return Err(Error::Senseless(format!(
                "{} messages in flight of {} bytes are more than {} KiB for each pair: a server may close who has so \
                 much waiting; use more rooms instead",
                self.in_flight,
                self.bytes,
                MAX_IN_FLIGHT / 1024
            )));
        }
        if [self.member, self.joiner].contains(&Protocol::Signaller) {
            let why = "a pipe of the relay ends after some messages, or some seconds; `sessions` is for it";
            return Err(Error::Cannot { tongue: Protocol::Signaller, why });
        }
        Parcels::opaque(self.member, self.joiner, self.bytes)
    }

    /// The threads of a steady rate.
    fn shifts(&self) -> Result<Vec<LoadThread>, Error> {
        if self.rate.is_none() {
            return Ok(Vec::new());
        }
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let shifts = (0..processors.min(self.rooms)).map(|_| LoadThread::start()).collect::<io::Result<_>>();
        shifts.map_err(|error| Error::Senseless(format!("there is no thread for the load: {error}")))
    }

    /// Lets all pairs go, each where it is at home; what is due in each, if there is a rate.
    fn start(
        &self,
        pairs: Vec<(usize, Pair)>,
        homes: &[Handle],
        parcels: &Parcels,
        meter: &Arc<Meter>,
        tasks: &mut JoinSet<Result<(), Error>>,
    ) -> Result<Vec<Arc<PendingSends>>, Error> {
        let schedule = self.rate.map(|rate| Schedule::new(self.rooms, rate));
        let (mut dues, mut rooms) = (Vec::new(), vec![Vec::new(); homes.len()]);
        for (room, (home, mut pair)) in pairs.into_iter().enumerate() {
            let up = Batch::new(pair.joiner.frame(None, &parcels.up)?, self.in_flight);
            let down = Batch::new(pair.member.frame(pair.id.as_ref(), &parcels.down)?, self.in_flight);
            pair.member.count();
            pair.joiner.count();
            tasks.spawn_on(echo(pair.member, down, Arc::clone(meter)), &homes[home]);
            match schedule {
                Some(schedule) => {
                    let due = Arc::new(PendingSends::default());
                    dues.push(Arc::clone(&due));
                    rooms[home].push((room, Arc::clone(&due)));
                    tasks.spawn_on(
                        steady(pair.joiner, up, Arc::clone(meter), due, schedule, room),
                        &homes[home],
                    );
                }
                None => drop(tasks.spawn(circulate(pair.joiner, up, self.in_flight, Arc::clone(meter)))),
            }
        }
        if let Some(schedule) = schedule {
            for (home, rooms) in homes.iter().zip(rooms) {
                // It ends with its shift.
                home.spawn(pacer::keep(schedule, rooms, meter.begin));
            }
        }
        Ok(dues)
    }
}

/// One frame, as often as it may be needed at once.
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

    /// Writes so many; contents that came meanwhile.
    async fn write(&self, seat: &mut BenchClient, times: usize) -> Result<usize, Error> {
        let at_once = (AT_ONCE / self.length.max(1)).max(1);
        let (mut left, mut contents, mut more) = (times, 0, Vec::new());
        while left > 0 {
            let part = left.min(at_once);
            let length = part * self.length;
            if length > self.frames.len().max(more.len()) {
                // With a rate, nobody knows before how much is due at once.
                more = self.frames[..self.length].repeat(part);
            }
            let frames = if length <= self.frames.len() { &self.frames } else { &more };
            contents += seat.pass(&frames[..length]).await?;
            left -= part;
        }
        Ok(contents)
    }
}

/// A member that answers each content with one.
async fn echo(mut member: BenchClient, down: Batch, meter: Arc<Meter>) -> Result<(), Error> {
    let of = |error: Error| error.of("a member");
    loop {
        let mut contents = member.hear().await.map_err(of)?;
        while contents > 0 {
            meter.count(contents);
            contents = down.write(&mut member, contents).await.map_err(of)?;
            member.settle().await.map_err(of)?;
        }
    }
}

/// A joiner that keeps so many contents under way.
async fn circulate(
    mut joiner: BenchClient,
    up: Batch,
    in_flight: usize,
    meter: Arc<Meter>,
) -> Result<(), Error> {
    let of = |error: Error| error.of("a joiner");
    let mut sent = VecDeque::from([(meter.now(), in_flight)]);
    let mut contents = up.write(&mut joiner, in_flight).await.map_err(of)?;
    loop {
        while contents > 0 {
            meter.count(contents);
            let now = meter.now();
            meter.answered(&mut sent, contents, now);
            sent.push_back((now, contents));
            contents = up.write(&mut joiner, contents).await.map_err(of)?;
        }
        joiner.settle().await.map_err(of)?;
        contents = joiner.read().await.map_err(of)?;
    }
}

/// A joiner that sends what is due.
async fn steady(
    mut joiner: BenchClient,
    up: Batch,
    meter: Arc<Meter>,
    due: Arc<PendingSends>,
    schedule: Schedule,
    room: usize,
) -> Result<(), Error> {
    let of = |error: Error| error.of("a joiner");
    let (mut sent, mut answered) = (0, 0);
    loop {
        let contents = tokio::select! {
            contents = joiner.read() => contents.map_err(of)?,
            some = due.some() => {
                let now = meter.now();
                meter.passed(&meter.late, (schedule, room), sent..sent + some, now);
                sent += some;
                up.write(&mut joiner, some as usize).await.map_err(of)?
            }
        };
        joiner.settle().await.map_err(of)?;
        if contents > 0 {
            meter.count(contents);
            let trips = answered..answered + contents as u64;
            meter.passed(&meter.trips, (schedule, room), trips.clone(), meter.now());
            answered = trips.end;
            due.answered.store(answered, Ordering::Relaxed);
        }
    }
}

/// Waits for what was due in the window and is not answered yet, and records what is not answered even then: how many.
async fn late(
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
    let patience = || if progress.is_stopped() { SHORT_GRACE } else { GRACE };
    while behind().any(|(_, trips)| !trips.is_empty()) && begin.elapsed() < patience() {
        sleep(Duration::from_millis(10)).await;
    }
    let (now, mut count) = (meter.now(), 0);
    for (room, trips) in behind().filter(|(_, trips)| !trips.is_empty()) {
        count += trips.end - trips.start;
        let mut times = meter.trips.lock();
        // However many there are, they are not counted one by one.
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
    async fn what_is_not_answered_is_counted_without_end() {
        let (schedule, meter) = (Schedule::new(1, MAX_RATE), Meter::new().unwrap());
        let (dues, progress) = ([Arc::new(PendingSends::default())], Progress::none());
        progress.stop();
        let missing = late(schedule, &dues, &meter, (0, 3_600_000_000_000), &progress).await;
        let due = schedule.before(0, Duration::from_secs(3600));
        assert_eq!((missing, meter.trips.lock().len()), (due, due));
    }
}
