//! CPU time and memory of local processes, read from Linux's `/proc`.

use std::fs;
use std::time::Duration;

use serde::Serialize;

use super::error::Error;

/// One or several local processes, as the nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processes {
    pids: Vec<u32>,
}

/// Totals of processes since their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessSample {
    /// CPU time.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub memory: u64,
}

/// Cost of a server during a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Average number of busy CPUs.
    pub load: f64,
    /// CPU time in µs per unit of work: a message, a session, a member and second, a joiner.
    pub cpu_us_each: f64,
    /// Resident memory before the first connection, in bytes.
    pub memory_before: u64,
    /// Resident memory at the end, with all connections, in bytes.
    pub memory_after: u64,
}

impl Processes {
    /// Returns the processes with these ids. Fails if one of them cannot be inspected.
    pub fn new(pids: &[u32]) -> Result<Self, Error> {
        let processes = Processes { pids: pids.to_vec() };
        processes.read().map(|_| processes)
    }

    /// Returns the sums of the processes' totals.
    pub fn read(&self) -> Result<ProcessSample, Error> {
        let mut sum = ProcessSample { cpu: Duration::ZERO, memory: 0 };
        for pid in &self.pids {
            let sample = read(*pid)?;
            sum.cpu += sample.cpu;
            sum.memory += sample.memory;
        }
        Ok(sum)
    }
}

fn read(pid: u32) -> Result<ProcessSample, Error> {
    let wrong = |why: String| Error::Process { pid, why };
    if !cfg!(target_os = "linux") {
        return Err(wrong("only supported on Linux".to_owned()));
    }
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| wrong(error.to_string()))?;
    let memory = resident(&status).ok_or_else(|| wrong("it has no memory (kernel thread)".to_owned()))?;
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let mut nanos = 0;
    for thread in threads.map_err(|error| wrong(error.to_string()))?.flatten() {
        // A thread may have ended since the listing. `schedstat` is finer than the ticks of `stat`.
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        nanos += on_processor(&text).unwrap_or(0);
    }
    Ok(ProcessSample { cpu: Duration::from_nanos(nanos), memory })
}

impl Cost {
    /// Returns the cost of `units` units of work between two samples.
    fn between(
        memory_before: u64,
        begin: ProcessSample,
        end: ProcessSample,
        elapsed: Duration,
        units: f64,
    ) -> Cost {
        let cpu = end.cpu.saturating_sub(begin.cpu).as_secs_f64();
        Cost {
            cpu_seconds: cpu,
            load: cpu / elapsed.as_secs_f64().max(1e-9),
            cpu_us_each: if units > 0.0 { cpu * 1e6 / units } else { 0.0 },
            memory_before,
            memory_after: end.memory,
        }
    }
}

/// Measures a server's cost over a span of time, if its process can be inspected.
pub(super) struct CostMeter<'a> {
    processes: Option<&'a Processes>,
    memory_before: u64,
    begin: Option<ProcessSample>,
}

impl<'a> CostMeter<'a> {
    /// Records the memory before the first connection.
    pub(crate) fn new(processes: Option<&'a Processes>) -> Result<Self, Error> {
        let begin = processes.map(Processes::read).transpose()?;
        Ok(CostMeter { processes, memory_before: begin.map_or(0, |sample| sample.memory), begin })
    }

    /// Starts the measured span.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        self.begin = self.processes.map(Processes::read).transpose()?;
        Ok(())
    }

    /// Ends the measured span, and returns its cost per unit of work.
    pub(crate) fn finish(&self, elapsed: Duration, units: f64) -> Result<Option<Cost>, Error> {
        let end = self.processes.map(Processes::read).transpose()?;
        let span = self.begin.zip(end);
        Ok(span.map(|(begin, end)| Cost::between(self.memory_before, begin, end, elapsed, units)))
    }
}

/// Returns resident memory in bytes, from `/proc/PID/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Returns nanoseconds of CPU time, from `/proc/PID/task/TID/schedstat`.
fn on_processor(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_parsed() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nVmX: 1 kB"), Some(2 << 20));
        assert_eq!(resident("Name:\tkthread"), None);
        assert_eq!(on_processor("123456 78 9\n"), Some(123_456));
        assert_eq!(on_processor(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn own_process_is_inspected_and_missing_process_refused() {
        assert!(Processes::new(&[std::process::id()]).unwrap().read().unwrap().memory > 0);
        assert!(Processes::new(&[u32::MAX]).is_err());
    }

    #[test]
    fn cost_is_difference_of_samples() {
        let reading = |ms, memory| ProcessSample { cpu: Duration::from_millis(ms), memory };
        let cost = Cost::between(1, reading(100, 2), reading(600, 3), Duration::from_secs(2), 1000.0);
        assert_eq!((cost.load, cost.cpu_us_each), (0.25, 500.0));
        assert_eq!((cost.memory_before, cost.memory_after), (1, 3));
    }
}
