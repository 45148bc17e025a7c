//! Answers: the one body type of all routes, and the shapes that several of them share.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use sandbar_wire::envd::control::HttpError;
use serde::Serialize;

/// Body of every answer. An error in it breaks the connection: the client must not take what came for the whole.
pub(crate) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// What a route answers.
pub(crate) type Answer = Response<Body>;

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn stream(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// A status without a body.
pub(crate) fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(empty());
    *answer.status_mut() = status;
    answer
}

/// A status with a line of text.
pub(crate) fn text(status: StatusCode, message: impl Into<String>) -> Answer {
    let mut line = message.into();
    line.push('\n');
    let mut answer = Response::new(full(line));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A JSON document with status 200.
pub(crate) fn json(document: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(document).expect("answers have string keys and no failing fields");
    let mut answer = Response::new(full(bytes));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Forbids caches to keep the answer.
pub(crate) fn uncached(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A refusal in the JSON shape of the routes that are not RPC.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {message}")]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let body = HttpError { code: refusal.status.as_u16(), message: refusal.message };
        let mut line = serde_json::to_vec(&body).expect("a number and a string always serialise");
        line.push(b'\n');
        let mut answer = Response::new(full(line));
        *answer.status_mut() = refusal.status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }
}
