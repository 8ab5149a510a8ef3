//! The machine: cores to pin to, CPU use of other processes, description. Linux only.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Cores. Server and load generator each have their own, so that neither takes time from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// First allowed core, for the server.
    First,
    /// Second allowed core, for the load generator.
    Second,
    /// Both.
    Both,
}

/// Pins this thread, and processes started by it, to these cores. Without effect on a machine with one
/// core.
pub fn pin(cores: Cores) -> Result<()> {
    // The allowed cores, read before anything is pinned.
    static OURS: OnceLock<Vec<usize>> = OnceLock::new();
    let gateway = OURS.get_or_init(|| {
        let set = sched_getaffinity(None).unwrap_or_default();
        (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
    });
    let &[first, second, ..] = &gateway[..] else { return Ok(()) };
    let mut set = CpuSet::new();
    if cores != Cores::Second {
        set.set(first);
    }
    if cores != Cores::First {
        set.set(second);
    }
    sched_setaffinity(None, &set).context("cannot pin to a core")
}

/// Returns a description of the machine, in one line.
pub fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // The part after the version names the builder's flavour.
    let kernel = release.trim().split('-').next().unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = kib(&memory, "MemTotal:") as f64 / 1e6;
    let mut text = format!("{} cores of {}", cores(), field("model name"));
    let _ = write!(text, " (model {}), {:.1} GB of memory, Linux {kernel}", field("model\t"), total);
    if cpu.contains(" hypervisor ") {
        text.push_str(", virtual");
    }
    text
}

/// Measures the CPU use of processes other than this one and a server.
pub struct Watch {
    whole: f64,
    gateway: f64,
    begin: Instant,
}

impl Watch {
    /// Starts measuring; `server` is the server's CPU time so far, in seconds.
    pub fn start(server: f64) -> Watch {
        Watch { whole: busy(), gateway: own() + server, begin: Instant::now() }
    }

    /// Returns the use in % of all cores; `None` if the time was too short for the clock.
    pub fn others(&self, server: f64) -> Option<f64> {
        let elapsed = self.begin.elapsed();
        let others = busy() - self.whole - (own() + server - self.gateway);
        let share = others.max(0.0) / (elapsed.as_secs_f64() * cores() as f64);
        (elapsed > Duration::from_secs(1)).then_some(share * 100.0)
    }
}

/// Ticks per second in `/proc`; 100 on every Linux.
const TICKS: f64 = 100.0;

/// Returns the CPU time used by all processes, in seconds, including time taken by a hypervisor.
fn busy() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // User, nice, system, idle, iowait, irq, softirq, steal.
    let ticks = fields.take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    ticks.filter_map(|(_, field)| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Returns the CPU time of this process, in seconds, including ended threads.
pub fn own() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Returns kernel memory in bytes; mostly sockets and files.
pub fn held_by_the_system() -> u64 {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kib(&memory, "Slab:") * 1024
}

fn kib(memory: &str, name: &str) -> u64 {
    let number = |line: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse().ok();
    memory.lines().find_map(number).unwrap_or_default()
}

fn cores() -> usize {
    // Not `available_parallelism`: this process is pinned.
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpu.lines().filter(|line| line.starts_with("processor")).count().max(1)
}

/// Returns the output of a program's version flag.
pub fn version(program: &std::path::Path, flag: &str) -> String {
    let said = Command::new(program).arg(flag).output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}
