//! The memory that the system gives to the process, and the memory that the process has.

use std::fs;
use std::path::Path;

/// Returns the memory that the system or the control group gives to the process, in bytes: the least of all.
/// `None` if the system does not state it as Linux does.
pub(crate) fn available() -> Option<u64> {
    available_below(Path::new("/"))
}

/// The same, in the file system below `root`.
fn available_below(root: &Path) -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(root.join(path)).ok();
    let total = read(Path::new("proc/meminfo")).and_then(|text| total(&text));
    let groups = read(Path::new("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // A group has the limits of those around it. In a container, the path may be that of the host, of
        // which only the root is there.
        let group = Path::new(group.trim_start_matches('/'));
        group.ancestors().filter_map(|group| parse(&read(&Path::new(mount).join(group).join(file))?)).min()
    });
    // A limit of no effect is larger than the machine.
    limits.chain(total).min()
}

/// Parses a limit. `max` is none.
fn parse(limit: &str) -> Option<u64> {
    limit.trim().parse().ok()
}

/// Returns the total of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the memory that the process has, in bytes; `None` if the system does not state it as Linux does.
#[cfg(target_os = "linux")]
pub(crate) fn resident() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

/// Returns the memory that the process has, in bytes; `None` if the system does not state it as Linux does.
#[cfg(not(target_os = "linux"))]
pub(crate) fn resident() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A file system, removed when dropped.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Root {
            let root = std::env::temp_dir().join(format!("sigver-memory-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Root(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       1024 kB\nMemFree:        10 kB\n");

    #[test]
    fn least_limit_of_the_groups_and_the_machine_counts() {
        let machine = 1024 * 1024;
        let v2 = ("proc/self/cgroup", "0::/system.slice/sigver.service\n");
        let v1 = ("proc/self/cgroup", "5:cpu,memory:/docker/abc\n4:pids:/x\n0::/\n");
        let own = "sys/fs/cgroup/system.slice/sigver.service/memory.max";
        let around = "sys/fs/cgroup/system.slice/memory.max";
        let v1_root = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        for (name, files, expected) in [
            ("none", &[][..], None),
            ("machine", &[MEMINFO], Some(machine)),
            ("unlimited", &[MEMINFO, v2, (own, "max\n")], Some(machine)),
            ("own", &[MEMINFO, v2, (own, "500\n"), (around, "700\n")], Some(500)),
            ("around", &[MEMINFO, v2, (own, "max\n"), (around, "700\n")], Some(700)),
            ("container", &[MEMINFO, v1, (v1_root, "600\n")], Some(600)),
            ("v1-unlimited", &[MEMINFO, v1, (v1_root, "9223372036854771712\n")], Some(machine)),
        ] {
            let root = Root::new(name, files);
            assert_eq!(available_below(&root.0), expected, "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_less_than_the_system_gives() {
        let (resident, available) = (resident().unwrap(), available().unwrap());
        assert!(resident > 1 << 20 && resident < available, "{resident} of {available}");
    }
}
