//! `POST /files`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, chown, fchown};
use std::path::Path;
use std::sync::Arc;

use crate::question::Question;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use sandbar_wire::envd::files::{FileKind, Operation, Signed, WrittenFile};
use tokio::task::JoinHandle;

use super::blocks::Blocks;
use super::multipart::{Event, MultipartError, Parser};
use super::query::{Query, user_of};
use super::volume::is_virtual;
use crate::accounts::{Accounts, User};
use crate::auth;
use crate::body::{self, Answer, Refusal};
use crate::guest::{Guest, Settings};
use crate::metadata::{self, Metadata};
use crate::paths::{self, EnsureDirError};

/// Stores the file or files in the body.
pub(crate) async fn upload(guest: &Arc<Guest>, request: Request<Question>) -> Answer {
    let query = match Query::parse(request.uri().query()) {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    match store(guest, &query, request).await {
        Ok(written) => body::json(&written),
        Err(refusal) => refusal.into(),
    }
}

async fn store(
    guest: &Arc<Guest>,
    query: &Query,
    request: Request<Question>,
) -> Result<Vec<WrittenFile>, Refusal> {
    let settings = guest.settings().clone();
    let signed = Signed {
        path: query.path.as_deref().unwrap_or_default(),
        operation: Operation::Write,
        username: query.username.as_deref().unwrap_or_default(),
        expiration: query.signature_expiration,
    };
    let now = jiff::Timestamp::now().as_second();
    let (head, incoming) = request.into_parts();
    auth::may_transfer(&settings, &head.headers, &signed, query.signature.as_deref(), now)?;
    let user = user_of(query, &settings, &Accounts::load())?;
    let blocks = Blocks::new(incoming, is_gzipped(&head.headers)?);
    let content_type =
        head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let metadata =
        metadata::of_headers(&head.headers).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let uploader = Uploader { user, settings, metadata: Arc::new(metadata) };
    if media_type == "application/octet-stream" {
        let asked = query.path.as_deref().filter(|path| !path.is_empty());
        let asked = asked
            .ok_or_else(|| Refusal::bad_request("path query parameter is required for raw body upload"))?;
        uploader.raw(asked, blocks).await
    } else if media_type.starts_with("multipart/") {
        uploader.multipart(query.path.as_deref(), content_type, blocks).await
    } else {
        Err(Refusal::bad_request(format!("unsupported content type: {content_type}")))
    }
}

fn is_gzipped(headers: &HeaderMap) -> Result<bool, Refusal> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
    match encoding.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "identity") => Ok(false),
        Some("gzip") => Ok(true),
        Some(other) => Err(Refusal::bad_request(format!("unsupported content encoding: {other}"))),
    }
}

/// On whose behalf files are stored.
struct Uploader {
    user: User,
    settings: Settings,
    /// For every file of the request.
    metadata: Arc<Metadata>,
}

impl Uploader {
    /// The whole body is one file.
    async fn raw(&self, asked: &str, mut blocks: Blocks) -> Result<Vec<WrittenFile>, Refusal> {
        let path = self.resolve(asked)?;
        let mut target = self.open(path.clone()).await?;
        while let Some(block) = blocks.next().await? {
            target.write(block).await?;
        }
        Ok(vec![self.finish(path, target).await?])
    }

    /// Each part named `file` is a file: at `asked` if given, else where its file name says.
    async fn multipart(
        &self,
        asked: Option<&str>,
        content_type: &str,
        mut blocks: Blocks,
    ) -> Result<Vec<WrittenFile>, Refusal> {
        let refused =
            |error: MultipartError| Refusal::bad_request(format!("error parsing multipart form: {error}"));
        let mut parser = Parser::new(content_type).map_err(refused)?;
        let mut done = Vec::<WrittenFile>::new();
        let mut current: Option<(String, Target)> = None;
        loop {
            match parser.next_event().map_err(refused)? {
                Event::Hungry => match blocks.next().await? {
                    Some(block) => parser.push(&block),
                    None => return Err(refused(MultipartError::Incomplete)),
                },
                Event::Part(part) if part.name.as_deref() == Some("file") => {
                    let named = asked.filter(|path| !path.is_empty()).or(part.filename.as_deref());
                    let named = named.filter(|path| !path.is_empty()).ok_or_else(|| {
                        Refusal::bad_request("no path: neither a query parameter nor a file name")
                    })?;
                    let path = self.resolve(named)?;
                    if done.iter().any(|file| file.path == path) {
                        let message = format!(
                            "you cannot upload multiple files to the same path '{path}' in one request"
                        );
                        return Err(Refusal::bad_request(message));
                    }
                    let target = self.open(path.clone()).await?;
                    current = Some((path, target));
                }
                Event::Part(_) => current = None,
                Event::Data(data) => {
                    if let Some((_, target)) = &mut current {
                        target.write(data).await?;
                    }
                }
                Event::PartEnd => {
                    if let Some((path, target)) = current.take() {
                        done.push(self.finish(path, target).await?);
                    }
                }
                Event::End => {
                    // What follows means nothing, but must be read before the connection can be used again.
                    while blocks.next().await?.is_some() {}
                    return Ok(done);
                }
            }
        }
    }

    /// Completes a file: the last of its content, then its metadata, which is read back for the answer.
    async fn finish(&self, path: String, target: Target) -> Result<WrittenFile, Refusal> {
        let file = target.close().await?;
        let metadata = self.metadata.clone();
        let finished = tokio::task::spawn_blocking(move || {
            match metadata::replace(&file, &metadata) {
                Err(_) if is_virtual(&file) => {}
                stored => stored.map_err(|error| {
                    refuse_io(&error, 0, &format!("error writing metadata of '{path}': {error}"))
                })?,
            }
            let metadata = metadata::load(Path::new(&path));
            let name = paths::base_name(&path).to_owned();
            Ok(WrittenFile { path, name, r#type: FileKind::File, metadata })
        });
        finished.await.map_err(|_| Refusal::internal("upload task ended early"))?
    }

    fn resolve(&self, path: &str) -> Result<String, Refusal> {
        paths::resolve(path, &self.user, self.settings.default_workdir.as_deref())
            .map_err(|error| Refusal::bad_request(error.to_string()))
    }

    async fn open(&self, path: String) -> Result<Target, Refusal> {
        let user = self.user.clone();
        let opened = tokio::task::spawn_blocking(move || open_owned(&path, &user));
        let file = opened.await.map_err(|_| Refusal::internal("upload task ended early"))??;
        Ok(Target { file: Arc::new(file), written: 0, writing: None })
    }
}

/// Opens a file for new content and gives it to the user, before anything is written to it.
fn open_owned(path: &str, user: &User) -> Result<File, Refusal> {
    let failed =
        |action: &str, error: &io::Error| refuse_io(error, 0, &format!("error {action} '{path}': {error}"));
    paths::ensure_dirs(Path::new(paths::parent(path)), user).map_err(|error| refuse_dirs(&error))?;
    let exists = match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(Refusal::bad_request(format!("path is a directory: {path}")));
        }
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(failed("looking at", &error)),
    };
    if exists {
        chown(path, Some(user.uid), Some(user.gid)).map_err(|error| failed("changing owner of", &error))?;
    }
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o666).open(path);
    let file = opened.map_err(|error| failed("opening", &error))?;
    if !exists {
        fchown(&file, Some(user.uid), Some(user.gid)).map_err(|error| failed("changing owner of", &error))?;
    }
    Ok(file)
}

/// Directories that cannot be made: what is in the way is the caller's mistake, the rest is not.
pub(super) fn refuse_dirs(error: &EnsureDirError) -> Refusal {
    match error.io() {
        Some(source) => refuse_io(source, 0, &format!("error ensuring directories: {error}: {source}")),
        None => Refusal::bad_request(error.to_string()),
    }
}

/// A full disk is its own status: clients tell people about it.
pub(super) fn refuse_io(error: &io::Error, attempted_bytes: u64, message: &str) -> Refusal {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            let message =
                format!("attempted to write {attempted_bytes} bytes: not enough disk space available");
            Refusal::new(StatusCode::INSUFFICIENT_STORAGE, message)
        }
        _ => Refusal::internal(message),
    }
}

/// A file being written, one block behind what arrives.
struct Target {
    file: Arc<File>,
    written: u64,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl Target {
    async fn write(&mut self, block: Bytes) -> Result<(), Refusal> {
        self.settle().await?;
        self.written += block.len() as u64;
        let file = self.file.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || (&*file).write_all(&block)));
        Ok(())
    }

    async fn close(mut self) -> Result<Arc<File>, Refusal> {
        self.settle().await?;
        Ok(self.file)
    }

    /// Waits for the block that is being written.
    async fn settle(&mut self) -> Result<(), Refusal> {
        let Some(writing) = self.writing.take() else {
            return Ok(());
        };
        let done = writing.await.unwrap_or_else(|_| Err(io::Error::other("write task ended early")));
        done.map_err(|error| refuse_io(&error, self.written, &format!("error writing file: {error}")))
    }
}
