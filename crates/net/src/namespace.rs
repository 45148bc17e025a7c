//! Network namespaces: made, pinned under a name, entered by a thread of their own, removed.
//!
//! A namespace belongs to a thread, so nothing here ever runs on a thread of the async runtime: [`on_own_thread`]
//! starts one that dies after the work, whatever namespace it then is in.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use camino::Utf8Path;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::fstatfs;
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;

use crate::name::{NETNS_DIR, netns_path};

/// The namespace of the calling thread; `/proc/self` would be the main thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// File system magic of namespaces. Source: include/uapi/linux/magic.h, NSFS_MAGIC.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// What went wrong with a namespace.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {name}")]
pub(crate) struct NamespaceError {
    doing: &'static str,
    name: String,
    source: io::Error,
}

impl NamespaceError {
    fn new(doing: &'static str, name: &str, source: impl Into<io::Error>) -> Self {
        Self { doing, name: name.to_owned(), source: source.into() }
    }
}

/// An open network namespace; keeps it alive.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    name: String,
}

impl Namespace {
    /// The calling thread's, when it has not left the host's.
    pub(crate) fn of_host() -> Result<Self, NamespaceError> {
        Self::own_named("of the host")
    }

    /// The one pinned under this name; `None` when there is none, or only the file it was pinned on.
    pub(crate) fn find(name: &str) -> Result<Option<Self>, NamespaceError> {
        let failed = |source| NamespaceError::new("open namespace", name, source);
        match File::open(netns_path(name)) {
            Ok(file) => {
                let kind = fstatfs(&file).map_err(|errno| failed(errno.into()))?.filesystem_type();
                Ok((kind.0 == NSFS_MAGIC).then(|| Self { file, name: name.to_owned() }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes a namespace, moves the calling thread into it and pins it under this name, which must be free.
    pub(crate) fn create(name: &str) -> Result<Self, NamespaceError> {
        let path = netns_path(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(|source| NamespaceError::new("create file for namespace", name, source))?;
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|source| NamespaceError::new("create namespace", name, source))?;
        mount(Some(OWN), path.as_std_path(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|source| NamespaceError::new("pin namespace", name, source))?;
        Self::own_named(name)
    }

    /// Moves the calling thread into this namespace.
    pub(crate) fn enter(&self) -> Result<(), NamespaceError> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|source| NamespaceError::new("enter namespace", &self.name, source))
    }

    /// The descriptor, for netlink messages that name a namespace.
    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn own_named(name: &str) -> Result<Self, NamespaceError> {
        let file = File::open(OWN).map_err(|source| NamespaceError::new("open namespace", name, source))?;
        Ok(Self { file, name: name.to_owned() })
    }
}

/// Unpins the namespace of this name; it goes when its last user does. Nothing to do is success.
pub(crate) fn remove(name: &str) -> Result<(), NamespaceError> {
    let path = netns_path(name);
    loop {
        match umount2(path.as_std_path(), MntFlags::MNT_DETACH) {
            // A crash at the wrong moment can have pinned twice.
            Ok(()) => {}
            // Not a mount point (any more), or never there.
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(NamespaceError::new("unpin namespace", name, errno)),
        }
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(NamespaceError::new("remove file of namespace", name, error))
        }
        _ => Ok(()),
    }
}

/// The names of everything pinned, whoever pinned it.
pub(crate) fn pinned() -> Result<Vec<String>, NamespaceError> {
    let failed = |source| NamespaceError::new("list namespaces in", NETNS_DIR, source);
    let entries = match std::fs::read_dir(NETNS_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Makes the directory of pinned namespaces a shared mount, as iproute2 does, so that unpinning also reaches
/// the mount namespaces of others (the engine runs in one).
pub(crate) fn prepare_dir() -> Result<(), NamespaceError> {
    let dir = Utf8Path::new(NETNS_DIR);
    let failed = |source: io::Error| NamespaceError::new("prepare directory", NETNS_DIR, source);
    std::fs::create_dir_all(dir).map_err(failed)?;
    // Two processes at once would stack two mounts, and then names pinned on the lower one are hidden.
    let dir_file = File::open(dir).map_err(failed)?;
    let _lock = Flock::lock(dir_file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?;
    let share = || {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(None::<&str>, dir.as_std_path(), None::<&str>, flags, None::<&str>)
    };
    match share() {
        // Not a mount point yet.
        Err(Errno::EINVAL) => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(dir.as_std_path()), dir.as_std_path(), None::<&str>, flags, None::<&str>)
                .and_then(|()| share())
                .map_err(|errno| failed(errno.into()))
        }
        other => other.map_err(|errno| failed(errno.into())),
    }
}

/// Runs blocking work on a thread of its own, which may change its namespace at will.
///
/// `work` gets a runtime of that thread, for sockets and children that must be made in its namespace. It runs to
/// its end even when the caller goes away.
pub(crate) async fn on_own_thread<T, F>(purpose: &'static str, work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce(&Runtime) -> T + Send + 'static,
{
    let (done, outcome) = oneshot::channel();
    let span = tracing::Span::current();
    std::thread::Builder::new().name(purpose.to_owned()).spawn(move || {
        let _entered = span.enter();
        let outcome = runtime::Builder::new_current_thread().enable_all().build().map(|rt| work(&rt));
        // Nobody waits any more when the caller went away.
        let _ = done.send(outcome);
    })?;
    outcome.await.unwrap_or_else(|_| Err(io::Error::other(format!("thread '{purpose}' panicked"))))
}
