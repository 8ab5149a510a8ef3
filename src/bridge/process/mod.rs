//! The sockets and the clock of `sigver bridge`.

mod gateway_link;
mod udp;

use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::args::BridgeArgs;
use super::engine::BridgeEngine;
use crate::config::check_bridge_addresses;
use crate::logging::Logging;
use crate::system_memory;
use gateway_link::GatewayLink;
use udp::UdpSockets;

/// Maximum duration of a stop: what was sent arrives, and connections are closed.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Most memory of the process, in bytes, and what may come to it for each connection that there may be, or
/// half of what the system gives, before connections are closed whose clients sent pieces of messages without
/// an end.
const MAX_MEMORY: u64 = 512 << 20;
const MAX_CONNECTION_MEMORY: u64 = 256 << 10;
/// Time in which the memory of connections that were closed is given back, before more are closed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of reports to the gateway, and of looks at the memory.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Longest sleep.
const IDLE_SLEEP: Duration = Duration::from_secs(60);

/// Runs the bridge until a signal.
///
/// # Errors
///
/// The log or a socket cannot be had.
pub(crate) fn run(args: &BridgeArgs) -> Result<ExitCode> {
    let logging = Logging::start(args.log_format)?;
    logging.install(own_events(&args.log));
    // One thread: the work on a message is less than handing it to another.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns a filter for the events of this program alone. Those of the WebRTC stack hold addresses and
/// passwords of clients, and what they sent.
fn own_events(filter: &Targets) -> Targets {
    let default = filter.default_level().unwrap_or(LevelFilter::OFF);
    let own = Targets::new().with_target(env!("CARGO_CRATE_NAME"), default);
    own.with_targets(filter.iter().map(|(target, level)| (target.to_owned(), level)))
}

async fn serve(args: &BridgeArgs) -> Result<()> {
    check_bridge_addresses(&args.listen, &args.public_address)?;
    let mut sockets = UdpSockets::bind(&args.listen, &args.public_address)?;
    let mut engine = BridgeEngine::new(sockets.locals(), args.limits(), fastrand::u64(..), Instant::now())?;
    let mut gateway = GatewayLink::new(args.socket.clone());
    let supervisor = args.supervised.then(standard_input).transpose().context("standard input")?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tracing::info!(addresses = ?sockets.locals(), socket = %args.socket.display(), "bridging");
    let max_memory =
        MAX_MEMORY.saturating_add(MAX_CONNECTION_MEMORY.saturating_mul(args.max_connections.into()));
    let max_memory = system_memory::available().map(|available| max_memory.min(available / 2));
    let mut shed_at = Instant::now();
    let mut stop_at: Option<Instant> = None;
    let mut reports = tokio::time::interval(REPORT_INTERVAL);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = Instant::now();
        let due = [engine.deadline(now), stop_at].into_iter().flatten().min();
        let due = due.unwrap_or_else(|| now + IDLE_SLEEP);
        tokio::select! {
            () = sockets.readable() => sockets.receive(&mut engine),
            event = gateway.next() => gateway.take(event, &mut engine),
            _ = interrupt.recv(), if stop_at.is_none() => stop_at = Some(begin_stop(&mut engine)),
            _ = terminate.recv(), if stop_at.is_none() => stop_at = Some(begin_stop(&mut engine)),
            () = ended(supervisor.as_ref()), if stop_at.is_none() => stop_at = Some(begin_stop(&mut engine)),
            _ = reports.tick() => {
                engine.report();
                let is_short = || system_memory::resident().zip(max_memory).is_some_and(|(held, max)| held > max);
                if shed_at <= now && is_short() {
                    engine.shed_incomplete(Instant::now());
                    shed_at = now + RELEASE_TIMEOUT;
                }
            }
            () = tokio::time::sleep_until(due.into()) => {}
        }
        let now = Instant::now();
        engine.tick(now);
        sockets.send(engine.take_packets());
        gateway.send(engine.take_messages(), &mut engine);
        if let Some(at) = stop_at
            && (at <= now || engine.figures().channels == 0)
        {
            tracing::info!("stopped");
            return Ok(());
        }
    }
}

fn standard_input() -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)
}

/// Waits until no process holds the other end of a pipe, even if its holder was killed; without a pipe, for
/// ever.
async fn ended(pipe: Option<&pipe::Receiver>) {
    let Some(pipe) = pipe else { return std::future::pending().await };
    while pipe.readable().await.is_ok() {
        match pipe.try_read(&mut [0; 64]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Has every stand-in leave. Returns the time at which the process ends at the latest.
fn begin_stop(engine: &mut BridgeEngine) -> Instant {
    let now = Instant::now();
    tracing::info!(channels = engine.figures().channels, "stopping");
    engine.stop(now);
    now + STOP_TIMEOUT
}
