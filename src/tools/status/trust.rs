//! The users whose answers are believed. Any user may bind a path in `/tmp` before the server does.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::running::number_in_name;
use crate::socket_user::{ROOT, is_owner_or_root};

/// State of a TCP socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// The process that answers on a control socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answering {
    pub(super) user: u32,
    pub(super) process: Option<i32>,
}

/// Returns true if `me` may believe what is answered at `path`: by root, by the same user, and for root by
/// the user whose server it is.
pub(super) fn is_trusted(path: &Path, answering: Answering, me: u32) -> bool {
    is_owner_or_root(answering.user, me)
        || me == ROOT && (names_server_of(path, answering) || is_in_own_directory(path, answering.user))
}

/// Returns true if the path names a port on which the user listens, or the process that answers.
fn names_server_of(path: &Path, answering: Answering) -> bool {
    let Some(number) = number_in_name(path) else { return false };
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let listeners = tables.iter().flat_map(|table| table.lines().filter_map(listener));
    let is_process = answering.process.is_some_and(|process| u32::try_from(process) == Ok(number));
    is_process || listeners.into_iter().any(|(port, user)| (port, user) == (number, answering.user))
}

/// Returns the port and the user of a socket that listens, from a line of `/proc/net/tcp`.
fn listener(line: &str) -> Option<(u32, u32)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, LISTENS, _, _, _, user, ..] = fields[..] else { return None };
    Some((u32::from_str_radix(local.rsplit(':').next()?, 16).ok()?, user.parse().ok()?))
}

/// Returns true if only root and the user can put a socket there.
fn is_in_own_directory(path: &Path, user: u32) -> bool {
    let directories = path.ancestors().skip(1).filter(|directory| !directory.as_os_str().is_empty());
    path.is_absolute()
        && directories.map(fs::metadata).all(|directory| {
            directory.is_ok_and(|directory| {
                is_owner_or_root(directory.uid(), user) && directory.mode() & 0o022 == 0
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_believes_only_root_and_the_user_of_the_server() {
        let (me, other) = (1500, 1501);
        let answering = |user| Answering { user, process: Some(77) };
        // No server of user 1501 listens on port 1 of this machine.
        let squatted = Path::new("/tmp/sigver-1.sock");
        assert!(is_trusted(squatted, answering(ROOT), me) && is_trusted(squatted, answering(me), me));
        assert!(!is_trusted(squatted, answering(other), me));
        assert!(!is_trusted(squatted, answering(other), ROOT));
        assert!(!is_trusted(Path::new("/tmp/any.sock"), answering(other), ROOT));
        assert!(!is_trusted(Path::new("relative.sock"), answering(other), ROOT));
        assert!(is_trusted(Path::new("/tmp/sigver-77.sock"), answering(other), ROOT));
        assert!(is_trusted(Path::new("/etc/any.sock"), answering(other), ROOT));
    }

    #[test]
    fn listeners_have_port_and_user() {
        let line = "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1500        0 12345 1";
        assert_eq!(listener(line), Some((8000, 1500)));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(listener(header), None);
        assert_eq!(listener(""), None);
    }
}
