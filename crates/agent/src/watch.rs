//! What happens in a directory, told as it happens.
//!
//! One kernel queue per watch ([`tree::Tree`] turns its raw events into ours); two ways to read it: a stream that lives
//! as long as its connection, and a [`polled::Watcher`] that collects until it is asked or removed.

mod network;
mod polled;
mod tree;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use sandbar_wire::envd::filesystem::{
    EventType, FilesystemEvent, WatchDirResponse, WatchKeepAlive, WatchStart,
};
use sandbar_wire::envd::{Code, RpcError};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::accounts::Accounts;
use crate::connect::Messages;
use crate::filesystem::entry_info;
pub(crate) use polled::Watchers;
use tree::{Change, Tree, TreeError};

/// What to watch.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Absolute.
    pub(crate) path: String,
    pub(crate) recursive: bool,
    /// Attach entries to events of what still exists.
    pub(crate) include_entry: bool,
    pub(crate) allow_network_mounts: bool,
}

/// Why a directory is not watched, or not any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("path {0} not found")]
    NotFound(String),
    #[error("path {0} is not a directory")]
    NotADirectory(String),
    #[error("cannot watch path on network filesystem: {0}")]
    Network(String),
    #[error("look at {path}: {source}")]
    Look { path: String, source: io::Error },
    #[error("watch {path}: {source}")]
    Tree { path: String, source: TreeError },
    #[error("watch {path}: wait for events: {source}")]
    Wait { path: String, source: io::Error },
    #[error("watch {0}: too many events were not fetched")]
    TooMany(String),
    #[error("{0}")]
    Ended(String),
    #[error("watcher with id {0} not found")]
    NoWatcher(String),
}

impl From<WatchError> for RpcError {
    fn from(error: WatchError) -> Self {
        let code = match &error {
            WatchError::NotFound(_) | WatchError::NoWatcher(_) => Code::NotFound,
            WatchError::NotADirectory(_) | WatchError::Network(_) => Code::InvalidArgument,
            WatchError::Look { .. }
            | WatchError::Tree { .. }
            | WatchError::Wait { .. }
            | WatchError::TooMany(_)
            | WatchError::Ended(_) => Code::Internal,
        };
        RpcError::new(code, error.to_string())
    }
}

/// An armed watch.
#[derive(Debug)]
struct Watch {
    wanted: Wanted,
    tree: Tree,
}

impl Watch {
    /// Arms the watch: what happens from now on will be told. Blocks while the directories are walked.
    fn arm(wanted: Wanted) -> Result<Self, WatchError> {
        let path = &wanted.path;
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(WatchError::NotADirectory(path.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(WatchError::NotFound(path.clone()));
            }
            Err(source) => return Err(WatchError::Look { path: path.clone(), source }),
        }
        if !wanted.allow_network_mounts && network::is_network(path.as_ref()) {
            return Err(WatchError::Network(path.clone()));
        }
        let tree = Tree::watch(path.as_ref(), wanted.recursive)
            .map_err(|source| WatchError::Tree { path: path.clone(), source })?;
        Ok(Self { wanted, tree })
    }

    /// Everything the kernel has told and we have not. Never waits.
    fn take(&mut self) -> Result<Vec<FilesystemEvent>, WatchError> {
        let changes = self.tree.take().map_err(|source| self.failed(source))?;
        let accounts = if self.wanted.include_entry { Accounts::load() } else { Accounts::default() };
        Ok(changes.into_iter().map(|change| self.event(change, &accounts)).collect())
    }

    fn event(&self, change: Change, accounts: &Accounts) -> FilesystemEvent {
        let may_exist = matches!(change.kind, EventType::Create | EventType::Write | EventType::Chmod);
        let entry = (self.wanted.include_entry && may_exist).then(|| {
            let path = match change.name.as_str() {
                "." => self.wanted.path.clone(),
                name => format!("{}/{name}", self.wanted.path.trim_end_matches('/')),
            };
            entry_info(&path, accounts).ok()
        });
        FilesystemEvent { name: change.name, r#type: change.kind as i32, entry: entry.flatten() }
    }

    /// Becomes readable when there is something to take.
    fn signal(&self) -> Result<AsyncFd<OwnedFd>, WatchError> {
        let failed = |source| WatchError::Wait { path: self.wanted.path.clone(), source };
        let fd = self.tree.as_fd().try_clone_to_owned().map_err(failed)?;
        // SAFETY: an owned descriptor stays the same one until it is dropped.
        unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
            .map_err(|error| failed(error.into_parts().1))
    }

    fn failed(&self, source: TreeError) -> WatchError {
        WatchError::Tree { path: self.wanted.path.clone(), source }
    }
}

/// Waits until the kernel has something to tell.
async fn told(signal: &AsyncFd<OwnedFd>) -> io::Result<()> {
    signal.readable().await?.clear_ready();
    Ok(())
}

/// Streams what happens in a directory: `start` once the watch is armed, then events, with a keepalive after each
/// silence. Blocks while it arms the watch.
pub(crate) fn stream(wanted: Wanted, keepalive: Duration) -> Result<Messages<WatchDirResponse>, WatchError> {
    let watch = Watch::arm(wanted)?;
    let signal = Arc::new(watch.signal()?);
    let start = WatchDirResponse { start: Some(WatchStart {}), ..WatchDirResponse::default() };
    let rest = futures::stream::unfold(Some((watch, Vec::new().into_iter())), move |state| {
        let signal = signal.clone();
        async move {
            let (mut watch, mut ready) = state?;
            loop {
                if let Some(event) = ready.next() {
                    let message = WatchDirResponse { filesystem: Some(event), ..WatchDirResponse::default() };
                    return Some((Ok(message), Some((watch, ready))));
                }
                match tokio::time::timeout(keepalive, told(&signal)).await {
                    Err(_silence) => {
                        let message = WatchDirResponse {
                            keepalive: Some(WatchKeepAlive {}),
                            ..WatchDirResponse::default()
                        };
                        return Some((Ok(message), Some((watch, ready))));
                    }
                    Ok(Err(source)) => {
                        let path = watch.wanted.path.clone();
                        return Some((Err(WatchError::Wait { path, source }.into()), None));
                    }
                    Ok(Ok(())) => {}
                }
                let taken = tokio::task::spawn_blocking(move || {
                    let events = watch.take();
                    (watch, events)
                });
                match taken.await {
                    Ok((back, Ok(events))) => (watch, ready) = (back, events.into_iter()),
                    Ok((_, Err(error))) => return Some((Err(error.into()), None)),
                    Err(_) => {
                        return Some((Err(RpcError::new(Code::Internal, "watch task ended early")), None));
                    }
                }
            }
        }
    });
    Ok(Box::pin(futures::StreamExt::chain(futures::stream::once(async { Ok(start) }), rest)))
}
