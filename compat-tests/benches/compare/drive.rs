//! Puts a load on a server, and gives what it has shown. Which loads there are is in `works`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use compat_tests::oracle::Server;
use tokio::time::sleep;

use crate::figures::{Figure, Sample};
use crate::lean;
use crate::servers::Party;
use crate::works::{Load, Relay};

/// How long a server that listens is left alone before its size is looked at.
const SETTLED: Duration = Duration::from_millis(200);

/// One turn of one server, with this window in which messages count.
pub async fn turn(server: &Server, _party: Party, load: Load, seconds: f64) -> Result<Sample> {
    let pid = server.pid().context("the server is gone")?;
    match load {
        Load::Relay(Relay { rooms, flight, bytes, .. }) => {
            lean::relay(server, rooms, flight, bytes, seconds).await
        }
        Load::Idle(members) => lean::idle(server, members).await,
        Load::Kept(rooms) => lean::kept(server, rooms, 16 * 1024).await,
        Load::Start => {
            sleep(SETTLED).await;
            let start = server.start.as_secs_f64() * 1e3;
            Ok(Sample::from([(Figure::Start, start), (Figure::Size, memory(pid)? as f64 / 1e6)]))
        }
        _ => bail!("not yet"),
    }
}

/// Resident memory in bytes.
pub fn memory(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Processor time in seconds, of all threads: by the scheduler's clock, which is finer than that of `stat`.
pub fn processor(pid: u32) -> Result<f64> {
    let mut spent = 0u64;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        spent += text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(spent as f64 / 1e9)
}
