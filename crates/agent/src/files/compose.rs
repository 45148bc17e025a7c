//! `POST /files/compose`: several files become one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::path::Path;
use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use sandbar_wire::envd::files::{ComposeRequest, FileKind, WrittenFile};

use super::query::find_user;
use super::upload::{refuse_dirs, refuse_io};
use crate::accounts::{Accounts, User};
use crate::body::{self, Answer, Refusal};
use crate::guest::{Guest, Settings};
use crate::question::Question;
use crate::{metadata, paths};

/// Most bytes of a request: it only lists paths.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// Joins files in the order given, puts the result in place at once, and removes the sources.
///
/// A failure leaves the destination and the sources as they were.
pub(crate) async fn compose(guest: &Arc<Guest>, request: Request<Question>) -> Answer {
    let body = match Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Refusal::bad_request("error reading request body").into(),
    };
    let settings = guest.settings().clone();
    let composed = tokio::task::spawn_blocking(move || {
        let request: ComposeRequest = serde_json::from_slice(&body)
            .map_err(|error| Refusal::bad_request(format!("invalid request body: {error}")))?;
        run(&request, &settings)
    });
    match composed.await {
        Ok(Ok(written)) => body::json(&written),
        Ok(Err(refusal)) => refusal.into(),
        Err(_) => Refusal::internal("compose task ended early").into(),
    }
}

fn run(request: &ComposeRequest, settings: &Settings) -> Result<WrittenFile, Refusal> {
    if request.source_paths.is_empty() {
        return Err(Refusal::bad_request("source_paths must not be empty"));
    }
    if request.destination.is_empty() {
        return Err(Refusal::bad_request("destination must not be empty"));
    }
    let user = find_user(request.username.as_deref(), settings, &Accounts::load())?;
    let resolve = |path: &String| {
        paths::resolve(path, &user, settings.default_workdir.as_deref())
            .map_err(|error| Refusal::bad_request(error.to_string()))
    };
    let destination = resolve(&request.destination)?;
    let sources = request.source_paths.iter().map(resolve).collect::<Result<Vec<_>, _>>()?;
    let opened =
        sources.iter().map(|source| open_source(source, &destination)).collect::<Result<Vec<_>, _>>()?;

    paths::ensure_dirs(Path::new(paths::parent(&destination)), &user).map_err(|error| refuse_dirs(&error))?;
    let unique: u128 = rand::random();
    let temporary = format!("{}.e2b-compose.{unique:032x}.tmp", destination.trim_end_matches('/'));
    let joined = join(opened, &temporary, &user).and_then(|()| fs::rename(&temporary, &destination));
    if let Err(error) = joined {
        drop(fs::remove_file(&temporary)); // may not even have been made
        return Err(refuse_io(&error, 0, &format!("error composing '{destination}': {error}")));
    }
    for source in &sources {
        if let Err(error) = fs::remove_file(source) {
            tracing::debug!(%error, "source of a composed file was left");
        }
    }
    let name = paths::base_name(&destination).to_owned();
    let metadata = metadata::load(Path::new(&destination));
    Ok(WrittenFile { path: destination, name, r#type: FileKind::File, metadata })
}

fn open_source(source: &str, destination: &str) -> Result<File, Refusal> {
    if paths::clean(source) == paths::clean(destination) {
        return Err(Refusal::bad_request(format!("source '{source}' is the destination")));
    }
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            Refusal::new(StatusCode::NOT_FOUND, format!("path '{source}' does not exist"))
        }
        _ => Refusal::internal(format!("error opening '{source}': {error}")),
    };
    if !fs::metadata(source).map_err(failed)?.is_file() {
        return Err(Refusal::bad_request(format!("source '{source}' is not a regular file")));
    }
    File::open(source).map_err(failed)
}

/// The kernel copies, where the file system lets it.
fn join(sources: Vec<File>, temporary: &str, user: &User) -> io::Result<()> {
    let mut joined = OpenOptions::new().write(true).create_new(true).mode(0o644).open(temporary)?;
    fchown(&joined, Some(user.uid), Some(user.gid))?;
    for mut source in sources {
        io::copy(&mut source, &mut joined)?;
    }
    Ok(())
}
