//! Being process 1: a guest without the usual mounts gets them, and the guest ends when the agent does.
//!
//! Reaping orphans is not here: `reaper` does that for every agent.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long programs have to end by themselves when the guest is stopped.
const GRACE: Duration = Duration::from_millis(500);

/// A mount that programs rely on.
struct Mount {
    target: &'static str,
    kind: &'static str,
    options: &'static str,
}

const MOUNTS: [Mount; 4] = [
    Mount { target: "/proc", kind: "proc", options: "" },
    Mount { target: "/dev/pts", kind: "devpts", options: "newinstance,ptmxmode=0666,mode=0620,gid=5" },
    Mount { target: "/dev/shm", kind: "tmpfs", options: "mode=1777" },
    Mount { target: "/run", kind: "tmpfs", options: "mode=0755" },
];

/// Whether this agent is the first process of its guest.
pub(crate) fn is_first() -> bool {
    std::process::id() == 1
}

/// Mounts what is missing. Best effort: an engine may have its own idea, and says so by refusing.
pub(crate) fn prepare_mounts() {
    for wanted in MOUNTS.iter().filter(|wanted| !is_mounted(wanted.target)) {
        let made = fs::create_dir_all(wanted.target).and_then(|()| {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            // Devices are what /dev/pts is for.
            let flags = if wanted.kind == "devpts" { MsFlags::MS_NOSUID } else { flags };
            Ok(mount(Some(wanted.kind), wanted.target, Some(wanted.kind), flags, Some(wanted.options))?)
        });
        if let Err(error) = made {
            tracing::debug!(target = wanted.target, %error, "mount is missing");
        }
    }
    if fs::create_dir_all("/tmp").is_ok() {
        drop(fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777)));
    }
}

fn is_mounted(target: &str) -> bool {
    if target == "/proc" {
        return Path::new("/proc/self").exists();
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == Some(target))
}

/// Asks everybody else to end, and ends them. Called last; the kernel then ends the guest with this process.
pub(crate) fn end_all() {
    let everybody = Pid::from_raw(-1);
    if kill(everybody, Signal::SIGTERM).is_err() {
        return; // nobody is left
    }
    std::thread::sleep(GRACE);
    let _ = kill(everybody, Signal::SIGKILL);
}
