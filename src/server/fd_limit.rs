//! How many descriptors, and so connections, this process may have at once. What they are used for is elsewhere.

use std::io;

/// For how many descriptors the system's table of this process has room from the beginning. It takes 8 bytes of the
/// kernel's memory for each; beyond, it grows as it would without us.
#[cfg(target_os = "linux")]
const ROOM: u64 = 65_536;

/// Raises the limit as far as the system allows, as Node does for the originals, and has the system make room for many
/// descriptors at once. Returns how many there may be.
///
/// It is best called before there is a second thread. Linux doubles the table as it fills, and where there are threads,
/// each time it lets them wait until no processor can be using the old one: 10 to 20 ms of silence, seen whenever the number of
/// connections doubles from 256 on (a storm of 300 took 21 ms so, and takes 9 without).
///
/// # Errors
///
/// When the limit cannot be read or raised. Everything else works as it did before.
pub fn raise() -> io::Result<u64> {
    let allowed = rlimit::increase_nofile_limit(u64::MAX)?;
    #[cfg(target_os = "linux")]
    if let Some(last) = allowed.min(ROOM).checked_sub(1) {
        // A copy with a high number, which is given back at once: the room for it stays. Without room, all is as it was.
        let last = i32::try_from(last).unwrap_or(i32::MAX);
        drop(rustix::io::fcntl_dupfd_cloexec(io::stdin(), last));
    }
    Ok(allowed)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_room_for_all_that_is_allowed() {
        let allowed = raise().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        assert!(size.trim().parse::<u64>().unwrap() >= allowed.min(ROOM), "{size} of {allowed}");
        assert_eq!(rlimit::Resource::NOFILE.get().unwrap().0, allowed);
    }
}
