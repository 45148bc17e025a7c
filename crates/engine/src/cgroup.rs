//! The cgroups of guests: unified (v2), and one hierarchy per controller (v1, hybrid).
//!
//! `runsc` makes a guest's cgroups and joins them, with the limits the guest shall *see*; it reads them
//! back to tell the guest its memory and processors. Afterwards [`Group::settle`] turns them into the
//! limits that are *enforced*. Here they are also read, emptied and removed.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::RemoveError;
use crate::process::{is_gone, kill_if};

/// Where the hierarchies are mounted, everywhere.
const MOUNTED_AT: &str = "/sys/fs/cgroup";

/// The host's cgroups.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    root: Utf8PathBuf,
    unified: bool,
}

impl Cgroups {
    /// The host's cgroups, if the controllers we need are there.
    pub(crate) fn find() -> Result<Self, String> {
        let root = Utf8PathBuf::from(MOUNTED_AT);
        let kind = statfs(root.as_std_path()).map_err(|error| format!("{root}: {error}"))?;
        let cgroups = Self { unified: kind.filesystem_type() == CGROUP2_SUPER_MAGIC, root };
        cgroups.check()?;
        Ok(cgroups)
    }

    fn check(&self) -> Result<(), String> {
        let needed = ["memory", "cpu", "cpuset", "pids"];
        let present: Vec<String> = if self.unified {
            let path = self.root.join("cgroup.controllers");
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
            text.split_ascii_whitespace().map(str::to_owned).collect()
        } else {
            needed
                .iter()
                .filter(|name| self.root.join(name).is_dir())
                .map(|name| (*name).to_owned())
                .collect()
        };
        let missing: Vec<&str> =
            needed.into_iter().filter(|name| !present.iter().any(|other| other == name)).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("no {} controller below {}", missing.join(", "), self.root))
        }
    }

    /// The cgroup at `path`, relative to the root of each hierarchy. It need not exist.
    pub(crate) fn group(&self, path: &Utf8Path) -> Group {
        Group { cgroups: self.clone(), path: path.to_owned() }
    }
}

/// What is enforced once a guest has read what it shall see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Bytes of memory, those of the guest and of the engine.
    pub(crate) memory_bytes: u64,
    /// Processors it may run on, as in `0-3,6`.
    pub(crate) cpus: String,
    /// How many of them it may keep busy.
    pub(crate) vcpus: u32,
}

/// Length of a scheduling period, in microseconds.
const PERIOD_US: u64 = 100_000;

/// One cgroup, in every hierarchy that has it.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    cgroups: Cgroups,
    path: Utf8PathBuf,
}

impl Group {
    /// Makes its parent fit to hold it. May be repeated.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let Some(parent) = self.path.parent().filter(|_| !self.cgroups.unified) else { return Ok(()) };
        // In this hierarchy a new group has no processors and no memory, and none below it can have any.
        let root = self.cgroups.root.join("cpuset");
        std::fs::create_dir_all(root.join(parent))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            write(&root.join(parent).join(file), std::fs::read_to_string(root.join(file))?.trim())?;
        }
        Ok(())
    }

    /// Sets the enforced limits.
    pub(crate) fn settle(&self, settled: &Settled) -> io::Result<()> {
        let memory = settled.memory_bytes.to_string();
        let quota_us = u64::from(settled.vcpus) * PERIOD_US;
        if self.cgroups.unified {
            self.write("memory", "memory.max", &memory)?;
            optional(self.write("memory", "memory.swap.max", "0"))?;
            self.write("cpu", "cpu.max", &format!("{quota_us} {PERIOD_US}"))?;
        } else {
            self.write("memory", "memory.limit_in_bytes", &memory)?;
            // Memory and swap together, so this means no swap. Must not be below the limit of memory alone.
            optional(self.write("memory", "memory.memsw.limit_in_bytes", &memory))?;
            self.write("cpu", "cpu.cfs_period_us", &PERIOD_US.to_string())?;
            self.write("cpu", "cpu.cfs_quota_us", &quota_us.to_string())?;
        }
        self.write("cpuset", "cpuset.cpus", &settled.cpus)
    }

    /// How many processes the kernel killed here for want of memory.
    pub(crate) fn oom_kills(&self) -> io::Result<u64> {
        let file = if self.cgroups.unified { "memory.events" } else { "memory.oom_control" };
        Ok(field(&self.read("memory", file)?, "oom_kill"))
    }

    /// Processor time used, in microseconds.
    pub(crate) fn cpu_time_us(&self) -> io::Result<u64> {
        if self.cgroups.unified {
            Ok(field(&self.read("cpu", "cpu.stat")?, "usage_usec"))
        } else {
            Ok(number(&self.read("cpuacct", "cpuacct.usage")?) / 1000)
        }
    }

    /// Memory in use, in bytes, without file pages the kernel would give up at once.
    pub(crate) fn memory_bytes(&self) -> io::Result<u64> {
        let (usage, idle) = if self.cgroups.unified {
            ("memory.current", "inactive_file")
        } else {
            ("memory.usage_in_bytes", "total_inactive_file")
        };
        let used = number(&self.read("memory", usage)?);
        Ok(used.saturating_sub(field(&self.read("memory", "memory.stat")?, idle)))
    }

    /// Kills every process in it and waits until there is none.
    pub(crate) fn kill(&self, deadline: Instant) -> Result<(), RemoveError> {
        let mut pause = Duration::from_millis(1);
        loop {
            let pids = self.processes().map_err(|source| RemoveError::Kill { source })?;
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(RemoveError::StillRunning { pids: pids.into_iter().take(8).collect() });
            }
            self.kill_once(&pids).map_err(|source| RemoveError::Kill { source })?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn kill_once(&self, pids: &BTreeSet<i32>) -> io::Result<()> {
        // Since 5.14; catches what is forked meanwhile.
        if self.cgroups.unified && self.write("", "cgroup.kill", "1").is_ok() {
            return Ok(());
        }
        pids.iter().try_for_each(|pid| kill_if(*pid, || self.holds(*pid)))
    }

    /// Removes it. It must be empty. May be repeated.
    pub(crate) fn remove(&self, deadline: Instant) -> Result<(), RemoveError> {
        for dir in self.dirs().map_err(|source| RemoveError::Kill { source })? {
            while let Err(source) = std::fs::remove_dir(&dir) {
                match source.raw_os_error() {
                    Some(libc::ENOENT) => break,
                    // What has just died still counts for a moment.
                    Some(libc::EBUSY) if Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    _ => return Err(RemoveError::Remove { path: dir, source }),
                }
            }
        }
        Ok(())
    }

    fn processes(&self) -> io::Result<BTreeSet<i32>> {
        let mut pids = BTreeSet::new();
        for dir in self.dirs()? {
            match std::fs::read_to_string(dir.join("cgroup.procs")) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                // Removed meanwhile.
                Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pids)
    }

    /// Its directories that exist.
    fn dirs(&self) -> io::Result<Vec<Utf8PathBuf>> {
        if self.cgroups.unified {
            let dir = self.cgroups.root.join(&self.path);
            return Ok(if dir.is_dir() { vec![dir] } else { Vec::new() });
        }
        let mut dirs = Vec::new();
        for entry in self.cgroups.root.read_dir_utf8()? {
            let entry = entry?;
            // `cpu` may be a link to `cpu,cpuacct`, which is itself in the list.
            if entry.file_type()?.is_dir() {
                let dir = entry.path().join(&self.path);
                if dir.is_dir() {
                    dirs.push(dir);
                }
            }
        }
        Ok(dirs)
    }

    fn holds(&self, pid: i32) -> bool {
        let suffix = format!(":/{}", self.path);
        std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| text.lines().any(|line| line.ends_with(&suffix)))
    }

    /// A file of the cgroup. `controller` says in which hierarchy, where there are several.
    pub(crate) fn file(&self, controller: &str, name: &str) -> Utf8PathBuf {
        if self.cgroups.unified {
            self.cgroups.root.join(&self.path).join(name)
        } else {
            self.cgroups.root.join(controller).join(&self.path).join(name)
        }
    }

    fn read(&self, controller: &str, name: &str) -> io::Result<String> {
        std::fs::read_to_string(self.file(controller, name))
    }

    fn write(&self, controller: &str, name: &str, text: &str) -> io::Result<()> {
        write(&self.file(controller, name), text)
    }
}

fn write(path: &Utf8Path, text: &str) -> io::Result<()> {
    // Not created when absent: these are the kernel's files.
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

/// A setting that not every kernel has (accounting of swap).
fn optional(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The number in the line `name number`; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
        .unwrap_or_default()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLED: Settled = Settled { memory_bytes: 4096, cpus: String::new(), vcpus: 2 };

    /// A directory that looks like a hierarchy, with these files.
    fn tree(unified: bool, files: &[(&str, &str)]) -> (tempfile::TempDir, Group) {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        for (path, text) in files {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), text).unwrap();
        }
        (dir, Cgroups { root, unified }.group(Utf8Path::new("sandbar-ab12/i1")))
    }

    #[test]
    fn a_unified_group_is_read_and_settled() {
        let (_dir, group) = tree(
            true,
            &[
                ("sandbar-ab12/i1/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
                ("sandbar-ab12/i1/memory.current", "1000\n"),
                ("sandbar-ab12/i1/memory.stat", "anon 1\ninactive_anon 7\ninactive_file 400\n"),
                ("sandbar-ab12/i1/cpu.stat", "usage_usec 55\nuser_usec 44\n"),
                ("sandbar-ab12/i1/memory.max", ""),
                ("sandbar-ab12/i1/cpuset.cpus", ""),
                ("sandbar-ab12/i1/cpu.max", ""),
            ],
        );
        assert_eq!(group.oom_kills().unwrap(), 2);
        assert_eq!(group.memory_bytes().unwrap(), 600);
        assert_eq!(group.cpu_time_us().unwrap(), 55);
        group.settle(&SETTLED).unwrap();
        assert_eq!(group.read("memory", "memory.max").unwrap(), "4096");
        assert_eq!(group.read("cpu", "cpu.max").unwrap(), "200000 100000");
        assert!(!group.file("memory", "memory.swap.max").exists(), "absent stays absent");
    }

    #[test]
    fn a_group_in_several_hierarchies_is_read_and_settled() {
        let (_dir, group) = tree(
            false,
            &[
                (
                    "memory/sandbar-ab12/i1/memory.oom_control",
                    "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
                ),
                ("memory/sandbar-ab12/i1/memory.usage_in_bytes", "1000\n"),
                ("memory/sandbar-ab12/i1/memory.stat", "inactive_file 1\ntotal_inactive_file 300\n"),
                ("memory/sandbar-ab12/i1/memory.limit_in_bytes", ""),
                ("memory/sandbar-ab12/i1/memory.memsw.limit_in_bytes", ""),
                ("cpuacct/sandbar-ab12/i1/cpuacct.usage", "7000\n"),
                ("cpuset/sandbar-ab12/i1/cpuset.cpus", ""),
                ("cpu/sandbar-ab12/i1/cpu.cfs_period_us", ""),
                ("cpu/sandbar-ab12/i1/cpu.cfs_quota_us", ""),
            ],
        );
        assert_eq!(group.oom_kills().unwrap(), 1);
        assert_eq!(group.memory_bytes().unwrap(), 700);
        assert_eq!(group.cpu_time_us().unwrap(), 7);
        group.settle(&SETTLED).unwrap();
        assert_eq!(group.read("memory", "memory.memsw.limit_in_bytes").unwrap(), "4096");
        assert_eq!(group.read("cpu", "cpu.cfs_quota_us").unwrap(), "200000");
        assert_eq!(group.dirs().unwrap().len(), 4);
    }
}
