//! `filesystem.Filesystem` as clients call it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::question::Question;
use futures::StreamExt as _;
use http::Request;
use sandbar_wire::envd::filesystem::{
    CREATE_WATCHER, CreateWatcherRequest, CreateWatcherResponse, EntryInfo, FilesystemEvent,
    GET_WATCHER_EVENTS, GetWatcherEventsRequest, GetWatcherEventsResponse, LIST_DIR, ListDirRequest,
    ListDirResponse, MAKE_DIR, MOVE, MakeDirRequest, MakeDirResponse, MoveRequest, MoveResponse, REMOVE,
    REMOVE_WATCHER, RemoveRequest, RemoveResponse, RemoveWatcherRequest, RemoveWatcherResponse, STAT,
    StatRequest, StatResponse, WATCH_DIR, WatchDirRequest, WatchDirResponse,
};
use sandbar_wire::envd::{Code, RpcError};

use super::entry::{entry_info, reduced_for_legacy};
use super::error::Error;
use super::list::list;
use crate::accounts::{Accounts, User};
use crate::auth;
use crate::body::Answer;
use crate::connect::{Context, Messages, server_stream, unary};
use crate::guest::{Guest, Settings};
use crate::paths;
use crate::watch::{self, Wanted, Watchers};

/// All methods of the service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    guest: Arc<Guest>,
    watchers: Arc<Watchers>,
}

impl Service {
    pub(crate) fn new(guest: Arc<Guest>) -> Self {
        Self { guest, watchers: Arc::default() }
    }

    /// Answers a call to one of the service's paths, `None` for any other path.
    pub(crate) async fn answer(&self, request: Request<Question>) -> Option<Answer> {
        Some(match request.uri().path() {
            STAT => unary(request, |context, message| self.stat(context, message)).await,
            MAKE_DIR => unary(request, |context, message| self.make_dir(context, message)).await,
            MOVE => unary(request, |context, message| self.move_entry(context, message)).await,
            LIST_DIR => unary(request, |context, message| self.list_dir(context, message)).await,
            REMOVE => unary(request, |context, message| self.remove(context, message)).await,
            WATCH_DIR => server_stream(request, |context, message| self.watch_dir(context, message)).await,
            CREATE_WATCHER => unary(request, |context, message| self.create_watcher(context, message)).await,
            GET_WATCHER_EVENTS => {
                unary(request, |context, message| self.watcher_events(context, message)).await
            }
            REMOVE_WATCHER => unary(request, |_, message| self.remove_watcher(message)).await,
            _ => return None,
        })
    }

    async fn stat(&self, context: Context, request: StatRequest) -> Result<StatResponse, RpcError> {
        let entry = self.run(context, move |caller| {
            let path = caller.resolve(&request.path)?;
            caller.entry(&path)
        });
        Ok(StatResponse { entry: Some(entry.await?) })
    }

    async fn make_dir(&self, context: Context, request: MakeDirRequest) -> Result<MakeDirResponse, RpcError> {
        let entry = self.run(context, move |caller| {
            let path = caller.resolve(&request.path)?;
            match fs::metadata(&path) {
                Ok(found) if found.is_dir() => return Err(Error::DirectoryExists(path)),
                Ok(_) => return Err(Error::FileExists(path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Io { action: "stat", path, source }),
            }
            paths::ensure_dirs(Path::new(&path), &caller.user)?;
            caller.entry(&path)
        });
        Ok(MakeDirResponse { entry: Some(entry.await?) })
    }

    async fn move_entry(&self, context: Context, request: MoveRequest) -> Result<MoveResponse, RpcError> {
        let entry = self.run(context, move |caller| {
            let source = caller.resolve(&request.source)?;
            let destination = caller.resolve(&request.destination)?;
            paths::ensure_dirs(Path::new(paths::parent(&destination)), &caller.user)?;
            // The system call would replace an empty directory, and the standard library lets it.
            if fs::symlink_metadata(&destination).is_ok_and(|found| found.is_dir())
                && fs::symlink_metadata(&source).is_ok()
            {
                return Err(Error::DestinationIsDirectory(destination));
            }
            fs::rename(&source, &destination).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::SourceNotFound(source.clone()),
                _ => Error::Io { action: "rename", path: source.clone(), source: error },
            })?;
            caller.entry(&destination)
        });
        Ok(MoveResponse { entry: Some(entry.await?) })
    }

    async fn list_dir(&self, context: Context, request: ListDirRequest) -> Result<ListDirResponse, RpcError> {
        let entries = self.run(context, move |caller| {
            let path = caller.resolve(&request.path)?;
            let entries = list(&path, request.depth, &caller.accounts)?;
            Ok(entries.into_iter().map(|entry| caller.reduced(entry)).collect())
        });
        Ok(ListDirResponse { entries: entries.await? })
    }

    async fn remove(&self, context: Context, request: RemoveRequest) -> Result<RemoveResponse, RpcError> {
        let removed = self.run(context, move |caller| {
            let path = caller.resolve(&request.path)?;
            let removed = match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(source) => Err(Error::Io { action: "remove", path, source }),
                Ok(()) => Ok(()),
            }
        });
        removed.await?;
        Ok(RemoveResponse {})
    }

    async fn watch_dir(
        &self,
        context: Context,
        request: WatchDirRequest,
    ) -> Result<Messages<WatchDirResponse>, RpcError> {
        let (keepalive, legacy) = (context.keepalive, context.legacy);
        let messages = self.run(context, move |caller| {
            let wanted = Wanted {
                path: caller.resolve(&request.path)?,
                recursive: request.recursive,
                include_entry: request.include_entry,
                allow_network_mounts: request.allow_network_mounts,
            };
            Ok(watch::stream(wanted, keepalive)?)
        });
        let messages = messages.await?;
        if !legacy {
            return Ok(messages);
        }
        Ok(Box::pin(messages.map(|message| {
            message.map(|message| WatchDirResponse {
                filesystem: message.filesystem.map(reduced_event),
                ..message
            })
        })))
    }

    async fn create_watcher(
        &self,
        context: Context,
        request: CreateWatcherRequest,
    ) -> Result<CreateWatcherResponse, RpcError> {
        let watchers = self.watchers.clone();
        let id = self.run(context, move |caller| {
            let wanted = Wanted {
                path: caller.resolve(&request.path)?,
                recursive: request.recursive,
                include_entry: request.include_entry,
                allow_network_mounts: request.allow_network_mounts,
            };
            Ok(watchers.create(wanted)?)
        });
        Ok(CreateWatcherResponse { watcher_id: id.await? })
    }

    async fn watcher_events(
        &self,
        context: Context,
        request: GetWatcherEventsRequest,
    ) -> Result<GetWatcherEventsResponse, RpcError> {
        let watchers = self.watchers.clone();
        let taken = tokio::task::spawn_blocking(move || watchers.take(&request.watcher_id));
        let mut events =
            taken.await.map_err(|_| RpcError::new(Code::Internal, "watch task ended early"))??;
        if context.legacy {
            events = events.into_iter().map(reduced_event).collect();
        }
        Ok(GetWatcherEventsResponse { events })
    }

    async fn remove_watcher(&self, request: RemoveWatcherRequest) -> Result<RemoveWatcherResponse, RpcError> {
        self.watchers.remove(&request.watcher_id)?;
        Ok(RemoveWatcherResponse {})
    }

    /// Runs an operation where it may block, with what it needs to know about its caller.
    async fn run<T: Send + 'static>(
        &self,
        context: Context,
        operation: impl FnOnce(&Caller) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, RpcError> {
        let settings = self.guest.settings().clone();
        let done = tokio::task::spawn_blocking(move || {
            let accounts = Accounts::load();
            let user = auth::caller(context.user.as_deref(), &settings, &accounts)?;
            Ok(operation(&Caller { user, accounts, settings, legacy: context.legacy })?)
        });
        done.await.map_err(|_| RpcError::new(Code::Internal, "filesystem task ended early"))?
    }
}

/// What the first protocol version knew of an event.
fn reduced_event(event: FilesystemEvent) -> FilesystemEvent {
    FilesystemEvent { entry: None, ..event }
}

/// On whose behalf an operation runs.
struct Caller {
    user: User,
    accounts: Accounts,
    settings: Settings,
    legacy: bool,
}

impl Caller {
    fn resolve(&self, path: &str) -> Result<String, Error> {
        Ok(paths::resolve(path, &self.user, self.settings.default_workdir.as_deref())?)
    }

    fn entry(&self, path: &str) -> Result<EntryInfo, Error> {
        let entry = entry_info(path, &self.accounts).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound(path.to_owned()),
            _ => Error::Io { action: "stat", path: path.to_owned(), source },
        })?;
        Ok(self.reduced(entry))
    }

    fn reduced(&self, entry: EntryInfo) -> EntryInfo {
        if self.legacy { reduced_for_legacy(entry) } else { entry }
    }
}
