//! The limit of file descriptors, in a process of its own: the limit is that of the whole process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

use sigver::server::fd_limit::{PREALLOCATED, raise};

#[test]
fn table_has_room_for_the_raised_limit() {
    let limit = raise().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
    assert!(size.trim().parse::<u64>().unwrap() >= limit.min(PREALLOCATED), "{size} of {limit}");
    assert_eq!(rlimit::Resource::NOFILE.get().unwrap(), (limit, limit));
}
