//! Clients that do nothing wrong, and measure what they get: a pair of sigver 20 that sends a message every
//! 100 ms, and a newcomer every 500 ms.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use compat_tests::pairs::{HEARTBEAT, content, next_content, pair};
use compat_tests::ws::ENDED_EARLY;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::tls::forward;

const INTERVAL: Duration = Duration::from_millis(100);
const NEWCOMER_INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for one answer: what takes longer counts as lost.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Delays of what the regular clients were waiting for, each from the time at which it was due.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    pub(crate) delays: Vec<Duration>,
    pub(crate) lost: usize,
    /// Newcomers that got 503 or 1013: the server admits none, and opens no room, while it is short of
    /// memory.
    pub(crate) refused: usize,
}

impl Delays {
    /// Returns the delay that a share of all do not exceed, in milliseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.delays.clone();
        sorted.sort_unstable();
        let index = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(index.saturating_sub(1)).map_or(f64::NAN, |delay| delay.as_secs_f64() * 1e3)
    }

    fn add(&mut self, due: Instant, answered: bool) {
        match answered {
            true => self.delays.push(due.elapsed()),
            false => self.lost += 1,
        }
    }
}

/// Runs the regular clients until `stop`, on a thread of their own: the attackers are not to delay them here.
pub(crate) fn spawn(
    server: SocketAddr,
    tls: Option<TlsConnector>,
    stop: Arc<AtomicBool>,
) -> oneshot::Receiver<Result<Delays>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let delays = runtime.map_err(Into::into).and_then(|runtime| {
            runtime.block_on(async {
                let has_tls = tls.is_some();
                let server = match tls {
                    None => server,
                    Some(connector) => forward(server, connector).await?,
                };
                run(server, has_tls, stop).await
            })
        });
        let _ = sender.send(delays);
    });
    receiver
}

async fn run(server: SocketAddr, has_tls: bool, stop: Arc<AtomicBool>) -> Result<Delays> {
    let newcomers = tokio::spawn(newcomers(server, has_tls, Arc::clone(&stop)));
    let (mut member, mut joiner) = pair(server, "/regular").await.context("the regular pair")?;
    let (mut delays, mut due) = (Delays::default(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        due += INTERVAL;
        sleep_until(due).await;
        joiner.send(&content(b"candidate")).await?;
        for ws in [&mut member, &mut joiner] {
            ws.send(&HEARTBEAT).await?;
        }
        let received = timeout(TIMEOUT, next_content(&mut member)).await;
        delays.add(due, received.is_ok());
        if let Ok(message) = received {
            message.context("a regular client was disconnected")?;
        }
    }
    let newcomers = newcomers.await??;
    delays.delays.extend(newcomers.delays);
    delays.lost += newcomers.lost;
    delays.refused = newcomers.refused;
    Ok(delays)
}

async fn newcomers(server: SocketAddr, has_tls: bool, stop: Arc<AtomicBool>) -> Result<Delays> {
    let (mut delays, mut due) = (Delays::default(), Instant::now());
    for number in 0.. {
        due += NEWCOMER_INTERVAL;
        sleep_until(due).await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let path = format!("/newcomer-{number}");
        match timeout(TIMEOUT, pair(server, &path)).await {
            Ok(Ok(_)) => delays.add(due, true),
            Ok(Err(error)) if is_refusal(&error, has_tls) => delays.refused += 1,
            Ok(Err(error)) => {
                eprintln!("newcomer {number}: {error:#}");
                delays.add(due, false);
            }
            Err(_) => {
                eprintln!("newcomer {number}: no answer");
                delays.add(due, false);
            }
        }
    }
    Ok(delays)
}

/// Returns true if a server admits no clients, as it is short of memory. On a port of TLS, it disconnects
/// them without a response.
fn is_refusal(error: &anyhow::Error, has_tls: bool) -> bool {
    let text = error.to_string();
    let is_disconnect = error.downcast_ref::<io::Error>().is_some() || text.starts_with(ENDED_EARLY);
    text.contains("HTTP/1.1 503 ") || text.starts_with("1013 ") || has_tls && is_disconnect
}
