//! Processes of others, held by a pidfd so that a pid used again is never mistaken for the old one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ProcessRecord;

/// How a process ended, as far as the kernel tells us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Only its parent knows.
    Unknown,
}

/// A process that was running when this was made, and may have ended since.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    fd: AsyncFd<OwnedFd>,
}

impl Process {
    /// The process that has this pid now; `None` if there is none, or only its remains.
    pub(crate) fn open(pid: i32) -> io::Result<Option<Self>> {
        let Some(fd) = pidfd_open(pid)? else {
            return Ok(None);
        };
        // SAFETY: an `OwnedFd` stays open, and the same file, for as long as it lives.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Some(Self { pid, fd }))
    }

    /// The process of `record`; `None` if it has ended.
    pub(crate) fn find(record: &ProcessRecord) -> io::Result<Option<Self>> {
        // Opened first, compared after: what is compared is then what we hold.
        let process = Self::open(record.pid)?;
        Ok(process.filter(|_| is_same(record)))
    }

    /// What finds this process again; `None` if it has ended.
    pub(crate) fn record(&self) -> io::Result<Option<ProcessRecord>> {
        let Some(stat) = stat(self.pid)? else {
            return Ok(None);
        };
        if stat.state == 'Z' {
            return Ok(None);
        }
        Ok(Some(ProcessRecord { pid: self.pid, start_time: stat.start_time, boot_id: boot_id()? }))
    }

    /// Its process id, as the host sees it.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ended(&self) -> io::Result<Ended> {
        // A pidfd becomes readable once, for good, so readiness is never cleared.
        self.fd.readable().await?.retain_ready();
        // Orphans are ours to reap when we are process 1 of a container.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        match waitid(Id::PIDFd(self.fd.get_ref().as_fd()), flags) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(Ended::Code(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Ended::Signal(signal as i32)),
            _ => {}
        }
        let status = self.status_of_remains().or_else(|| status_of_reaped(self.fd.get_ref()));
        Ok(status.map_or(Ended::Unknown, Ended::from_wait_status))
    }

    /// The wait status of a process that has ended and was not yet reaped by its parent.
    fn status_of_remains(&self) -> Option<i32> {
        let stat = stat(self.pid).ok().flatten().filter(|stat| stat.state == 'Z')?;
        // It was there after we looked, so what we looked at was it, and not the next to have its pid.
        let still_there = pidfd_signal(self.fd.get_ref(), 0).is_ok();
        stat.exit_status.filter(|_| still_there)
    }
}

impl Ended {
    fn from_wait_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }
}

fn pidfd_open(pid: i32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            error => Err(error),
        };
    }
    // SAFETY: the call succeeded, so this is a descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// Kills a process. One that has ended is killed already.
fn pidfd_kill(fd: &OwnedFd) -> io::Result<()> {
    match pidfd_signal(fd, libc::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

fn pidfd_signal(fd: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: a null `siginfo_t` is allowed and means "as kill(2)".
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, std::ptr::null::<()>(), 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the process that has the pid of `record` now is that of `record`, and runs.
pub(crate) fn is_same(record: &ProcessRecord) -> bool {
    let same = |stat: Stat| stat.start_time == record.start_time && stat.state != 'Z';
    stat(record.pid).is_ok_and(|stat| stat.is_some_and(same))
        && boot_id().is_ok_and(|boot_id| boot_id == record.boot_id)
}

/// Kills `pid` if `check` still holds once the process is held and cannot be confused with another.
pub(crate) fn kill_if(pid: i32, check: impl FnOnce() -> bool) -> io::Result<()> {
    match pidfd_open(pid)? {
        Some(fd) if check() => pidfd_kill(&fd),
        _ => Ok(()),
    }
}

/// `struct pidfd_info` of linux/pidfd.h in its first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
nix::ioctl_readwrite!(pidfd_get_info, 0xFF, 11, PidfdInfo);

/// The wait status of a process that was reaped by its parent. Kernels before 6.15 do not tell.
fn status_of_reaped(fd: &OwnedFd) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: `info` has the layout of the kernel's first version, whose size is part of the request.
    let told = unsafe { pidfd_get_info(fd.as_raw_fd(), &raw mut info) }.is_ok();
    (told && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

struct Stat {
    state: char,
    start_time: u64,
    /// Wait status, once it has ended. Only root is told.
    exit_status: Option<i32>,
}

/// State and start time of a process; `None` if there is none.
fn stat(pid: i32) -> io::Result<Option<Stat>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(parse_stat(&text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name, in parentheses, may itself contain spaces and parentheses: fields count from the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    let exit_status = fields.nth(29).and_then(|field| field.parse().ok());
    Some(Stat { state, start_time, exit_status })
}

/// Whether a read below `/proc/<pid>` failed because the process has ended.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Pids of all processes that have `argument` among their arguments.
pub(crate) fn with_argument(argument: &str) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if has_argument(pid, argument) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether a process runs and has `argument` among its arguments.
pub(crate) fn has_argument(pid: i32, argument: &str) -> bool {
    // Reading fails when the process has just ended, and a zombie's arguments are empty.
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "5 (a) b) S 1 5 5 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1\n";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.start_time), ('S', 4711));
    }

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "what is tested reaps it")]
    async fn a_child_is_found_again_by_its_record_and_its_code_is_known() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read line; exit 7"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let process = Process::open(child.id() as i32).unwrap().unwrap();
        let record = process.record().unwrap().unwrap();
        assert!(Process::find(&record).unwrap().is_some());
        let other = ProcessRecord { start_time: record.start_time + 1, ..record.clone() };
        assert!(Process::find(&other).unwrap().is_none(), "same pid, other start");
        let other = ProcessRecord { boot_id: "another boot".to_owned(), ..record.clone() };
        assert!(Process::find(&other).unwrap().is_none(), "same pid, other boot");
        drop(child.stdin.take());
        assert_eq!(process.ended().await.unwrap(), Ended::Code(7));
        assert!(Process::find(&record).unwrap().is_none());
    }
}
