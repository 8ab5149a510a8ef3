//! Messages between members and joiners: as many as the server can, or at a steady rate. How a pair is bound is in
//! `pair`.

#![allow(
    clippy::disallowed_methods,
    reason = "part of the shell: it has the clock, the tasks and the randomness"
)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::error::Error;
use super::measure::{Lost, Times, allow, histogram, many, window};
use super::pace::{self, Due, Schedule};
use super::pair::{Pair, Parcels};
use super::progress::Progress;
use super::seat::Seat;
use super::watched::{Cost, Watched};
use crate::compat::target::Target;
use crate::compat::tongue::Tongue;

/// How long messages are sent before they are counted.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long an answer that was due in the window is waited for when it is over.
const GRACE: Duration = Duration::from_secs(2);
/// As many answers as are written at once have at most so many bytes.
const AT_ONCE: usize = 64 * 1024;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Relay {
    /// What members speak.
    pub member: Tongue,
    /// What joiners speak.
    pub joiner: Tongue,
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
pub struct Relayed {
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
    /// Who was lost.
    pub lost: Lost,
    /// Whether it was ended early.
    pub interrupted: bool,
}

/// What all pairs share.
struct Meter {
    messages: AtomicU64,
    trips: Mutex<Histogram<u64>>,
    begin: Instant,
    /// From and until when round trips are recorded, in nanoseconds since `begin`: when they come, or when they are due
    /// if there is a rate.
    from: AtomicU64,
    until: AtomicU64,
    over: Arc<AtomicBool>,
}

impl Meter {
    fn new() -> Result<Meter, Error> {
        Ok(Meter {
            messages: AtomicU64::new(0),
            trips: Mutex::new(histogram()?),
            begin: Instant::now(),
            from: AtomicU64::new(u64::MAX),
            until: AtomicU64::new(u64::MAX),
            over: Arc::new(AtomicBool::new(false)),
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

impl Drop for Meter {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
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
    watched: Option<&Watched>,
    progress: &Progress,
) -> Result<Relayed, Error> {
    let parcels = Arc::new(relay.check()?);
    allow(2 * relay.rooms)?;
    let before = watched.map(Watched::read).transpose()?;
    let pairs = many(relay.rooms, progress, |_| {
        let (target, parcels, member, joiner) =
            (target.clone(), Arc::clone(&parcels), relay.member, relay.joiner);
        async move {
            let mut pair = Pair::bind(&target, member, joiner, &parcels.up).await?;
            pair.exchange(&parcels).await?;
            Ok(pair)
        }
    })
    .await?;

    let meter = Arc::new(Meter::new()?);
    let (mut tasks, mut lost) = (JoinSet::new(), Lost::default());
    let dues = relay.start(pairs, &parcels, &meter, &mut tasks)?;
    sleep(WARM_UP).await;
    let (messages, begin) = (meter.messages.load(Ordering::Relaxed), watched.map(Watched::read).transpose()?);
    let since = meter.now();
    meter.from.store(since, Ordering::Relaxed);
    let window = window(relay.duration, &mut tasks, &mut lost, progress).await?;
    let (messages, end) = (
        meter.messages.load(Ordering::Relaxed) - messages,
        // The server may have died with everybody's connection still in its last moments.
        watched.map(Watched::read).transpose()?,
    );
    let until = since + nanos(window.elapsed);
    meter.until.store(until, Ordering::Relaxed);
    let unanswered = match relay.rate {
        Some(rate) => late(Schedule::new(relay.rooms, rate), &dues, &meter, (since, until)).await,
        None => 0,
    };
    tasks.shutdown().await;
    let server = before
        .zip(begin)
        .zip(end)
        .map(|((before, begin), end)| Cost::of(before.memory, begin, end, window.elapsed, messages as f64));
    let seconds = window.elapsed.as_secs_f64();
    let round_trip = Times::of(&meter.trips.lock());
    Ok(Relayed {
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
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return Err(Error::Senseless("a rate must be more than nothing".to_owned()));
        }
        if [self.member, self.joiner].contains(&Tongue::Signaller) {
            let why = "a pipe of the relay ends after some messages, or some seconds; `sessions` is for it";
            return Err(Error::Cannot { tongue: Tongue::Signaller, why });
        }
        Parcels::opaque(self.member, self.joiner, self.bytes)
    }

    /// Lets all pairs go; what is due in each, if there is a rate.
    fn start(
        &self,
        pairs: Vec<Pair>,
        parcels: &Parcels,
        meter: &Arc<Meter>,
        tasks: &mut JoinSet<Result<(), Error>>,
    ) -> Result<Vec<Arc<Due>>, Error> {
        let schedule = self.rate.map(|rate| Schedule::new(self.rooms, rate));
        let mut dues = Vec::new();
        for (room, mut pair) in pairs.into_iter().enumerate() {
            let up = Batch::new(pair.joiner.frame(None, &parcels.up)?, self.in_flight);
            let down = Batch::new(pair.member.frame(pair.id.as_ref(), &parcels.down)?, self.in_flight);
            pair.member.count();
            pair.joiner.count();
            tasks.spawn(echo(pair.member, down, Arc::clone(meter)));
            match schedule {
                Some(schedule) => {
                    let due = Arc::new(Due::default());
                    dues.push(Arc::clone(&due));
                    tasks.spawn(steady(pair.joiner, up, Arc::clone(meter), due, schedule, room));
                }
                None => drop(tasks.spawn(circulate(pair.joiner, up, self.in_flight, Arc::clone(meter)))),
            }
        }
        if let Some(schedule) = schedule {
            pace::start(schedule, dues.clone(), meter.begin, Arc::clone(&meter.over));
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

    async fn write(&self, seat: &mut Seat, times: usize) -> Result<(), Error> {
        let mut left = times * self.length;
        while left > 0 {
            let part = left.min(self.frames.len());
            seat.write(&self.frames[..part]).await?;
            left -= part;
        }
        Ok(())
    }
}

/// A member that answers each content with one.
async fn echo(mut member: Seat, down: Batch, meter: Arc<Meter>) -> Result<(), Error> {
    let of = |error: Error| error.of("a member");
    loop {
        let contents = member.hear().await.map_err(of)?;
        if contents > 0 {
            meter.count(contents);
            down.write(&mut member, contents).await.map_err(of)?;
        }
    }
}

/// A joiner that keeps so many contents under way.
async fn circulate(mut joiner: Seat, up: Batch, in_flight: usize, meter: Arc<Meter>) -> Result<(), Error> {
    let of = |error: Error| error.of("a joiner");
    let mut sent = VecDeque::from([(meter.now(), in_flight)]);
    up.write(&mut joiner, in_flight).await.map_err(of)?;
    loop {
        let contents = joiner.hear().await.map_err(of)?;
        if contents > 0 {
            meter.count(contents);
            let now = meter.now();
            meter.answered(&mut sent, contents, now);
            sent.push_back((now, contents));
            up.write(&mut joiner, contents).await.map_err(of)?;
        }
    }
}

/// A joiner that sends what is due.
async fn steady(
    mut joiner: Seat,
    up: Batch,
    meter: Arc<Meter>,
    due: Arc<Due>,
    schedule: Schedule,
    room: usize,
) -> Result<(), Error> {
    let of = |error: Error| error.of("a joiner");
    let mut answered = 0;
    loop {
        tokio::select! {
            contents = joiner.read() => {
                let contents = contents.map_err(of)?;
                joiner.settle().await.map_err(of)?;
                meter.count(contents);
                let now = meter.now();
                for trip in answered..answered + contents as u64 {
                    let at = nanos(schedule.at(room, trip));
                    if meter.counts(at) {
                        meter.trips.lock().saturating_record(now.saturating_sub(at));
                    }
                }
                answered += contents as u64;
                due.answered.store(answered, Ordering::Relaxed);
            }
            due = due.some() => up.write(&mut joiner, due as usize).await.map_err(of)?,
        }
    }
}

/// Waits for what was due in the window and is not answered yet, and records what is not answered even then: how many.
async fn late(schedule: Schedule, dues: &[Arc<Due>], meter: &Meter, (since, until): (u64, u64)) -> u64 {
    let behind = || {
        dues.iter().enumerate().flat_map(|(room, due)| {
            let first =
                due.answered.load(Ordering::Relaxed).max(schedule.before(room, Duration::from_nanos(since)));
            (first..schedule.before(room, Duration::from_nanos(until))).map(move |trip| (room, trip))
        })
    };
    let patience = Instant::now() + GRACE;
    while behind().next().is_some() && Instant::now() < patience {
        sleep(Duration::from_millis(10)).await;
    }
    let (now, mut trips, mut count) = (meter.now(), meter.trips.lock(), 0);
    for (room, trip) in behind() {
        trips.saturating_record(now.saturating_sub(nanos(schedule.at(room, trip))));
        count += 1;
    }
    count
}
