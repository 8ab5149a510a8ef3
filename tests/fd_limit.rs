//! The limit of file descriptors, in a process of its own: the limit is that of the whole process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use sigver::server::fd_limit::{PREALLOCATED, raise};

/// Returns the number of descriptors for which the kernel's table has room.
fn table_size() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
    size.trim().parse().unwrap()
}

#[test]
fn table_has_room_for_the_raised_limit() {
    let limit = raise().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while table_size() < limit.min(PREALLOCATED) {
        assert!(Instant::now() < deadline, "{} of {limit}", table_size());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(rlimit::Resource::NOFILE.get().unwrap(), (limit, limit));
}
