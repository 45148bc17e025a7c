//! Waits for processes: the ones the agent started, and as PID 1 everybody else's orphans.
//!
//! One thread sleeps until any child has ended, looks who it is without taking the status, and then waits for that
//! process by its id. So an orphan's end is never mistaken for a child's, and a child's status always reaches its
//! owner. Starting a child and making it known happen under the lock that the thread needs for waiting: a status
//! cannot come before its owner.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use crate::child::{Launch, LaunchError, launch};

/// How often the thread looks again while there is no child at all. Only a PID 1 can be given one meanwhile.
const CHILDLESS: Duration = Duration::from_secs(1);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal { signal: i32, core_dumped: bool },
}

/// A started process.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(crate) exit: oneshot::Receiver<Exit>,
}

/// All processes the agent started and has not yet waited for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Children {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    owners: Mutex<HashMap<u32, oneshot::Sender<Exit>>>,
    started: Condvar,
}

impl Children {
    /// Starts the thread that waits; it lives as long as the agent.
    pub(crate) fn watched() -> std::io::Result<Self> {
        let children = Self::default();
        let shared = children.shared.clone();
        std::thread::Builder::new().name("reaper".into()).spawn(move || shared.reap())?;
        Ok(children)
    }

    /// Starts a program. Blocks until it runs.
    pub(crate) fn spawn(&self, wanted: &Launch<'_>) -> Result<Child, LaunchError> {
        let mut owners = self.shared.lock();
        let pid = launch(wanted, |failed| {
            let _ = waitpid(to_pid(failed), None);
        })?;
        let (owner, exit) = oneshot::channel();
        owners.insert(pid, owner);
        self.shared.started.notify_one();
        Ok(Child { pid, exit })
    }

    /// Sends a signal to a started process, `false` when it has already been waited for.
    ///
    /// Under the lock a process id cannot be given to somebody else meanwhile.
    pub(crate) fn signal(&self, pid: u32, signal: Signal) -> Result<bool, Errno> {
        let owners = self.shared.lock();
        if !owners.contains_key(&pid) {
            return Ok(false);
        }
        kill(to_pid(pid), signal).map(|()| true)
    }

    /// Every process started and not yet waited for.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.shared.lock().keys().copied().collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, oneshot::Sender<Exit>>> {
        self.owners.lock().expect("nothing that holds this lock can panic")
    }

    fn reap(&self) {
        loop {
            match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Ok(ended) => {
                    if let Some(pid) = ended.pid() {
                        self.take(pid);
                    }
                }
                Err(Errno::ECHILD) => {
                    let owners = self.lock();
                    if owners.is_empty() {
                        drop(self.started.wait_timeout(owners, CHILDLESS));
                    }
                }
                Err(_) => {} // EINTR: look again
            }
        }
    }

    /// Waits for one ended process and tells its owner, if it has one.
    fn take(&self, pid: Pid) {
        let mut owners = self.lock();
        // Not through `nix`: it knows no real-time signals, and a status that it cannot name would be lost.
        let mut status = 0;
        // SAFETY: writes one integer.
        if unsafe { libc::waitpid(pid.as_raw(), &mut status, libc::WNOHANG) } <= 0 {
            return; // the launcher took it: it failed before it ran
        }
        let exit = if libc::WIFSIGNALED(status) {
            Exit::Signal { signal: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        };
        if let Some(owner) = owners.remove(&(pid.as_raw() as u32)) {
            let _ = owner.send(exit); // an owner that went away does not need it
        }
    }
}

fn to_pid(pid: u32) -> Pid {
    Pid::from_raw(pid as i32)
}
