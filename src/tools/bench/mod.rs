//! Load generator for `sigver bench`: measures a server from outside, so that a machine can be sized.
//!
//! Contents are masked once and received contents only counted, so that the load is not the limit. Every
//! other message comes from the synthetic clients of [`client`](crate::tools::client).
//!
//! | module | content |
//! |---|---|
//! | `throughput` | messages between members and joiners |
//! | `sessions` | whole sessions, one after another |
//! | `idle` | members that only answer heartbeats |
//! | `storm` | joiners that arrive at once |
//! | `retained_memory` | memory retained after messages have passed |
//! | `process_stats` | CPU time and memory of the server's process |
//! | `measure` | measurement windows, percentiles, concurrent set-up |
//! | `pacer` | a steady rate, and the threads that keep it |
//! | `pair`, `bench_client`, `ws_connection` | clients, from pair to socket |
//! | [`frame`] | WebSocket frames |
//! | `progress`, `error` | progress reports, errors |

mod bench_client;
pub(in crate::tools) mod cli;
mod error;
pub mod frame;
mod idle;
mod measure;
mod pacer;
mod pair;
mod process_stats;
mod progress;
mod render;
mod retained_memory;
mod sessions;
mod storm;
mod throughput;
mod ws_connection;

use std::future::Future;
use std::time::Duration;

pub use crate::tools::client::protocol::Protocol;
pub use crate::tools::dial::Target;
pub use error::Error;
pub use idle::{FIRST_HEARTBEATS, IdlePlan, IdleResult, idle};
pub use measure::{Lost, Percentiles};
pub use process_stats::{Cost, Processes};
pub use progress::{Phase, Progress};
pub use retained_memory::{RetainedMemoryPlan, RetainedMemoryResult, retained_memory};
pub use sessions::{SessionsPlan, SessionsResult, sessions};
pub use storm::{StormPlan, StormResult, storm};
pub use throughput::{Load, ThroughputPlan, ThroughputResult, throughput};

/// Parses a duration that is not zero.
fn seconds(text: &str) -> anyhow::Result<Duration> {
    let seconds: f64 = text.parse()?;
    if seconds.is_nan() || seconds <= 0.0 {
        anyhow::bail!("must be greater than 0");
    }
    Ok(Duration::try_from_secs_f64(seconds)?)
}

/// Awaits `doing`, for at most `limit`.
async fn with_timeout<T>(
    limit: Duration,
    what: &'static str,
    doing: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, doing).await {
        Ok(done) => done,
        Err(_) => Err(Error::Timeout { what, seconds: limit.as_secs() }),
    }
}
