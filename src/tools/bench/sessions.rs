//! Whole sessions, one after another: member and joiner connect, offer, answer, both disconnect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::error::Error;
use super::measure::{Lost, Percentiles, ensure_fd_limit, histogram, window};
use super::pair::{Pair, PairMessages, PairTargets};
use super::process_stats::{Cost, CostMeter, Processes};
use super::progress::Progress;
use crate::tools::client::protocol::Protocol;
use crate::tools::dial::Target;

/// Time before counting starts.
const WARM_UP: Duration = Duration::from_millis(300);

/// Plan of a measurement of sessions.
#[derive(Clone, Debug, Serialize)]
pub struct SessionsPlan {
    /// Protocol of the members.
    pub member: Protocol,
    /// Protocol of the joiners.
    pub joiner: Protocol,
    /// Number of concurrent sessions.
    pub concurrency: usize,
    /// Measurement duration.
    #[serde(skip)]
    pub duration: Duration,
}

/// Result of a measurement of sessions.
#[derive(Clone, Debug, Serialize)]
pub struct SessionsResult {
    /// The plan.
    #[serde(flatten)]
    pub plan: SessionsPlan,
    /// Measurement duration, in seconds.
    pub seconds: f64,
    /// Number of completed sessions.
    pub sessions: u64,
    /// Completed sessions per second.
    pub sessions_per_second: f64,
    /// Session durations, from the first connection attempt until both have disconnected.
    pub session: Percentiles,
    /// Server cost per session.
    pub server: Option<Cost>,
    /// Failed sessions; they are not replaced.
    pub lost: Lost,
    /// True if the measurement was stopped early.
    pub interrupted: bool,
}

/// Counters that all sessions share.
struct Meter {
    sessions: AtomicU64,
    times: Mutex<Histogram<u64>>,
}

/// Measures sessions.
pub async fn sessions(
    target: &Target,
    sessions: &SessionsPlan,
    processes: Option<&Processes>,
    progress: &Progress,
) -> Result<SessionsResult, Error> {
    let messages = Arc::new(PairMessages::negotiation(sessions.member, sessions.joiner)?);
    if sessions.concurrency == 0 {
        return Err(Error::InvalidPlan("at least one session at a time is needed".to_owned()));
    }
    ensure_fd_limit(2 * sessions.concurrency)?;
    let mut cost = CostMeter::new(processes)?;
    let meter = Arc::new(Meter { sessions: AtomicU64::new(0), times: Mutex::new(histogram()?) });
    let (mut tasks, mut lost) = (JoinSet::new(), Lost::default());
    for _ in 0..sessions.concurrency {
        let (target, messages, meter) = (target.clone(), Arc::clone(&messages), Arc::clone(&meter));
        let (member, joiner) = (sessions.member, sessions.joiner);
        tasks.spawn(async move {
            loop {
                let begin = Instant::now();
                session(&target, member, joiner, &messages).await?;
                meter.sessions.fetch_add(1, Ordering::Relaxed);
                let took = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
                meter.times.lock().saturating_record(took);
            }
        });
    }
    sleep(WARM_UP).await;
    meter.times.lock().reset();
    let count = meter.sessions.load(Ordering::Relaxed);
    cost.start()?;
    let window = window(sessions.duration, &mut tasks, &mut lost, progress).await?;
    let count = meter.sessions.load(Ordering::Relaxed) - count;
    let server = cost.finish(window.elapsed, count as f64)?;
    tasks.shutdown().await;
    let (seconds, session) = (window.elapsed.as_secs_f64(), Percentiles::of(&meter.times.lock()));
    Ok(SessionsResult {
        plan: sessions.clone(),
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
    messages: &PairMessages,
) -> Result<(), Error> {
    let mut pair = Pair::bind(&PairTargets::from(target), member, joiner, &messages.up).await?;
    match joiner.capabilities().joins_with_data {
        // The offer was sent with the join.
        true => pair.answer(&messages.down).await?,
        false => pair.exchange(messages).await?,
    }
    let (joiner, member) = tokio::join!(pair.joiner.leave(), pair.member.leave());
    joiner.map_err(|error| error.in_context("a joiner"))?;
    member.map_err(|error| error.in_context("a member"))
}
