//! Autobahn's cases for WebSocket servers, run by kosoku, through a pipe of signaller: kosoku's bytes go
//! to `/connect/H` unchanged, and a client at `/listen/H` echoes the messages. Directly and through reverse
//! proxies, with and without TLS. Fails unless every case passes, and unless cases fail that must.

mod fronts;
mod shim;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum as _};
use compat_tests::oracle::free_port;
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use fronts::{Certificate, Front};

/// Number of cases in groups 1 to 7, 9 and 10: all but those about compression, which is not offered.
const CASES: usize = 301;

/// Results that are no failure. Those that are not strict differ in the moment at which invalid input is
/// rejected.
const PASSED: [&str; 3] = ["OK", "NON-STRICT", "INFORMATIONAL"];

/// Most failed cases that are printed for one server.
const SHOWN: usize = 20;

/// Limits of a pipe that no case reaches.
const LIMITS: [&str; 6] = [
    "--signaller-max-size=67108864",
    "--signaller-max-messages=1000000",
    "--signaller-pipe-deadline=600",
    "--signaller-listen-deadline=600",
    "--protocol=signaller",
    "--log=error",
];

/// Runs Autobahn's cases.
#[derive(Debug, Parser)]
struct Options {
    /// The program under test
    #[arg(long, default_value = "target/release/sigver")]
    server_bin: PathBuf,
    /// The program that runs the cases
    #[arg(long, default_value = "target/python/bin/kosoku")]
    kosoku: PathBuf,
    /// Servers in front of the gateway; all by default
    #[arg(long, value_delimiter = ',')]
    front: Vec<Front>,
    /// Folder of the reports
    #[arg(long, default_value = "target/autobahn")]
    reports: PathBuf,
}

/// The result of one case in kosoku's report.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaseResult {
    behavior: String,
    behavior_close: String,
}

impl CaseResult {
    fn has_passed(&self) -> bool {
        PASSED.contains(&&self.behavior[..]) && PASSED.contains(&&self.behavior_close[..])
    }
}

/// Starts a program that ends with this one, and waits until it accepts connections.
async fn serve(command: &mut Command, port: u16) -> Result<Child> {
    let mut child = command.kill_on_drop(true).spawn().with_context(|| format!("cannot run {command:?}"))?;
    let begin = Instant::now();
    while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
        ensure!(
            child.try_wait()?.is_none() && begin.elapsed() < Duration::from_secs(10),
            "{command:?} fails"
        );
        sleep(Duration::from_millis(20)).await;
    }
    Ok(child)
}

/// Runs the cases that `selection` leaves, and returns their results by number.
async fn run(
    options: &Options,
    front: Front,
    certificate: Option<&Certificate>,
    limits: &[&str],
    selection: &[&str],
) -> Result<BTreeMap<String, CaseResult>> {
    let (server, public) = (free_port()?, free_port()?);
    let mut gateway = Command::new(&options.server_bin);
    gateway.args(["-h", "127.0.0.1", "--control=off"]).args(limits).stdout(std::process::Stdio::null());
    let direct = front == Front::Direct;
    gateway.arg("-p").arg(if direct { public } else { server }.to_string());
    if let Some(certificate) = certificate.filter(|_| direct) {
        gateway.arg("-c").arg(&certificate.chain).arg("-k").arg(&certificate.key);
    }
    let _gateway = serve(&mut gateway, if direct { public } else { server }).await?;
    let directory = options.reports.join(format!("{front:?}").to_lowercase());
    std::fs::create_dir_all(&directory)?;
    let _proxy = match front.command(&std::fs::canonicalize(&directory)?, server, public, certificate)? {
        None => None,
        Some(mut proxy) => Some(serve(&mut proxy, public).await?),
    };
    let target = shim::Target {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, public)),
        tls: certificate.map(Certificate::connector).transpose()?,
    };
    let shim = shim::spawn(target).await?;
    let reports = directory.join(if certificate.is_some() { "wss" } else { "ws" });
    let status = Command::new(&options.kosoku)
        .args(selection)
        .args(["-p", "2", "-o"])
        .arg(&reports)
        .arg(shim.to_string())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("cannot run {}", options.kosoku.display()))?;
    let results =
        results(&reports.join("index.json")).with_context(|| format!("kosoku ended with {status}"))?;
    Ok(results)
}

/// Returns the results in a report, of the one server that was tested.
fn results(report: &Path) -> Result<BTreeMap<String, CaseResult>> {
    let text = std::fs::read_to_string(report)?;
    let mut servers: BTreeMap<String, BTreeMap<String, CaseResult>> = serde_json::from_str(&text)?;
    Ok(servers.pop_first().context("an empty report")?.1)
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let fronts = if options.front.is_empty() { Front::value_variants() } else { &options.front[..] };
    std::fs::create_dir_all(&options.reports)?;
    let certificate = Certificate::create(&std::fs::canonicalize(&options.reports)?)?;
    let (mut passed, mut failed) = (0, 0);
    for (front, tls) in fronts.iter().flat_map(|front| [(*front, false), (*front, true)]) {
        let begin = Instant::now();
        let certificate = tls.then_some(&certificate);
        let results = run(&options, front, certificate, &LIMITS, &["-x", "12.*", "-x", "13.*"]).await?;
        let count = |name| results.values().filter(|result| result.behavior == name).count();
        let good = results.values().filter(|result| result.has_passed()).count();
        println!(
            "{} {front:?}: {good} of {} ({} OK, {} not strict, {} informational) in {:.0} s",
            if tls { "wss" } else { "ws " },
            results.len(),
            count("OK"),
            count("NON-STRICT"),
            count("INFORMATIONAL"),
            begin.elapsed().as_secs_f64()
        );
        for (case, result) in results.iter().filter(|(_, result)| !result.has_passed()).take(SHOWN) {
            println!("    {case}: {} {}", result.behavior, result.behavior_close);
        }
        passed += good;
        failed += CASES.max(results.len()) - good;
    }
    // Messages above the limit of a pipe must fail, or nothing above proves anything.
    let mut low = LIMITS;
    low[0] = "--signaller-max-size=60000";
    let results = run(&options, Front::Direct, None, &low, &["-i", "9.1.*"]).await?;
    ensure!(results.values().any(|result| !result.has_passed()), "cases pass that cannot");
    println!("{passed} passed, {failed} failed");
    ensure!(failed == 0, "see {}", options.reports.display());
    Ok(())
}
