//! Raises the limit of file descriptors, and so of connections, and preallocates the kernel's table of them.

use std::io;

use crate::config::ServerLimits;

/// Number of descriptors for which the table is preallocated. It takes 8 bytes of kernel memory for each;
/// beyond it, the table grows as usual.
pub const PREALLOCATED: u64 = 65_536;

/// Number of descriptors that are not for connections.
const RESERVE: u64 = 64;

/// Raises the limit to the hard limit, as Node.js does, and begins to preallocate the table. Returns the new
/// limit.
///
/// Linux doubles the table as it fills; in a process with threads it then blocks until no processor can be
/// using the old table, which delays all connections for milliseconds. Here only a thread of its own waits
/// for that.
///
/// # Errors
///
/// The limit cannot be read or raised. It stays as it was.
pub fn raise() -> io::Result<u64> {
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    #[cfg(target_os = "linux")]
    if let Some(last) = limit.min(PREALLOCATED).checked_sub(1) {
        // A duplicate with a high number grows the table. The table stays when the duplicate is closed; a
        // failure only means that it grows later.
        let last = i32::try_from(last).unwrap_or(i32::MAX);
        let grow = move || drop(rustix::io::fcntl_dupfd_cloexec(io::stdin(), last));
        drop(std::thread::Builder::new().name("descriptors".to_owned()).spawn(grow));
    }
    Ok(limit)
}

/// Returns the number of files that the process may have open at the same time.
pub(crate) fn open_files() -> u64 {
    rlimit::Resource::NOFILE.get().map_or(u64::MAX, |(soft, _)| soft)
}

/// Returns the number of connections for which there are descriptors: a few are kept for the sockets of the
/// server, and to refuse more clients than that.
pub(crate) fn max_connections() -> u32 {
    let limit = open_files();
    u32::try_from(limit - RESERVE.min(limit / 4)).unwrap_or(u32::MAX)
}

/// Returns the number of connections that a configuration allows on this system.
pub(crate) fn configured_connections(limits: &ServerLimits) -> u32 {
    limits.max_connections.unwrap_or_else(max_connections)
}

/// Logs a warning if there are no descriptors for the connections that a limit allows.
pub(crate) fn warn_if_lacking(limits: &ServerLimits) {
    let Some(max_connections) = limits.max_connections.filter(|max| *max > self::max_connections()) else {
        return;
    };
    let open_files = open_files();
    tracing::warn!(
        max_connections,
        open_files,
        "--max-connections is more than the limit of open files allows: beyond that, clients get no answer; raise it \
         (ulimit -n, LimitNOFILE= of systemd, --ulimit nofile= of Docker)"
    );
}
