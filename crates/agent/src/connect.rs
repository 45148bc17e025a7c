//! The Connect protocol over HTTP: from a request to a message, from messages to an answer.
//!
//! Three shapes, one function each: [`unary`], [`server_stream`], [`client_stream`]. A handler gets a [`Context`] and
//! a message and gives back messages or an [`RpcError`]; deadlines, framing, compression of requests and the two
//! ways of failing are decided here.
//!
//! Written for this agent instead of using the `connectrpc` crate: that one takes an unreadable `Connect-Timeout-Ms`
//! for none (clients send `2500.0`, and must be refused for worse), needs `protoc` on every build machine, and answers
//! with compressed envelopes that browsers' clients refuse. Answers here are never compressed.

mod call;
mod stream;

use std::future::Future;

use crate::question::Question;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use sandbar_wire::envd::{Code, Codec, Message, RpcError};

use crate::body::{self, Answer};
pub(crate) use call::{BasicUser, Context};
pub(crate) use stream::{Inbound, Messages, client_stream, fail_stream, server_stream};

/// Most bytes of one message, decompressed. Input and paths are small; file contents travel over `/files`.
const MESSAGE_BYTES_MAX: u32 = 64 << 20;

/// Tells old clients that entries were reduced for them.
const LEGACY_HEADER: HeaderName = HeaderName::from_static("x-e2b-legacy-sdk");

/// Answers a call of one message by one message.
pub(crate) async fn unary<Q, A, F>(
    request: Request<Question>,
    handler: impl FnOnce(Context, Q) -> F,
) -> Answer
where
    Q: Message,
    A: Message,
    F: Future<Output = Result<A, RpcError>>,
{
    let (head, incoming) = request.into_parts();
    if let Some(refused) = refuse_method(&head.method) {
        return refused;
    }
    let Some(codec) = call::content_type(&head.headers).and_then(Codec::of_unary) else {
        return unsupported("application/json, application/proto");
    };
    let legacy = call::is_legacy(&head.headers);
    let outcome = async {
        let context = Context::of(&head)?;
        let encoding = call::Encoding::of(&head.headers, header::CONTENT_ENCODING)?;
        let deadline = context.deadline;
        let answer = async {
            let bytes = call::read_unary(incoming, encoding).await?;
            handler(context, call::decode(codec, &bytes)?).await
        };
        match deadline {
            Some(deadline) => {
                tokio::time::timeout_at(deadline, answer).await.unwrap_or_else(|_| Err(deadline_exceeded()))
            }
            None => answer.await,
        }
    };
    match outcome.await {
        Ok(message) => {
            let mut answer = Response::new(body::full(codec.encode(&message)));
            answer
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(codec.unary_content_type()));
            mark_legacy(legacy, &mut answer);
            answer
        }
        Err(error) => fail_unary(&error),
    }
}

/// A failed unary call: the status of its code, the error as JSON in both codecs.
pub(crate) fn fail_unary(error: &RpcError) -> Answer {
    let mut answer = body::json(error);
    *answer.status_mut() =
        StatusCode::from_u16(error.code.http_status()).expect("every code has a valid status");
    answer
}

fn refuse_method(method: &Method) -> Option<Answer> {
    if method == Method::POST {
        return None;
    }
    let mut answer = body::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    Some(answer)
}

fn unsupported(accepted: &'static str) -> Answer {
    let mut answer = body::status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    answer.headers_mut().insert(HeaderName::from_static("accept-post"), HeaderValue::from_static(accepted));
    answer
}

fn mark_legacy(legacy: bool, answer: &mut Answer) {
    if legacy {
        answer.headers_mut().insert(LEGACY_HEADER, HeaderValue::from_static("true"));
    }
}

fn deadline_exceeded() -> RpcError {
    RpcError::new(Code::DeadlineExceeded, "context deadline exceeded")
}
