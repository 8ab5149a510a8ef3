//! What a process of this machine costs: its processor time and its memory, as Linux tells them. Nothing about servers
//! here.

use std::fs;
use std::time::Duration;

use serde::Serialize;

use super::error::Error;

/// A process of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: u32,
}

/// What a process has cost until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessSample {
    /// Its processor time.
    pub cpu: Duration,
    /// Its resident memory in bytes.
    pub memory: u64,
}

/// What a server has cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Processor time in seconds.
    pub cpu_seconds: f64,
    /// How many processors were busy with it: 1 is all of one.
    pub load: f64,
    /// Processor time in µs for each thing that was done: a message, a session, a member in a second, a joiner.
    pub cpu_us_each: f64,
    /// Resident memory before the first connection, in bytes.
    pub memory_before: u64,
    /// Resident memory at the end, with all connections, in bytes.
    pub memory_after: u64,
}

impl Process {
    /// The process of this id.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at.
    pub fn of(pid: u32) -> Result<Self, Error> {
        let watched = Process { pid };
        watched.read().map(|_| watched)
    }

    /// What it has cost until now.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn read(&self) -> Result<ProcessSample, Error> {
        let wrong = |why: String| Error::Process { pid: self.pid, why };
        if !cfg!(target_os = "linux") {
            return Err(wrong("only Linux tells what a process costs".to_owned()));
        }
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))
            .map_err(|error| wrong(error.to_string()))?;
        let memory = resident(&status).ok_or_else(|| wrong("it has no memory of its own".to_owned()))?;
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid));
        let mut nanos = 0;
        for thread in threads.map_err(|error| wrong(error.to_string()))?.flatten() {
            // A thread may end meanwhile. The scheduler's clock is finer than the ticks of `stat`.
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            nanos += on_processor(&text).unwrap_or(0);
        }
        Ok(ProcessSample { cpu: Duration::from_nanos(nanos), memory })
    }
}

impl Cost {
    /// Of this many things in this time.
    pub(super) fn of(
        memory_before: u64,
        begin: ProcessSample,
        end: ProcessSample,
        elapsed: Duration,
        things: f64,
    ) -> Cost {
        let cpu = end.cpu.saturating_sub(begin.cpu).as_secs_f64();
        Cost {
            cpu_seconds: cpu,
            load: cpu / elapsed.as_secs_f64().max(1e-9),
            cpu_us_each: if things > 0.0 { cpu * 1e6 / things } else { 0.0 },
            memory_before,
            memory_after: end.memory,
        }
    }
}

/// Resident memory in bytes, from `/proc/PID/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Nanoseconds on a processor, from `/proc/PID/task/TID/schedstat`.
fn on_processor(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_is_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nVmX: 1 kB"), Some(2 << 20));
        assert_eq!(resident("Name:\tkthread"), None);
        assert_eq!(on_processor("123456 78 9\n"), Some(123_456));
        assert_eq!(on_processor(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_costs_something_and_none_is_refused() {
        assert!(Process::of(std::process::id()).unwrap().read().unwrap().memory > 0);
        assert!(Process::of(u32::MAX).is_err());
    }

    #[test]
    fn a_cost_is_what_was_spent_between() {
        let reading = |ms, memory| ProcessSample { cpu: Duration::from_millis(ms), memory };
        let cost = Cost::of(1, reading(100, 2), reading(600, 3), Duration::from_secs(2), 1000.0);
        assert_eq!((cost.load, cost.cpu_us_each), (0.25, 500.0));
        assert_eq!((cost.memory_before, cost.memory_after), (1, 3));
    }
}
