//! Whole sessions, one after another: a member comes and is one, a joiner comes and is bound, an offer, an answer, and
//! both leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::error::Error;
use super::measure::{Lost, Times, allow, histogram, window};
use super::pair::{Pair, Parcels};
use super::process_stats::{Cost, Process};
use super::progress::Progress;
use crate::tools::client::protocol::Protocol;
use crate::tools::dial::Target;

/// How long sessions are made before they are counted.
const WARM_UP: Duration = Duration::from_millis(300);

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// What members speak.
    pub member: Protocol,
    /// What joiners speak.
    pub joiner: Protocol,
    /// How many sessions there are at any time.
    pub concurrency: usize,
    /// How long they are counted.
    pub duration: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct SessionsResult {
    /// What members speak.
    pub member: &'static str,
    /// What joiners speak.
    pub joiner: &'static str,
    /// How many sessions there were at any time.
    pub concurrency: usize,
    /// How long they were counted, in seconds.
    pub seconds: f64,
    /// How many ended.
    pub sessions: u64,
    /// How many ended in a second.
    pub sessions_per_second: f64,
    /// How long each took, from its first connection until both have left.
    pub session: Times,
    /// What the server has cost; each is a session.
    pub server: Option<Cost>,
    /// Which were given up; nobody goes on in their place.
    pub lost: Lost,
    /// Whether it was ended early.
    pub interrupted: bool,
}

/// What all sessions share.
struct Meter {
    sessions: AtomicU64,
    times: Mutex<Histogram<u64>>,
}

/// Measures it.
///
/// # Errors
///
/// When a dialect cannot do it, or no session succeeds any more.
pub async fn sessions(
    target: &Target,
    sessions: &Sessions,
    watched: Option<&Process>,
    progress: &Progress,
) -> Result<SessionsResult, Error> {
    let parcels = Arc::new(Parcels::negotiation(sessions.member, sessions.joiner)?);
    if sessions.concurrency == 0 {
        return Err(Error::Senseless("at least one session at a time is needed".to_owned()));
    }
    allow(2 * sessions.concurrency)?;
    let before = watched.map(Process::read).transpose()?;
    let meter = Arc::new(Meter { sessions: AtomicU64::new(0), times: Mutex::new(histogram()?) });
    let (mut tasks, mut lost) = (JoinSet::new(), Lost::default());
    for _ in 0..sessions.concurrency {
        let (target, parcels, meter) = (target.clone(), Arc::clone(&parcels), Arc::clone(&meter));
        let (member, joiner) = (sessions.member, sessions.joiner);
        tasks.spawn(async move {
            loop {
                let begin = Instant::now();
                session(&target, member, joiner, &parcels).await?;
                meter.sessions.fetch_add(1, Ordering::Relaxed);
                let took = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
                meter.times.lock().saturating_record(took);
            }
        });
    }
    sleep(WARM_UP).await;
    meter.times.lock().reset();
    let (count, begin) = (meter.sessions.load(Ordering::Relaxed), watched.map(Process::read).transpose()?);
    let window = window(sessions.duration, &mut tasks, &mut lost, progress).await?;
    let count = meter.sessions.load(Ordering::Relaxed) - count;
    let end = watched.map(Process::read).transpose()?;
    tasks.shutdown().await;
    let server = before
        .zip(begin)
        .zip(end)
        .map(|((before, begin), end)| Cost::of(before.memory, begin, end, window.elapsed, count as f64));
    let (seconds, session) = (window.elapsed.as_secs_f64(), Times::of(&meter.times.lock()));
    Ok(SessionsResult {
        member: sessions.member.name(),
        joiner: sessions.joiner.name(),
        concurrency: sessions.concurrency,
        seconds,
        sessions: count,
        sessions_per_second: count as f64 / seconds.max(1e-9),
        session,
        server,
        lost,
        interrupted: window.interrupted,
    })
}

async fn session(
    target: &Target,
    member: Protocol,
    joiner: Protocol,
    parcels: &Parcels,
) -> Result<(), Error> {
    let mut pair = Pair::bind(target, member, joiner, &parcels.up).await?;
    match joiner.capabilities().joins_with_data {
        // Its offer has come already.
        true => pair.answer(&parcels.down).await?,
        false => pair.exchange(parcels).await?,
    }
    let (joiner, member) = tokio::join!(pair.joiner.leave(), pair.member.leave());
    joiner.map_err(|error| error.of("a joiner"))?;
    member.map_err(|error| error.of("a member"))
}
