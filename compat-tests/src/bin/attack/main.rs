//! Attacks on the gateway while clients that do nothing wrong use it: each against a new server, with a row
//! of the table in the documentation as its result. Fails if a regular client is disconnected or gets no
//! answer.

mod attacks;
mod crowds;
mod intruders;
mod regular_clients;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum as _};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use attacks::{Attack, EndCounts, Target};
use tls::Certificate;

/// Attacks a server, and prints what its other clients saw of it.
#[derive(Debug, Parser)]
struct Options {
    /// Attacks to run; all by default
    attacks: Vec<Attack>,
    /// The program to attack
    #[arg(long, default_value = "target/release/sigver")]
    server_bin: PathBuf,
    /// Length of each attack, in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Connections that send as fast as they can
    #[arg(long, default_value_t = 2)]
    flooders: usize,
    /// Connections that hold something, or members of a crowd
    #[arg(long, default_value_t = 1000)]
    crowd: usize,
    /// Time after each attack for the server to give back memory, in seconds
    #[arg(long, default_value_t = 10.0)]
    rest: f64,
    /// Budget of the server, in MB: its --max-memory, which the most that it takes must not exceed
    #[arg(long, default_value_t = 256)]
    budget: u64,
    /// Niceness of the attackers' threads: what they take of the processors is not what is measured
    #[arg(long, default_value_t = 10)]
    nice: i32,
    /// Options of the server, separated by blanks
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    server_options: String,
}

/// The server under attack.
struct Server {
    child: Child,
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

impl Server {
    async fn start(attack: Attack, options: &Options) -> Result<Server> {
        let has_tls = attack.is_over_tls();
        let certificate = has_tls.then(Certificate::new).transpose()?;
        let tls = certificate.iter().flat_map(|pem| ["--key", &pem.key, "--cert", &pem.cert]);
        let kept = (attack == Attack::TakeOver).then_some(["--replace-members", "off"]);
        let mut child = Command::new(&options.server_bin)
            // Connections that are still open are closed at once at its end, and not spread.
            .args(["-h", "127.0.0.1", "-p", "0", "--log", "error", "--drain-timeout", "0"])
            .args(["--max-memory", &(options.budget << 20).to_string()])
            .args(tls)
            .args(kept.into_iter().flatten())
            .args(options.server_options.split_whitespace())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", options.server_bin.display()))?;
        let stdout = child.stdout.take().context("no output")?;
        let line = BufReader::new(stdout).lines().next_line().await?.context("the server has ended")?;
        let port = line.rsplit(':').next().and_then(|port| port.parse().ok());
        let address = SocketAddr::from(([127, 0, 0, 1], port.context("no port in the server's first line")?));
        Ok(Server { child, address, tls: certificate.map(|certificate| certificate.connector) })
    }

    /// Returns a line of its memory in MB: `VmRSS`, or `VmHWM` for the most.
    fn memory(&self, name: &str) -> f64 {
        let status = self.child.id().map(|id| std::fs::read_to_string(format!("/proc/{id}/status")));
        let status = status.and_then(Result::ok).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kilobytes.map_or(f64::NAN, |kilobytes| kilobytes / 1024.0)
    }

    /// Ends the server by SIGTERM. Returns the time that it takes.
    async fn stop(mut self) -> Result<Duration> {
        let begin = Instant::now();
        let id = self.child.id().context("the server has ended")?;
        ensure!(Command::new("kill").arg(id.to_string()).status().await?.success(), "cannot end the server");
        timeout(Duration::from_secs(15), self.child.wait()).await.context("SIGTERM has no effect")??;
        Ok(begin.elapsed())
    }
}

/// Runs an attack, and prints its row. `control` is the p99 of the regular clients without one, in
/// milliseconds. Returns the p99 of the regular clients.
async fn attack(attack: Attack, options: &Options, attackers: &Handle, control: Option<f64>) -> Result<f64> {
    let server = Server::start(attack, options).await?;
    let before = server.memory("VmRSS");
    let (stop, stop_regular) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let regular = regular_clients::spawn(server.address, server.tls.clone(), Arc::clone(&stop_regular));
    let (flooders, crowd) = (options.flooders, options.crowd);
    let (stop_attackers, tls) = (Arc::clone(&stop), server.tls.clone());
    let target = Target { server: server.address, flooders, crowd, stop: stop_attackers, tls };
    let attacking = attackers.spawn(async move { attack.run(&target).await });
    sleep(Duration::from_secs_f64(options.seconds)).await;
    stop_regular.store(true, Ordering::Relaxed);
    let delays = regular.await.context("the thread of the regular clients has ended")??;
    let most = server.memory("VmHWM");
    stop.store(true, Ordering::Relaxed);
    let EndCounts(ends) = attacking.await??;
    sleep(Duration::from_secs_f64(options.rest)).await;
    let after = server.memory("VmRSS");
    let stopped = server.stop().await?;
    let received: Vec<String> = ends
        .iter()
        .map(|(what, (count, megabytes))| match megabytes {
            0.0 => format!("{count} × {what}"),
            _ => format!("{count} × {what} ({megabytes:.0} MB sent)"),
        })
        .collect();
    let control = control.map_or_else(|| "–".to_owned(), |p99| format!("{p99:.1}"));
    println!(
        "| `{}` | {:.1} | {:.1} ({control}) | {:.1} | {}, {} | {before:.1} → {most:.1} → {after:.1} | {:.0} % | {:.1} | {} |",
        attack.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()),
        delays.quantile(0.5),
        delays.quantile(0.99),
        delays.quantile(1.0),
        delays.lost,
        delays.refused,
        100.0 * most / options.budget as f64,
        stopped.as_secs_f64(),
        received.join("; "),
    );
    ensure!(delays.lost == 0, "{} regular clients got no answer", delays.lost);
    ensure!(most <= options.budget as f64, "the server took {most:.1} MB of {}", options.budget);
    Ok(delays.quantile(0.99))
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let nice = options.nice;
    // Of the threads of the attackers alone: the server and the regular clients have others.
    let attackers = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(move || {
            let _ = rustix::process::nice(nice);
        })
        .build()?;
    let attacked = run(&options, attackers.handle()).await;
    attackers.shutdown_background();
    attacked
}

async fn run(options: &Options, attackers: &Handle) -> Result<()> {
    let all = Attack::value_variants();
    println!(
        "| attack | p50 ms | p99 ms (control) | max ms | lost, 503 | MB before → most → after | most of the budget | SIGTERM s | received |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut failed = Vec::new();
    let mut control = None;
    for chosen in if options.attacks.is_empty() { all } else { &options.attacks[..] } {
        match attack(*chosen, options, attackers, control).await {
            Ok(p99) if *chosen == Attack::Control => control = Some(p99),
            Ok(_) => {}
            Err(error) => {
                eprintln!("{chosen:?}: {error:#}");
                failed.push(chosen);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {failed:?}");
    Ok(())
}
