//! Clients that do nothing wrong, and measure what they get: a pair of sigver 20 that sends a message every
//! 100 ms, and a newcomer every 500 ms.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sigver::tools::protobuf::{delimited, number};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::tls::forward;
use crate::ws::Ws;

pub(crate) const HEARTBEAT: [u8; 2] = [0x08, 1];
const INTERVAL: Duration = Duration::from_millis(100);
const NEWCOMER_INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for one answer: what takes longer counts as lost.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Delays of what the innocents were waiting for, each from the time at which it was due.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    pub(crate) delays: Vec<Duration>,
    pub(crate) lost: usize,
    /// Newcomers that got 503: the server admits none while it is short of memory.
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

/// Returns a connect message of sigver 19 and 20.
pub(crate) fn connect(id: u32, members: &[u8]) -> Vec<u8> {
    let mut group = number(1, id);
    if !members.is_empty() {
        group.extend(delimited(2, members));
    }
    delimited(3, &group)
}

/// Returns a content message of sigver 20 from a joiner.
pub(crate) fn content(data: &[u8]) -> Vec<u8> {
    delimited(2, &[number(1, 0), number(2, 0), delimited(4, data)].concat())
}

/// Returns a member and a joiner that are linked.
pub(crate) async fn pair(server: SocketAddr, path: &str) -> Result<(Ws, Ws)> {
    let mut member = Ws::open(server, path).await?;
    member.send(&connect(11, &[])).await?;
    ensure!(member.message().await? == [0x20, 1], "the member was not admitted");
    let mut joiner = Ws::open(server, path).await?;
    joiner.send(&connect(12, &[])).await?;
    ensure!(joiner.message().await? == [0x20, 0], "the joiner was not linked");
    Ok((member, joiner))
}

/// Receives the next message that is no heartbeat.
async fn next_content(ws: &mut Ws) -> Result<Vec<u8>> {
    loop {
        let message = ws.message().await?;
        if message != HEARTBEAT {
            return Ok(message);
        }
    }
}

/// Runs the innocents until `stop`, on a thread of their own: the attackers are not to delay them here.
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
                let server = match tls {
                    None => server,
                    Some(connector) => forward(server, connector).await?,
                };
                run(server, stop).await
            })
        });
        let _ = sender.send(delays);
    });
    receiver
}

async fn run(server: SocketAddr, stop: Arc<AtomicBool>) -> Result<Delays> {
    let newcomers = tokio::spawn(newcomers(server, Arc::clone(&stop)));
    let (mut member, mut joiner) = pair(server, "/innocent").await.context("the innocent pair")?;
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
            message.context("an innocent client was disconnected")?;
        }
    }
    let newcomers = newcomers.await??;
    delays.delays.extend(newcomers.delays);
    delays.lost += newcomers.lost;
    delays.refused = newcomers.refused;
    Ok(delays)
}

async fn newcomers(server: SocketAddr, stop: Arc<AtomicBool>) -> Result<Delays> {
    let (mut delays, mut due) = (Delays::default(), Instant::now());
    for number in 0.. {
        due += NEWCOMER_INTERVAL;
        sleep_until(due).await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let path = format!("/newcomer-{number}");
        match timeout(TIMEOUT, pair(server, &path)).await {
            Ok(Err(error)) if error.to_string().contains("HTTP/1.1 503 ") => delays.refused += 1,
            answer => delays.add(due, matches!(answer, Ok(Ok(_)))),
        }
    }
    Ok(delays)
}
