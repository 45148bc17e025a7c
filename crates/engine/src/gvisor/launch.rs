//! Starts a program in namespaces of its own without ever forking this process.
//!
//! Namespaces belong to threads. A thread made for one launch enters the guest's network namespace and a
//! private mount namespace, spawns the program (`posix_spawn`: no copy of our memory, no code between
//! fork and exec) and ends.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::process::{Child, Command};
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::BootError;

/// The network namespace a guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Netns {
    /// One that exists.
    At(Utf8PathBuf),
    /// A new one without links, that goes with the guest.
    Empty,
}

impl Netns {
    /// The namespace of a lease. An empty path, which no lease has, is [`Netns::Empty`]; used by the probe.
    pub(super) fn of(path: &Utf8Path) -> Self {
        if path.as_str().is_empty() { Self::Empty } else { Self::At(path.to_owned()) }
    }
}

/// A program to be started.
pub(super) struct Launch {
    pub(super) program: Utf8PathBuf,
    pub(super) args: Vec<String>,
    pub(super) netns: Netns,
    /// What it can read from its standard input; no longer than a pipe.
    pub(super) stdin: Vec<u8>,
    /// Its standard output and error.
    pub(super) output: File,
}

impl Launch {
    /// Starts it. The child is killed if its handle is dropped before it has ended.
    ///
    /// `guard` is held until nothing will be started any more, even when this future is dropped.
    pub(super) async fn start(self, guard: OwnedMutexGuard<()>) -> Result<Child, BootError> {
        let (sender, receiver) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            let _runtime = runtime.enter();
            // A receiver that is gone drops the child here, which kills it.
            let _ = sender.send(self.spawn());
            drop(guard);
        };
        std::thread::Builder::new()
            .name("launch".to_owned())
            .spawn(work)
            .map_err(|source| BootError::Launch { step: "start a thread", source })?;
        receiver.await.expect("the thread sends before it ends, and does not panic")
    }

    /// On a thread that is used for nothing else.
    fn spawn(self) -> Result<Child, BootError> {
        let step = |step| move |error: nix::Error| BootError::Launch { step, source: error.into() };
        unshare(CloneFlags::CLONE_NEWNS).map_err(step("make a mount namespace"))?;
        // What the host unmounts must not live on here; what is mounted here must not show on the host.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
            .map_err(step("detach the mount namespace"))?;
        match &self.netns {
            Netns::At(path) => {
                let file = File::open(path)
                    .map_err(|source| BootError::Launch { step: "open the network namespace", source })?;
                setns(file, CloneFlags::CLONE_NEWNET).map_err(step("enter the network namespace"))?;
            }
            Netns::Empty => {
                unshare(CloneFlags::CLONE_NEWNET).map_err(step("make a network namespace"))?;
            }
        }
        // runsc of 2024 takes every namespace that has these files for the host's own, and since 6.13 all
        // have them. Mounted after the namespace is entered, as the directory belongs to it.
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("none"), "/proc/sys/net/core", Some("tmpfs"), flags, None::<&str>)
            .map_err(step("hide the host's network settings"))?;

        let stdin = filled_pipe(&self.stdin)
            .map_err(|source| BootError::Launch { step: "fill the standard input", source })?;
        let output = self.output.try_clone();
        let output = output.map_err(|source| BootError::Launch { step: "share the output file", source })?;
        Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(self.output))
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| BootError::Launch { step: "start runsc", source })
    }
}

/// The reading end of a pipe that holds `bytes` and then end of file.
fn filled_pipe(bytes: &[u8]) -> io::Result<OwnedFd> {
    // Not blocking, so that more than fits is an error and not a wait for ever; the reader is not affected.
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    File::from(writer).write_all(bytes)?;
    let flags = OFlag::from_bits_retain(nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_GETFL)?);
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(reader)
}
