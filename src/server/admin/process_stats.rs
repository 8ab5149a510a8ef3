//! Resources that the process uses, as far as the system shows them.

use std::fs;

/// Resources of the process; zero where the system does not show them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProcessStats {
    pub(super) resident_bytes: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
}

impl ProcessStats {
    /// Reads the current values.
    pub(super) fn read() -> ProcessStats {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        ProcessStats {
            resident_bytes: kib.unwrap_or_default() * 1024,
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            max_fds: rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(0, |(soft, _)| soft),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn process_has_memory_and_descriptors() {
        let stats = ProcessStats::read();
        assert!(stats.resident_bytes > 1 << 20, "{stats:?}");
        assert!((1..stats.max_fds).contains(&stats.open_fds), "{stats:?}");
    }
}
