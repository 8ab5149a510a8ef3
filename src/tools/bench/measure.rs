//! Parts that all measurements share: concurrent set-up, measurement windows, percentiles.

use std::future::Future;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::{JoinError, JoinSet};

use super::error::Error;
use super::progress::{Phase, Progress};
use crate::server::fd_limit;

/// Number of concurrent connection attempts. Below the usual backlog of a server.
pub(crate) const AT_ONCE: usize = 256;
/// Interval between progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Open files needed besides connections.
const OTHER_FILES: u64 = 64;

/// Percentiles of durations, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Number of durations.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Maximum.
    pub max_us: f64,
}

/// Connections lost during a measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Number of connections.
    pub count: usize,
    /// Reason of the first loss.
    pub first: Option<String>,
}

/// Result of a measurement window.
#[derive(Debug)]
pub(crate) struct Window {
    /// Duration.
    pub(crate) elapsed: Duration,
    /// True if the window was stopped early.
    pub(crate) interrupted: bool,
}

impl Percentiles {
    /// Returns the percentiles of a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let us = |nanos: u64| nanos as f64 / 1e3;
        Percentiles {
            count: histogram.len(),
            p50_us: us(histogram.value_at_quantile(0.5)),
            p99_us: us(histogram.value_at_quantile(0.99)),
            max_us: us(histogram.max()),
        }
    }
}

/// Returns a histogram of nanoseconds, up to five minutes, with three significant digits.
pub(crate) fn histogram() -> Result<Histogram<u64>, Error> {
    Histogram::new_with_bounds(1_000, 300_000_000_000, 3)
        .map_err(|error| Error::InvalidPlan(format!("no histogram: {error}")))
}

impl Lost {
    /// Records a lost connection.
    pub(crate) fn add(&mut self, error: &Error) {
        self.count += 1;
        self.first.get_or_insert_with(|| error.to_string());
    }
}

/// Raises the limit of open files for `connections` connections.
pub(crate) fn ensure_fd_limit(connections: usize) -> Result<(), Error> {
    let needed = connections as u64 + OTHER_FILES;
    // Systems without such a limit return an error here.
    match fd_limit::raise() {
        Ok(allowed) if allowed < needed => Err(Error::FileLimit(format!(
            "{connections} connections need {needed}, and this process may have {allowed}: raise the hard limit \
             (ulimit -Hn {needed}, LimitNOFILE= or nofile in limits.conf), or use fewer connections"
        ))),
        _ => Ok(()),
    }
}

/// Runs `make` for each index below `total`, some concurrently, and returns the results in no order.
pub(crate) async fn spawn_many<T, F>(
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

/// Runs `make` for each index below `total`, some concurrently, and passes each result to `take` at once.
pub(crate) async fn each<T, F>(
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
                Some(one) => take(task_result(one)?),
                None => break,
            },
            () = progress.stopped() => return Err(Error::Interrupted),
        }
        done += 1;
        progress.report(Phase::Connecting { done, of: total });
    }
    Ok(())
}

/// Returns a task's result; a task that panicked or was aborted counts as a closed connection.
pub(crate) fn task_result<T>(task: Result<Result<T, Error>, JoinError>) -> Result<T, Error> {
    task.unwrap_or_else(|error| Err(Error::Closed(error.to_string())))
}

/// Waits for `duration`, until all `tasks` have ended, or until the measurement is stopped.
pub(crate) async fn window(
    duration: Duration,
    tasks: &mut JoinSet<Result<(), Error>>,
    lost: &mut Lost,
    progress: &Progress,
) -> Result<Window, Error> {
    let begin = Instant::now();
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    let end = tokio::time::sleep(duration);
    tokio::pin!(end);
    let interrupted = loop {
        tokio::select! {
            () = &mut end => break false,
            () = progress.stopped() => break true,
            task = tasks.join_next() => {
                let error = match task {
                    Some(task) => match task_result(task) {
                        Ok(()) => continue,
                        Err(error) => error,
                    },
                    None => Error::Closed("no connection is left".to_owned()),
                };
                lost.add(&error);
                if tasks.is_empty() {
                    return Err(error);
                }
            }
            _ = tick.tick() => progress.report(Phase::Measuring {
                seconds: begin.elapsed().as_secs_f64(),
                of: duration.as_secs_f64(),
            }),
        }
    };
    Ok(Window { elapsed: begin.elapsed(), interrupted })
}
