//! The files of a guest's bundle: what is written for `runsc`, and what `runsc` writes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use sandbar_model::SlotIndex;
use serde_json::{Value, json};

use super::launch::Netns;
use crate::{BootError, BootSpec, GuestRecord};

/// Longest path of a Unix socket: `sockaddr_un.sun_path` less its end.
const SOCKET_PATH_MAX: usize = 107;

/// Bytes of a log that are looked at for a reason.
const REASON_BYTES: usize = 16 << 10;

/// Where the files of one guest are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) bundle: Utf8PathBuf,
    /// runsc's own state: one file, one lock, one control socket.
    pub(super) state: Utf8PathBuf,
    pub(super) pid: Utf8PathBuf,
    pub(super) log: Utf8PathBuf,
    pub(super) panic_log: Utf8PathBuf,
    /// What the first program prints. On the scratch disk, so that its size is bounded like all else there.
    pub(super) console: Utf8PathBuf,
}

impl Files {
    pub(super) fn of(record: &GuestRecord) -> Self {
        let dir = &record.dir;
        Self {
            bundle: dir.clone(),
            state: dir.join("runsc"),
            pid: dir.join("sentry.pid"),
            log: dir.join("runsc.log"),
            panic_log: dir.join("panic.log"),
            console: record.scratch.join("console.log"),
        }
    }

    /// The argument that all processes of the guest have, and no other process.
    pub(super) fn root_argument(&self) -> String {
        format!("--root={}", self.state)
    }

    /// Pid of the sentry, as runsc noted it.
    pub(super) fn sentry(&self) -> io::Result<i32> {
        let text = fs::read_to_string(&self.pid)?;
        text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Why runsc could not do what it was asked: the last error in its log.
    pub(super) fn reason(&self) -> Option<String> {
        let log = tail(&self.log, REASON_BYTES).unwrap_or_default();
        reason_in(&String::from_utf8_lossy(&log))
    }

    /// The best account there is of the end of a guest that has just been started.
    pub(super) fn last_words(&self) -> String {
        let panic = tail(&self.panic_log, REASON_BYTES).unwrap_or_default();
        let console = tail(&self.console, REASON_BYTES).unwrap_or_default();
        let text = if panic.is_empty() { console } else { panic };
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if text.is_empty() { "it printed nothing".to_owned() } else { text }
    }
}

/// The last `max_bytes` of a file.
pub(super) fn tail(path: &Utf8Path, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let max_bytes = max_bytes as u64;
    file.seek(SeekFrom::Start(length.saturating_sub(max_bytes)))?;
    let mut bytes = Vec::new();
    // The guest may be writing: no more than asked for, however the file grows.
    file.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The message of the last error in a log of JSON lines.
fn reason_in(log: &str) -> Option<String> {
    let errors = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut messages = errors.filter(|line| line["level"] == "error" || line["level"] == "fatal");
    messages.find_map(|line| Some(line["msg"].as_str()?.trim().to_owned()))
}

/// The host's processors.
#[derive(Clone, Debug)]
pub(super) struct Processors {
    all: String,
    each: Vec<u32>,
}

impl Processors {
    pub(super) fn online() -> io::Result<Self> {
        Ok(Self::parse(fs::read_to_string("/sys/devices/system/cpu/online")?.trim()))
    }

    /// A list as the kernel writes it: `0-3,6`.
    fn parse(list: &str) -> Self {
        let each = list
            .split(',')
            .filter_map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
            })
            .flatten()
            .collect();
        Self { all: list.to_owned(), each }
    }

    /// All of them, as a list.
    pub(super) fn all(&self) -> &str {
        &self.all
    }

    /// As many as the guest shall see, as a list. Different slots get different ones, as the guest starts
    /// on these; afterwards it may use all.
    fn seen(&self, vcpus: u32, slot: SlotIndex) -> String {
        let total = self.each.len();
        let wanted = (vcpus as usize).min(total);
        let first = usize::from(slot.0) * wanted;
        let chosen = (first..first + wanted).map(|index| self.each[index % total].to_string());
        chosen.collect::<Vec<_>>().join(",")
    }
}

/// Whether the spec can be put into a bundle.
pub(super) fn check(spec: &BootSpec) -> Result<(), BootError> {
    let refuse = |reason: &str| Err(BootError::Refused { id: spec.id.clone(), reason: reason.to_owned() });
    // `runsc-<id>.sock` in the state directory. Where it does not fit, runsc puts it elsewhere.
    if spec.dir.as_str().len() + spec.id.as_str().len() + "/runsc/runsc-.sock".len() > SOCKET_PATH_MAX {
        return refuse("the path of the data directory is too long for a socket in it");
    }
    if spec.scratch.as_str().contains([',', ':']) {
        return refuse("the path of the scratch directory contains ',' or ':'");
    }
    if spec.stdin.len() > BootSpec::STDIN_MAX {
        return refuse("its standard input is too long");
    }
    if spec.init.is_empty() {
        return refuse("it has no first program");
    }
    Ok(())
}

/// Makes the guest's directory with its bundle, and the file for its output.
pub(super) fn write(
    spec: &BootSpec,
    record: &GuestRecord,
    processors: &Processors,
    netns: &Netns,
) -> Result<File, BootError> {
    let files = Files::of(record);
    let failed = |path: &Utf8Path| {
        let path = path.to_owned();
        move |source| BootError::Write { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&files.bundle).map_err(failed(&files.bundle))?;
    let config = files.bundle.join("config.json");
    let text = config_json(spec, &record.cgroup, processors, netns).to_string();
    fs::write(&config, text).map_err(failed(&config))?;
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&files.console)
        .map_err(failed(&files.console))
}

/// The OCI runtime configuration of a guest. Pure.
fn config_json(spec: &BootSpec, cgroup: &Utf8Path, processors: &Processors, netns: &Netns) -> Value {
    let env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let network = match netns {
        Netns::At(path) => path.as_str(),
        // The one that runsc itself was started in.
        Netns::Empty => "/proc/self/ns/net",
    };
    json!({
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        // Not read-only: writes go to the overlay, never to the directory.
        "root": { "path": spec.root, "readonly": false },
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": spec.init,
            "env": env,
            "cwd": "/",
            // Rights over the guest's own kernel. On the host neither process has them.
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES,
                "permitted": CAPABILITIES, "inheritable": CAPABILITIES,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": OPEN_FILES, "hard": OPEN_FILES }],
            // When the host runs out of memory, guests go before what serves them.
            "oomScoreAdj": 300,
        },
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
            // The guest's own, with its controllers of processes; not the host's.
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev"]),
        ],
        "linux": {
            "cgroupsPath": format!("/{cgroup}"),
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "network", "path": network },
            ],
            "resources": {
                // What the guest sees as its memory and processors; `Settled` is what it may use.
                "memory": { "limit": spec.resources.memory.bytes() },
                "cpu": { "cpus": processors.seen(spec.resources.vcpus.get(), spec.lease.slot) },
                // A backstop that ends the whole guest; the guest's own limit (its `pids.max`) comes first. A
                // process of the guest is one or two on the host, the engine itself some forty threads.
                "pids": { "limit": u64::from(spec.resources.pids) * 2 + 512 },
            },
        },
    })
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": kind, "options": options })
}

/// Files a process in the guest may have open.
const OPEN_FILES: u64 = 1 << 20;

/// All that Linux has.
const CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_chosen_by_slot_and_never_twice() {
        let host = Processors::parse("0-3,6");
        assert_eq!(host.seen(2, SlotIndex(0)), "0,1");
        assert_eq!(host.seen(2, SlotIndex(2)), "6,0");
        assert_eq!(host.seen(9, SlotIndex(0)), "0,1,2,3,6");
        assert_eq!(host.all(), "0-3,6");
    }

    #[test]
    fn the_last_error_in_the_log_is_the_reason() {
        let log = "{\"msg\":\"first\",\"level\":\"error\"}\nnot json\n{\"msg\":\"second\\n\",\"level\":\"error\"}\n{\"msg\":\"x\",\"level\":\"info\"}\n";
        assert_eq!(reason_in(log).as_deref(), Some("second"));
        assert_eq!(reason_in(""), None);
    }

    #[test]
    fn a_tail_is_never_longer_than_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("f")).unwrap();
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(tail(&path, 4).unwrap(), b"6789");
        assert_eq!(tail(&path, 40).unwrap(), b"0123456789");
    }
}
