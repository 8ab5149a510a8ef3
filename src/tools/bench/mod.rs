//! What a server can do, measured from the outside, so that a machine can be sized: how many messages it relays, how
//! many sessions it makes, what members cost that do nothing, and how it takes a crowd.
//!
//! It must not be the load that limits, so contents are masked once, and what comes is only counted. Whatever else is
//! said comes from the synthetic clients of [`compat`](crate::compat), so that each dialect's words exist once.
//!
//! | module | what lives there | pure |
//! |---|---|---|
//! | [`relay`](mod@relay) | messages between members and joiners | |
//! | [`sessions`](mod@sessions) | whole sessions, one after another | |
//! | [`idle`](mod@idle) | members that do nothing | |
//! | [`storm`](mod@storm) | joiners that come all at once | |
//! | [`kept`](mod@kept) | what is still held when messages have gone through | |
//! | [`watched`] | what the server's process costs | |
//! | [`measure`] | windows of time, percentiles, many at a time | |
//! | [`pace`] | a steady rate, and the threads that keep it | partly |
//! | [`pair`], [`seat`], [`link`] | clients, from both down to the socket | |
//! | [`frame`] | WebSocket frames | yes |
//! | [`progress`], [`error`] | what is told meanwhile, and in place of a result | yes |

pub mod bench_client;
pub(in crate::tools) mod cli;
pub mod error;
pub mod frame;
pub mod idle;
pub mod measure;
pub mod pacer;
pub mod pair;
pub mod process_stats;
pub mod progress;
mod render;
pub mod retained_memory;
pub mod sessions;
pub mod storm;
pub mod throughput;
pub mod ws_connection;

use std::future::Future;
use std::time::Duration;

pub use crate::tools::client::protocol::Protocol;
pub use crate::tools::dial::Target;
pub use error::Error;
pub use idle::{Idle, IdleResult, idle};
pub use measure::{Lost, Times};
pub use process_stats::{Cost, Process};
pub use progress::{Phase, Progress};
pub use retained_memory::{RetainedMemoryPlan, RetainedMemoryResult, kept};
pub use sessions::{Sessions, SessionsResult, sessions};
pub use storm::{Storm, StormResult, storm};
pub use throughput::{Load, Relay, ThroughputResult, relay};

/// Waits for something, but not for ever.
async fn patiently<T>(
    limit: Duration,
    what: &'static str,
    doing: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, doing).await {
        Ok(done) => done,
        Err(_) => Err(Error::Slow { what, seconds: limit.as_secs() }),
    }
}
