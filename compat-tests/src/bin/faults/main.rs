//! Failures of the machine under a server with clients: descriptors and disk used up, a certificate that is
//! half written, jumps of the clock, a process that is stopped, killed or restarted. Each with a new server,
//! and a line as its result. Fails if a client that does nothing wrong is disconnected or gets no answer.

mod clients;
mod disk;
mod process;
mod restarts;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::time::sleep;

use clients::{Pair, connect_pairs, http_date};
use process::{Server, Start};

/// Causes failures of the machine, and prints what the clients saw of them.
#[derive(Debug, Parser)]
struct Options {
    /// Failures to cause; all by default
    faults: Vec<Fault>,
    /// The program under test
    #[arg(long, default_value = "target/release/sigver")]
    server_bin: PathBuf,
    /// Clients of the failures that concern many
    #[arg(long, default_value_t = 5000)]
    clients: usize,
    /// Time for which the process is stopped, in seconds
    #[arg(long, default_value_t = 20)]
    stop_seconds: u64,
}

/// A failure of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fault {
    /// No descriptor is left for new connections
    Descriptors,
    /// The file system of the outputs and of the control socket is full
    FullDisk,
    /// A certificate is half written when it is read again
    Certificate,
    /// The wall clock jumps by hours, forth and back
    Clock,
    /// The process is stopped, and continued
    Stop,
    /// The process is killed, and all clients come back at once
    Kill,
    /// The process is restarted while new clients arrive
    Restart,
}

/// Number of open files of a server in want of them.
const FEW: usize = 64;
/// Time after which newcomers have to be served again.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(1);

impl Fault {
    async fn cause(self, options: &Options) -> Result<String> {
        match self {
            Fault::Descriptors => descriptors(options).await,
            Fault::FullDisk => disk::full(options).await,
            Fault::Certificate => disk::certificate(options).await,
            Fault::Clock => clock(options).await,
            Fault::Stop => stop(options).await,
            Fault::Kill => restarts::kill(options).await,
            Fault::Restart => restarts::restart(options).await,
        }
    }
}

/// More connections than descriptors: who is connected is served, and newcomers as soon as there is room.
async fn descriptors(options: &Options) -> Result<String> {
    let start = Start { open_files: Some(FEW), ..Start::default() };
    let mut server = Server::start(options, start).await?;
    let mut pair = Pair::open(server.address, "/descriptors").await?;
    let mut held = Vec::new();
    for _ in 0..3 * FEW {
        held.push(TcpStream::connect(server.address).await?);
    }
    let before = server.cpu_seconds()?;
    sleep(Duration::from_secs(2)).await;
    pair.exchange().await.context("the pair while descriptors are used up")?;
    let busy = server.cpu_seconds()? - before;
    ensure!(busy < 1.0, "{busy:.1} s of CPU in 2 s without a free descriptor");
    drop(held);
    let begin = Instant::now();
    // The server may accept the newcomer before it sees that the others have disconnected: it is asked to try
    // again.
    let mut newcomer = loop {
        match Pair::open(server.address, "/newcomer").await {
            Ok(pair) => break pair,
            Err(error) if begin.elapsed() > RECOVERY_TIMEOUT => {
                return Err(error.context("a newcomer after it"));
            }
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    newcomer.exchange().await?;
    let recovered = begin.elapsed();
    pair.exchange().await?;
    drop(pair);
    let errors = server.stop().await?;
    let lines = errors.lines().count();
    ensure!(lines < 30, "{lines} lines of log");
    Ok(format!(
        "{busy:.2} s of CPU in 2 s, {lines} lines of log, a newcomer after {} ms",
        recovered.as_millis()
    ))
}

/// Jumps of the wall clock, which the `Date` of responses shows.
async fn clock(options: &Options) -> Result<String> {
    let folder = disk::Folder::create("clock")?;
    let offset = folder.file("offset");
    std::fs::write(&offset, "+0")?;
    let mut server =
        Server::start(options, Start { clock: Some(offset.clone()), ..Start::default() }).await?;
    let mut all = connect_pairs(server.address, 100).await?;
    let mut dates = Vec::new();
    for jump in ["+0", "+3600", "-7200", "+86400", "+0"] {
        std::fs::write(&offset, jump)?;
        // Longer than times are rounded to.
        sleep(Duration::from_millis(1500)).await;
        dates.push(http_date(server.address).await?);
        for pair in &mut all {
            pair.exchange().await.with_context(|| format!("a pair after the jump to {jump} s"))?;
        }
        Pair::open(server.address, "/newcomer").await?.exchange().await?;
    }
    // A jump back need not show: hyper repeats a `Date` until the clock has passed it.
    let differ = |a: &str, b: &str| a[..16] != b[..16] || a[17..19] != b[17..19];
    ensure!(
        differ(&dates[0], &dates[1]) && differ(&dates[2], &dates[3]),
        "the clock did not jump: {dates:?}"
    );
    let count = all.len();
    drop(all);
    server.stop().await?;
    Ok(format!("{count} pairs and newcomers served at {}", dates.join(", ")))
}

/// A process that does not run for a while, and clients that wait.
async fn stop(options: &Options) -> Result<String> {
    let mut server = Server::start(options, Start::default()).await?;
    let mut all = connect_pairs(server.address, options.clients.min(1000) / 2).await?;
    server.signal("STOP").await?;
    sleep(Duration::from_secs(options.stop_seconds)).await;
    let begin = Instant::now();
    server.signal("CONT").await?;
    for pair in &mut all {
        pair.exchange().await.context("a pair after the stop")?;
    }
    let took = begin.elapsed();
    Pair::open(server.address, "/newcomer").await?.exchange().await?;
    let count = 2 * all.len();
    drop(all);
    server.stop().await?;
    Ok(format!("all {count} clients stay, and are answered within {} ms after it", took.as_millis()))
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let all = Fault::value_variants();
    let (mut passed, mut failed) = (0, 0);
    for fault in if options.faults.is_empty() { all } else { &options.faults[..] } {
        let begin = Instant::now();
        let result = fault.cause(&options).await;
        let took = begin.elapsed().as_secs_f64();
        match result {
            Ok(text) => {
                passed += 1;
                println!("{fault:?} ({took:.1} s): {text}");
            }
            Err(error) => {
                failed += 1;
                println!("{fault:?} ({took:.1} s): FAILED: {error:#}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    ensure!(failed == 0, "a failure of the machine reached clients");
    Ok(())
}
