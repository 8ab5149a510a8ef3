//! What the machine gives: cores to pin to, descriptors, and what stands above the table. Linux only. Nothing is
//! measured here.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Cores: a server and the load each have their own, so that neither takes time from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// The first that we may use, for the server.
    First,
    /// The second, for the load.
    Second,
    /// Both.
    Both,
}

/// Pins this thread, and what it starts from now on, to these cores. Where there is only one, nothing is pinned.
pub fn pin(cores: Cores) -> Result<()> {
    // Those that were ours before anything was pinned.
    static OURS: OnceLock<Vec<usize>> = OnceLock::new();
    let ours = OURS.get_or_init(|| {
        let set = sched_getaffinity(None).unwrap_or_default();
        (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
    });
    let &[first, second, ..] = &ours[..] else { return Ok(()) };
    let mut set = CpuSet::new();
    if cores != Cores::Second {
        set.set(first);
    }
    if cores != Cores::First {
        set.set(second);
    }
    sched_setaffinity(None, &set).context("cannot pin to a core")
}

/// The machine, in a line.
pub fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What follows the version names the builder's flavour, which tells nobody anything.
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

/// How much of the machine processes other than this one and a server take.
pub struct Watch {
    whole: f64,
    ours: f64,
    begin: Instant,
}

impl Watch {
    /// From now on; `server` is the processor time that the server has had, in seconds.
    pub fn start(server: f64) -> Watch {
        Watch { whole: busy(), ours: own() + server, begin: Instant::now() }
    }

    /// In % of all cores; none if it is too short a time for the clock that this is told by.
    pub fn others(&self, server: f64) -> Option<f64> {
        let elapsed = self.begin.elapsed();
        let others = busy() - self.whole - (own() + server - self.ours);
        let share = others.max(0.0) / (elapsed.as_secs_f64() * cores() as f64);
        (elapsed > Duration::from_secs(1)).then_some(share * 100.0)
    }
}

/// The tick of `/proc` is 1/100 s on every Linux.
const TICKS: f64 = 100.0;

/// Processor time that was used by anybody, in seconds; what a hypervisor took, too.
fn busy() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // User, nice, system, idle, waiting, interrupts of both kinds, stolen.
    let ticks = fields.take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    ticks.filter_map(|(_, field)| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Processor time of this process, in seconds: of threads that have ended, too.
pub fn own() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// What the system itself holds for all its processes, in bytes: sockets and files, for a great part.
pub fn held_by_the_system() -> u64 {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kib(&memory, "Slab:") * 1024
}

fn kib(memory: &str, name: &str) -> u64 {
    let number = |line: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse().ok();
    memory.lines().find_map(number).unwrap_or_default()
}

fn cores() -> usize {
    // Not what this process may use: it is pinned.
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpu.lines().filter(|line| line.starts_with("processor")).count().max(1)
}

/// What a program says of its version.
pub fn version(program: &std::path::Path, flag: &str) -> String {
    let said = Command::new(program).arg(flag).output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}
