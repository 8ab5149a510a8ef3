//! What all measurements share: many things made some at a time, a window of time that ends early if there is nothing
//! left to measure, and times in words of percentiles.

use std::future::Future;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::{JoinError, JoinSet};

use super::error::Error;
use super::progress::{Phase, Progress};
use crate::server::fd_limit;

/// How many connections are made at a time. Servers let some hundreds wait to be accepted, and who is recognised by its
/// silence must be silent for some time.
pub const AT_ONCE: usize = 256;
/// How often it is told how far a window is.
const TICK: Duration = Duration::from_millis(200);
/// Files that are needed beside connections.
const OTHER_FILES: u64 = 64;

/// Percentiles of times, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// How many there are.
    pub count: u64,
    /// Half of them are not longer.
    pub p50_us: f64,
    /// 99 of 100 are not longer.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Connections that were lost while it was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// How many.
    pub count: usize,
    /// Why the first was.
    pub first: Option<String>,
}

/// How a window went.
#[derive(Debug)]
pub struct Window {
    /// How long it was.
    pub elapsed: Duration,
    /// Whether somebody has ended it early.
    pub interrupted: bool,
}

impl Times {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let us = |nanos: u64| nanos as f64 / 1e3;
        Times {
            count: histogram.len(),
            p50_us: us(histogram.value_at_quantile(0.5)),
            p99_us: us(histogram.value_at_quantile(0.99)),
            max_us: us(histogram.max()),
        }
    }
}

/// A histogram of nanoseconds, up to minutes, to three digits.
///
/// # Errors
///
/// There is no memory for it.
pub fn histogram() -> Result<Histogram<u64>, Error> {
    Histogram::new_with_bounds(1_000, 300_000_000_000, 3)
        .map_err(|error| Error::Senseless(format!("no histogram: {error}")))
}

impl Lost {
    /// One more.
    pub fn add(&mut self, error: &Error) {
        self.count += 1;
        self.first.get_or_insert_with(|| error.to_string());
    }
}

/// Sees to it that there may be so many connections.
///
/// # Errors
///
/// When the system does not allow it.
pub fn allow(connections: usize) -> Result<(), Error> {
    let needed = connections as u64 + OTHER_FILES;
    // Where there is no such limit, there is nothing to raise.
    match fd_limit::raise() {
        Ok(allowed) if allowed < needed => Err(Error::Files(format!(
            "{connections} connections need {needed}, and this process may have {allowed}: raise the hard limit \
             (ulimit -Hn {needed}, LimitNOFILE= or nofile in limits.conf), or use fewer connections"
        ))),
        _ => Ok(()),
    }
}

/// Makes so many things, some at a time, in no order. The first that cannot be made ends it.
///
/// # Errors
///
/// Why one cannot be made, or that it was interrupted.
pub async fn many<T, F>(
    total: usize,
    progress: &Progress,
    make: impl FnMut(usize) -> F,
) -> Result<Vec<T>, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let mut made = Vec::with_capacity(total);
    each(total, progress, make, |one| made.push(one)).await?;
    Ok(made)
}

/// Makes so many things, some at a time, and gives each away as soon as it is made.
///
/// # Errors
///
/// Why one cannot be made, or that it was interrupted.
pub async fn each<T, F>(
    total: usize,
    progress: &Progress,
    mut make: impl FnMut(usize) -> F,
    mut take: impl FnMut(T),
) -> Result<(), Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let (mut making, mut done, mut next) = (JoinSet::new(), 0, 0);
    while done < total {
        while next < total && making.len() < AT_ONCE {
            making.spawn(make(next));
            next += 1;
        }
        tokio::select! {
            one = making.join_next() => match one {
                Some(one) => take(finished(one)?),
                None => break,
            },
            () = progress.stopped() => return Err(Error::Interrupted),
        }
        done += 1;
        progress.tell(Phase::Connecting { done, of: total });
    }
    Ok(())
}

/// What a task says; one that panics, or was aborted, has lost its connection.
pub fn finished<T>(task: Result<Result<T, Error>, JoinError>) -> Result<T, Error> {
    task.unwrap_or_else(|error| Err(Error::Closed(error.to_string())))
}

/// Waits for so long, or until all `tasks` have ended, or somebody ends it.
///
/// # Errors
///
/// Why the last task has ended.
pub async fn window(
    duration: Duration,
    tasks: &mut JoinSet<Result<(), Error>>,
    lost: &mut Lost,
    progress: &Progress,
) -> Result<Window, Error> {
    let begin = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    let end = tokio::time::sleep(duration);
    tokio::pin!(end);
    let interrupted = loop {
        tokio::select! {
            () = &mut end => break false,
            () = progress.stopped() => break true,
            task = tasks.join_next() => {
                let error = match task {
                    Some(task) => match finished(task) {
                        Ok(()) => continue,
                        Err(error) => error,
                    },
                    None => Error::Closed("nobody is left".to_owned()),
                };
                lost.add(&error);
                if tasks.is_empty() {
                    return Err(error);
                }
            }
            _ = tick.tick() => progress.tell(Phase::Measuring {
                seconds: begin.elapsed().as_secs_f64(),
                of: duration.as_secs_f64(),
            }),
        }
    };
    Ok(Window { elapsed: begin.elapsed(), interrupted })
}
