//! What an instance has on the host, found by its names (`ARCHITECTURE.md`, "Names on the host").

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::until_sync;

/// Objects of one instance, each kind sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Names below `/run/netns`.
    pub namespaces: Vec<String>,
    /// Network links in the host's namespace.
    pub links: Vec<String>,
    /// nftables tables in the host's namespace.
    pub tables: Vec<String>,
    /// Control groups in any hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// Mount points below the data directory.
    pub mounts: Vec<String>,
    /// Loop devices whose file is below the data directory.
    pub loops: Vec<String>,
    /// Processes in its control groups or with its data directory on their command line.
    pub processes: Vec<String>,
}

impl Traces {
    /// Looks for everything that carries the instance's id or lies below its data directory.
    ///
    /// # Errors
    /// When the host cannot be read.
    pub fn find(instance: &str, data_dir: &Path) -> Result<Self> {
        let data_dir = data_dir.to_str().context("the data directory is not text")?;
        Ok(Self {
            namespaces: entries("/run/netns", &format!("sb-{instance}-"))?,
            links: entries("/sys/class/net", &format!("sb{instance}-"))?,
            tables: tables(&format!("sandbar-{instance}"))?,
            cgroups: cgroups(&format!("sandbar-{instance}"))?,
            mounts: mounts(data_dir)?,
            loops: loops(data_dir)?,
            processes: processes(&format!("/sandbar-{instance}"), data_dir)?,
        })
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many there are of each kind: what must not grow with the number of sandboxes that have been.
    pub fn counts(&self) -> [usize; 7] {
        [
            self.namespaces.len(),
            self.links.len(),
            self.tables.len(),
            self.cgroups.len(),
            self.mounts.len(),
            self.loops.len(),
            self.processes.len(),
        ]
    }

    /// Removes all of it, for tests that failed half way. No server of the instance may run.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn sweep(instance: &str, data_dir: &Path) -> Result<()> {
        let traces = Self::find(instance, data_dir)?;
        for pid in traces.processes.iter().filter_map(|process| process.split(' ').next()?.parse().ok()) {
            // It may have ended in between.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // One that is gone already, or goes with another, is no reason to leave the rest: what counts is what is
        // left in the end.
        for mount in traces.mounts.iter().rev() {
            let _ = umount2(mount.as_str(), MntFlags::MNT_DETACH);
        }
        for device in &traces.loops {
            let _ = command("losetup", &["-d", &format!("/dev/{device}")]);
        }
        for link in &traces.links {
            let _ = command("ip", &["link", "del", link]);
        }
        for namespace in &traces.namespaces {
            let _ = command("ip", &["netns", "del", namespace]);
        }
        for table in &traces.tables {
            let words: Vec<_> = ["delete", "table"].into_iter().chain(table.split(' ')).collect();
            let _ = command("nft", &words);
        }
        // A group is busy until its last process is reaped. Children come after their parents in the list.
        until_sync("clean host", Duration::from_secs(5), || {
            for group in traces.cgroups.iter().rev() {
                let _ = fs::remove_dir(group);
            }
            Ok(Self::find(instance, data_dir)?.is_empty().then_some(()))
        })
    }
}

fn entries(directory: &str, prefix: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    match fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name.starts_with(prefix) {
                    names.push(name);
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {directory}")),
    }
    names.sort();
    Ok(names)
}

fn tables(name: &str) -> Result<Vec<String>> {
    // "table inet sandbar-ab12"
    let list = command("nft", &["list", "tables"])?;
    let tables =
        list.lines().filter(|line| line.ends_with(name)).filter_map(|line| line.strip_prefix("table "));
    Ok(tables.map(str::to_owned).collect())
}

/// The groups called `name` directly below a hierarchy's root (or one controller's), and all groups in them.
fn cgroups(name: &str) -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    let mut found = Vec::new();
    let mut hierarchies = vec![root.to_owned()];
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            hierarchies.push(entry.path());
        }
    }
    for hierarchy in hierarchies {
        collect(&hierarchy.join(name), &mut found);
    }
    Ok(found)
}

/// A group and those below it, parents first. Groups may go away while they are read.
fn collect(group: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(group) else { return };
    found.push(group.to_owned());
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

fn mounts(data_dir: &str) -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.filter(|point| point.starts_with(data_dir)).map(str::to_owned).collect())
}

fn loops(data_dir: &str) -> Result<Vec<String>> {
    let mut devices = entries("/sys/block", "loop")?;
    devices.retain(|device| {
        fs::read_to_string(format!("/sys/block/{device}/loop/backing_file"))
            .is_ok_and(|file| file.starts_with(data_dir))
    });
    Ok(devices)
}

fn processes(cgroup: &str, data_dir: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<i32>().is_err() {
            continue;
        }
        // A process may end while it is looked at; then it has no files any more and is none of ours.
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        let here = groups.lines().any(|line| line.ends_with(cgroup) || line.contains(&format!("{cgroup}/")));
        if here || command.contains(data_dir) {
            found.push(format!("{name} {command}"));
        }
    }
    found.sort();
    Ok(found)
}

fn command(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {}, {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
