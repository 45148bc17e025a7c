//! `GET /files`.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::SystemTime;

use crate::question::Question;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use sandbar_wire::envd::files::{Operation, Signed};
use tokio::task::JoinHandle;

use super::accept::{self, Encoding};
use super::condition::{self, Decision};
use super::gzip::Encoder;
use super::query::Query;
use super::volume::is_virtual;
use super::{content_type, disposition};
use crate::accounts::Accounts;
use crate::auth;
use crate::body::{self, Answer, Body, Refusal};
use crate::guest::Guest;
use crate::paths;

/// Bytes read at once. One block is read ahead of the client.
const BLOCK_BYTES: usize = 256 * 1024;

/// Sends a file.
pub(crate) async fn download(guest: &Arc<Guest>, request: Request<Question>) -> Answer {
    let query = match Query::parse(request.uri().query()) {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    let headers = request.headers().clone();
    let guest = guest.clone();
    let answered = tokio::task::spawn_blocking(move || answer(&guest, &query, &headers)).await;
    match answered {
        Ok(Ok(answer)) => answer,
        Ok(Err(refusal)) => refusal.into(),
        Err(_) => Refusal::internal("download task ended early").into(),
    }
}

fn answer(guest: &Guest, query: &Query, headers: &HeaderMap) -> Result<Answer, Refusal> {
    let settings = guest.settings().clone();
    let asked = query.path.as_deref().unwrap_or_default();
    let signed = Signed {
        path: asked,
        operation: Operation::Read,
        username: query.username.as_deref().unwrap_or_default(),
        expiration: query.signature_expiration,
    };
    let now = jiff::Timestamp::now().as_second();
    auth::may_transfer(&settings, headers, &signed, query.signature.as_deref(), now)?;
    let user = super::query::user_of(query, &settings, &Accounts::load())?;
    let path = paths::resolve(asked, &user, settings.default_workdir.as_deref())
        .map_err(|error| Refusal::bad_request(error.to_string()))?;

    let opened = Opened::open(&path)?;
    let accept_encoding =
        headers.get(header::ACCEPT_ENCODING).map(|value| value.to_str().unwrap_or("identity"));
    let encoding = accept::choose(accept_encoding, condition::is_conditional(headers)).ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            "no acceptable encoding found: supported are gzip and identity",
        )
    })?;
    let mut answer = match encoding {
        Encoding::Gzip => gzipped(opened, &path),
        Encoding::Identity => identity(opened, &path, headers)?,
    };
    let out = answer.headers_mut();
    out.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let named = HeaderValue::try_from(disposition::inline(paths::base_name(&path)));
    out.extend(named.ok().map(|value| (header::CONTENT_DISPOSITION, value)));
    Ok(answer)
}

/// A file to send.
struct Opened {
    file: File,
    found: Metadata,
    /// Absent when the file system does not know: such files are sent until they end.
    size: Option<u64>,
}

impl Opened {
    fn open(path: &str) -> Result<Self, Refusal> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                Refusal::new(StatusCode::NOT_FOUND, format!("path '{path}' does not exist"))
            }
            _ => Refusal::internal(format!("error opening file '{path}': {error}")),
        };
        // Looked at before it is opened: opening a pipe would wait for a writer.
        let found = std::fs::metadata(path).map_err(failed)?;
        if found.is_dir() {
            return Err(Refusal::bad_request(format!("path '{path}' is a directory")));
        }
        if !found.is_file() {
            return Err(Refusal::bad_request(format!("path '{path}' is not a regular file")));
        }
        let file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        let size = (!is_virtual(&file)).then_some(found.len());
        Ok(Self { file, found, size })
    }

    fn modified(&self) -> SystemTime {
        self.found.modified().unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

fn gzipped(opened: Opened, path: &str) -> Answer {
    let media_type = content_type::of_name(path).unwrap_or(content_type::UNKNOWN);
    let reader = Reader { file: opened.file, left: None, encoder: Some(Encoder::new()), done: false };
    let mut answer = Response::new(reader.into_body());
    let out = answer.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer
}

fn identity(mut opened: Opened, path: &str, headers: &HeaderMap) -> Result<Answer, Refusal> {
    let failed = |error: io::Error| Refusal::internal(format!("error reading file '{path}': {error}"));
    let mut first = Vec::new();
    let by_name = content_type::of_name(path);
    if by_name.is_none() {
        let sniffed = (&mut opened.file).take(content_type::SNIFF_BYTES as u64).read_to_end(&mut first);
        sniffed.map_err(failed)?;
    }
    let media_type = by_name.unwrap_or_else(|| content_type::of_bytes(&first));
    let Some(size) = opened.size else {
        opened.file.rewind().map_err(failed)?;
        let reader = Reader { file: opened.file, left: None, encoder: None, done: false };
        let mut answer = Response::new(reader.into_body());
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        return Ok(answer);
    };

    let modified = opened.modified();
    let (status, start, length) = match condition::decide(headers, size, modified) {
        Decision::Whole => (StatusCode::OK, 0, size),
        Decision::Part { start, length } => (StatusCode::PARTIAL_CONTENT, start, length),
        Decision::NotModified => (StatusCode::NOT_MODIFIED, 0, 0),
        Decision::PreconditionFailed => return Ok(body::status(StatusCode::PRECONDITION_FAILED)),
        Decision::RangeNotSatisfiable => {
            let mut answer =
                body::text(StatusCode::RANGE_NOT_SATISFIABLE, "invalid range: failed to overlap");
            answer.headers_mut().insert(header::CONTENT_RANGE, number(format!("bytes */{size}")));
            return Ok(answer);
        }
    };
    let body = if length == 0 {
        body::empty()
    } else {
        opened.file.seek(SeekFrom::Start(start)).map_err(failed)?;
        Reader { file: opened.file, left: Some(length), encoder: None, done: false }.into_body()
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let out = answer.headers_mut();
    out.insert(header::LAST_MODIFIED, number(httpdate::fmt_http_date(modified)));
    if status != StatusCode::NOT_MODIFIED {
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        out.insert(header::CONTENT_LENGTH, number(length.to_string()));
    }
    if status == StatusCode::PARTIAL_CONTENT {
        out.insert(header::CONTENT_RANGE, number(format!("bytes {start}-{}/{size}", start + length - 1)));
    }
    Ok(answer)
}

fn number(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("numbers and dates are valid header values")
}

/// Reads a file in blocks, encoded as asked.
struct Reader {
    file: File,
    /// Bytes still to send, where that was promised.
    left: Option<u64>,
    encoder: Option<Encoder>,
    done: bool,
}

impl Reader {
    fn into_body(self) -> Body {
        let first = tokio::task::spawn_blocking(move || self.next());
        body::stream(stream::unfold(Some(first), |task: Option<JoinHandle<_>>| async move {
            let (block, rest): (io::Result<Bytes>, Option<Reader>) = match task?.await {
                Ok(Some((block, rest))) => (block, rest),
                Ok(None) => return None,
                Err(_) => (Err(io::Error::other("read task ended early")), None),
            };
            Some((block, rest.map(|reader| tokio::task::spawn_blocking(move || reader.next()))))
        }))
    }

    /// The next block and the reader for the one after it, `None` at the end.
    fn next(mut self) -> Option<(io::Result<Bytes>, Option<Self>)> {
        if self.done {
            return None;
        }
        let wanted = self
            .left
            .map_or(BLOCK_BYTES, |left| BLOCK_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX)));
        let mut block = Vec::with_capacity(wanted);
        let read = (&mut self.file).take(wanted as u64).read_to_end(&mut block);
        if let Err(error) = read {
            return Some((Err(error), None));
        }
        match &mut self.left {
            Some(left) => {
                if block.len() < wanted {
                    return Some((Err(io::Error::other("file became shorter while it was sent")), None));
                }
                *left -= block.len() as u64;
                self.done = *left == 0;
            }
            None => self.done = block.is_empty(),
        }
        let bytes = match self.encoder.take() {
            None if block.is_empty() => return None,
            None => block,
            Some(encoder) if self.done => encoder.finish(),
            Some(mut encoder) => {
                let encoded = encoder.block(&block);
                self.encoder = Some(encoder);
                encoded
            }
        };
        Some((Ok(bytes.into()), Some(self)))
    }
}
