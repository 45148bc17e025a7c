//! Streaming calls: messages in envelopes, the outcome in the last one, status 200 whatever happens.

use std::future::Future;
use std::pin::Pin;

use crate::question::Question;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use sandbar_wire::envd::envelope::{COMPRESSED, Decoder, END_OF_STREAM, frame};
use sandbar_wire::envd::{Code, Codec, EndOfStream, Message, RpcError};
use tokio::time::Instant;

use super::call::{self, Encoding};
use super::{Context, MESSAGE_BYTES_MAX, deadline_exceeded, mark_legacy, refuse_method, unsupported};
use crate::body::{self, Answer};

const CONTENT_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");

/// What a handler of a server stream gives back. The first error ends it.
pub(crate) type Messages<A> = Pin<Box<dyn Stream<Item = Result<A, RpcError>> + Send>>;

/// Answers a call of one message by a stream of them.
///
/// Each message leaves as soon as the handler gives it. At the deadline the stream ends, whatever the handler does.
/// When the caller goes away the stream is dropped.
pub(crate) async fn server_stream<Q, A, F>(
    request: Request<Question>,
    handler: impl FnOnce(Context, Q) -> F,
) -> Answer
where
    Q: Message,
    A: Message + 'static,
    F: Future<Output = Result<Messages<A>, RpcError>>,
{
    let (head, incoming) = request.into_parts();
    let codec = match open(&head) {
        Ok(codec) => codec,
        Err(refused) => return *refused,
    };
    let legacy = call::is_legacy(&head.headers);
    let mut deadline = None;
    let started = async {
        let context = Context::of(&head)?;
        deadline = context.deadline;
        let mut inbound = Inbound::<Q>::new(incoming, codec, &head)?;
        let message = inbound.next().await?.ok_or_else(|| {
            RpcError::new(Code::InvalidArgument, "protocol error: a server stream needs one request message")
        })?;
        handler(context, message).await
    };
    let messages = match started.await {
        Ok(messages) => messages,
        Err(error) => Box::pin(futures::stream::once(async { Err(error) })),
    };
    let mut answer = Response::new(body::stream(envelopes(codec, messages, deadline)));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(codec.stream_content_type()));
    mark_legacy(legacy, &mut answer);
    answer
}

/// Answers a stream of messages by one message.
///
/// The handler sees each message as it arrives, and may fail before the last.
pub(crate) async fn client_stream<Q, A, F>(
    request: Request<Question>,
    handler: impl FnOnce(Inbound<Q>) -> F,
) -> Answer
where
    Q: Message,
    A: Message + 'static,
    F: Future<Output = Result<A, RpcError>>,
{
    let (head, incoming) = request.into_parts();
    let codec = match open(&head) {
        Ok(codec) => codec,
        Err(refused) => return *refused,
    };
    let outcome = async {
        let context = Context::of(&head)?;
        let handled = handler(Inbound::new(incoming, codec, &head)?);
        match context.deadline {
            Some(deadline) => {
                tokio::time::timeout_at(deadline, handled).await.unwrap_or_else(|_| Err(deadline_exceeded()))
            }
            None => handled.await,
        }
    };
    let mut bytes = Vec::new();
    let end = match outcome.await {
        Ok(message) => {
            bytes.extend(frame(0, &codec.encode(&message)));
            EndOfStream::default()
        }
        Err(error) => EndOfStream { error: Some(error) },
    };
    bytes.extend(end_frame(&end));
    let mut answer = Response::new(body::full(bytes));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(codec.stream_content_type()));
    answer
}

/// The answer to a streaming call that failed before its handler, if the content type lets it be one.
pub(crate) fn fail_stream(head: &Parts, error: RpcError) -> Option<Answer> {
    let codec = call::content_type(&head.headers).and_then(Codec::of_stream)?;
    let mut answer = Response::new(body::full(end_frame(&EndOfStream { error: Some(error) })));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(codec.stream_content_type()));
    Some(answer)
}

fn open(head: &Parts) -> Result<Codec, Box<Answer>> {
    if let Some(refused) = refuse_method(&head.method) {
        return Err(Box::new(refused));
    }
    call::content_type(&head.headers)
        .and_then(Codec::of_stream)
        .ok_or_else(|| Box::new(unsupported("application/connect+json, application/connect+proto")))
}

/// The bytes of the answer: each message framed, then the end.
fn envelopes<A: Message + 'static>(
    codec: Codec,
    messages: Messages<A>,
    deadline: Option<Instant>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    futures::stream::unfold(Some(messages), move |messages| async move {
        let mut messages = messages?;
        let next = match deadline {
            None => messages.next().await,
            // The deadline comes first: at that moment a process is killed as well, and its end must not win.
            Some(deadline) => tokio::select! {
                biased;
                () = tokio::time::sleep_until(deadline) => Some(Err(deadline_exceeded())),
                next = messages.next() => next,
            },
        };
        let (bytes, rest) = match next {
            Some(Ok(message)) => (frame(0, &codec.encode(&message)), Some(messages)),
            Some(Err(error)) => (end_frame(&EndOfStream { error: Some(error) }), None),
            None => (end_frame(&EndOfStream::default()), None),
        };
        Some((Ok(bytes.into()), rest))
    })
}

fn end_frame(end: &EndOfStream) -> Vec<u8> {
    frame(END_OF_STREAM, &serde_json::to_vec(end).expect("an outcome always serialises"))
}

/// Messages of a request, as they arrive.
pub(crate) struct Inbound<Q> {
    incoming: Question,
    decoder: Decoder,
    codec: Codec,
    encoding: Encoding,
    message: std::marker::PhantomData<fn() -> Q>,
}

impl<Q: Message> Inbound<Q> {
    fn new(incoming: Question, codec: Codec, head: &Parts) -> Result<Self, RpcError> {
        let encoding = Encoding::of(&head.headers, CONTENT_ENCODING)?;
        let decoder = Decoder::new(MESSAGE_BYTES_MAX);
        Ok(Self { incoming, decoder, codec, encoding, message: std::marker::PhantomData })
    }

    /// The next message, `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Q>, RpcError> {
        loop {
            let envelope = self.decoder.next_envelope();
            let envelope =
                envelope.map_err(|error| RpcError::new(Code::ResourceExhausted, error.to_string()))?;
            if let Some(envelope) = envelope {
                let payload = match (envelope.flags & COMPRESSED != 0, self.encoding) {
                    (false, _) => envelope.payload,
                    (true, Encoding::Gzip) => call::gunzip(&envelope.payload)?,
                    (true, Encoding::Identity) => {
                        let message = "protocol error: sent compressed message without compression support";
                        return Err(RpcError::new(Code::Internal, message));
                    }
                };
                return call::decode(self.codec, &payload).map(Some);
            }
            match self.incoming.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.decoder.push(&data);
                    }
                }
                Some(Err(_)) => return Err(RpcError::new(Code::Canceled, "read request body")),
                None => {
                    let whole = self.decoder.finish();
                    whole.map_err(|error| RpcError::new(Code::InvalidArgument, error.to_string()))?;
                    return Ok(None);
                }
            }
        }
    }
}
