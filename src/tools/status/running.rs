//! The control sockets of the servers that run on this machine, as far as the user may ask them: by the
//! processes, which on Linux `/proc` lists with their sockets, and by the names in the usual directories.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::cli::{self, Outcome, ProcessInputs};
use crate::config::{AdminSocketPath, BridgeConfig, Config};
use crate::server::regular_file;

/// Names of the program.
const PROGRAMS: [&str; 2] = ["sigver", "signallerd"];

/// Flag of a socket that listens, in `/proc/net/unix`.
const LISTENS: u32 = 0x1_0000;

/// Returns the paths of sockets that may be control sockets of running servers, one of each socket.
/// `directories` are the usual ones.
pub(super) fn control_sockets(directories: &[PathBuf]) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let of_processes =
        processes.filter(|process| is_server(process)).flat_map(|process| sockets_of(&process));
    // A service of systemd is found by its process, below the root that it sees, and in a usual directory.
    let mut seen = HashSet::new();
    let mut found: Vec<PathBuf> = of_processes.chain(named_sockets(directories)).collect();
    found.retain(|path| private_socket(path).is_some_and(|socket| seen.insert(socket)));
    found.sort();
    found
}

/// Returns the paths of sockets in these directories that have the name of a control socket.
pub(super) fn named_sockets(directories: &[PathBuf]) -> Vec<PathBuf> {
    let entries = directories.iter().flat_map(fs::read_dir).flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| number_in_name(path).is_some() && private_socket(path).is_some()).collect()
}

/// Returns the number in `sigver-<number>.sock`: the server's port, or its process id if it has no port.
pub(super) fn number_in_name(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("sigver-")?.strip_suffix(".sock")?.parse().ok()
}

/// Returns the device and the inode of a socket that only its owner may use, as those for clients are not.
fn private_socket(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    (file.file_type().is_socket() && file.permissions().mode() & 0o077 == 0).then(|| (file.dev(), file.ino()))
}

fn is_server(process: &Path) -> bool {
    let is_number =
        process.file_name().and_then(OsStr::to_str).is_some_and(|name| name.parse::<u32>().is_ok());
    is_number
        && fs::read_to_string(process.join("comm")).is_ok_and(|name| PROGRAMS.contains(&name.trim_end()))
}

/// Returns the paths of the Unix sockets on which a process listens. None if the user may not see its
/// descriptors.
fn sockets_of(process: &Path) -> Vec<PathBuf> {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let inodes: HashSet<u64> = descriptors
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect();
    let list = fs::read_to_string(process.join("net/unix")).unwrap_or_default();
    let root = match namespace(process) == namespace(Path::new("/proc/self")) {
        true => PathBuf::from("/"),
        // That of a container or of a service with directories of its own.
        false => process.join("root"),
    };
    let directory = fs::read_link(process.join("cwd")).unwrap_or_default();
    let seen_from_here = |path: &Path| root.join(inside(&directory.join(path)));
    let [arguments, environment] =
        ["cmdline", "environ"].map(|name| fs::read(process.join(name)).unwrap_or_default());
    let of_bridge = given_bridge_socket(&arguments, &environment, &|path| {
        regular_file::read_text(&seen_from_here(path), cli::MAX_CONFIG_FILE)
    });
    let paths = list.lines().filter_map(|line| listening_path(line, &inodes)).map(Path::new);
    let paths = paths.filter(|path| of_bridge.as_deref() != Some(*path));
    without_bridge(paths.map(seen_from_here).collect())
}

/// Returns the path of `--bridge-socket` of a gateway with these arguments and variables, each of which ends
/// with a zero. `read_file` reads its configuration file.
fn given_bridge_socket(
    arguments: &[u8],
    environment: &[u8],
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Option<PathBuf> {
    let texts = |bytes: &[u8]| -> Vec<OsString> {
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        bytes.split(|byte| *byte == 0).map(|text| OsStr::from_bytes(text).to_owned()).collect()
    };
    let variables = texts(environment);
    let variable = |name: &str| {
        let value = |variable: &OsString| {
            Some(variable.to_string_lossy().strip_prefix(name)?.strip_prefix('=')?.to_owned())
        };
        variables.iter().find_map(value)
    };
    let inputs = ProcessInputs { env: &variable, env_names: &Vec::new, read_file };
    let mut arguments = texts(arguments).into_iter();
    match cli::parse(&arguments.next()?, arguments, inputs) {
        Outcome::Run(Config { bridge: BridgeConfig { socket: AdminSocketPath::At(path), .. }, .. }, _) => {
            Some(path)
        }
        _ => None,
    }
}

/// Returns the paths of a gateway without that of the socket for its bridge, which does not answer while it
/// has one.
fn without_bridge(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let has_control = paths.iter().any(|path| number_in_name(path).is_some());
    paths.retain(|path| match has_control {
        true => number_in_name(path).is_some(),
        false => !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"sigver-bridge-")),
    });
    paths
}

fn namespace(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/mnt")).ok()
}

/// Returns the path relative to the root directory.
fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Returns the path in a line of `/proc/net/unix` if it is that of a socket that listens and is among
/// `inodes`.
fn listening_path<'a>(line: &'a str, inodes: &HashSet<u64>) -> Option<&'a str> {
    let mut fields = line.split_whitespace();
    let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
    let inode: u64 = fields.nth(2)?.parse().ok()?;
    let path = fields.next()?;
    // An abstract name begins with @. A path may have blanks.
    let path = line.get(line.find(path)?..)?;
    (flags & LISTENS != 0 && inodes.contains(&inode) && !path.starts_with('@')).then_some(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn listening_sockets_of_a_process_are_found() {
        let inodes = HashSet::from([41, 42, 43, 44]);
        for (line, path) in [
            (
                "0000000000000000: 00000002 00000000 00010000 0001 01 42 /run/sigver/sigver-80.sock",
                Some("/run/sigver/sigver-80.sock"),
            ),
            ("0000000000000000: 00000002 00000000 00010000 0001 01 41 a b.sock", Some("a b.sock")),
            ("0000000000000000: 00000002 00000000 00010000 0001 01 45 /tmp/other.sock", None),
            ("0000000000000000: 00000003 00000000 00000000 0001 03 43 /tmp/connected.sock", None),
            ("0000000000000000: 00000002 00000000 00010000 0001 01 44 @abstract", None),
            ("0000000000000000: 00000002 00000000 00010000 0001 01 44", None),
            ("Num       RefCount Protocol Flags    Type St Inode Path", None),
        ] {
            assert_eq!(listening_path(line, &inodes), path, "{line}");
        }
    }

    #[test]
    fn given_socket_for_the_bridge_is_known() {
        let read_file = |path: &Path| match path.to_str() {
            Some("sigver.toml") => {
                Ok("control = \"/run/a.sock\"\nbridge-socket = \"/run/f.sock\"\n".to_owned())
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        for (arguments, environment, path) in [
            (
                &b"sigver\0--control\0/run/a.sock\0--bridge-socket\0/run/b.sock\0"[..],
                &b""[..],
                Some("/run/b.sock"),
            ),
            (b"/usr/bin/sigver\0-p\x0080\0--bridge-socket=/run/c.sock\0", b"", Some("/run/c.sock")),
            (b"sigver\0", b"HOME=/\0SIGVER_BRIDGE_SOCKET=/run/e.sock\0", Some("/run/e.sock")),
            (b"sigver\0--config\0sigver.toml\0", b"", Some("/run/f.sock")),
            (b"sigver\0", b"SIGVER_CONFIG=sigver.toml\0", Some("/run/f.sock")),
            // The one that is in use.
            (b"sigver\0--bridge-socket=b.sock\0", b"SIGVER_CONFIG=sigver.toml\0", Some("b.sock")),
            (b"sigver\0--config\0other.toml\0", b"", None),
            (b"sigver\0--control\0/run/a.sock\0", b"", None),
            (b"", b"", None),
        ] {
            let found = given_bridge_socket(arguments, environment, &read_file);
            assert_eq!(found.as_deref(), path.map(Path::new), "{}", String::from_utf8_lossy(arguments));
        }
    }

    #[test]
    fn socket_for_the_bridge_is_left_out() {
        for (paths, asked) in [
            (&["/tmp/sigver-80.sock", "/tmp/sigver-bridge-80.sock"][..], &["/tmp/sigver-80.sock"][..]),
            (&["/run/bridge.sock", "/proc/7/root/tmp/sigver-80.sock"], &["/proc/7/root/tmp/sigver-80.sock"]),
            (&["/tmp/sigver-bridge-80.sock", "/tmp/other.sock"], &["/tmp/other.sock"]),
            (&["/tmp/other.sock"], &["/tmp/other.sock"]),
        ] {
            let list = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
            assert_eq!(without_bridge(list(paths)), list(asked), "{paths:?}");
        }
    }

    #[test]
    fn socket_with_two_paths_is_found_once() {
        let directory = std::env::temp_dir().join(format!("sigver-running-{}", std::process::id()));
        let (first, second) = (directory.join("first"), directory.join("second"));
        fs::create_dir_all(&first).unwrap();
        std::os::unix::fs::symlink(&first, &second).unwrap();
        let sockets = ["sigver-1.sock", "sigver-2.sock"].map(|name| first.join(name));
        let _listeners = sockets.each_ref().map(|path| {
            let listener = UnixListener::bind(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            listener
        });
        let mut found = control_sockets(&[first, second]);
        found.retain(|path| path.starts_with(&directory));
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found, sockets);
    }

    #[test]
    fn names_have_a_number() {
        for (path, number) in [
            ("/tmp/sigver-8000.sock", Some(8000)),
            ("sigver-4194304.sock", Some(4_194_304)),
            ("/tmp/sigver-x.sock", None),
            ("/tmp/other-80.sock", None),
            ("/", None),
        ] {
            assert_eq!(number_in_name(Path::new(path)), number, "{path}");
        }
    }
}
