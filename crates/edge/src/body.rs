//! Bodies on their way through the edge. Nothing is copied or collected; what is added is when they break.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What goes wrong with a body is told to the log only; the peer sees the stream break off.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Why a body broke off. Never a clean end: clients take that for success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the sandbox ended")]
    SandboxEnded,
    #[error("the exchange was over before the request's body was")]
    ExchangeOver,
}

/// How long to wait for a guest's `100 Continue` before the body is sent anyway. Source: RFC 9110 §10.1.1
/// demands that the wait ends; the second is common practice.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A client's body on its way to a guest.
pub(crate) struct GuestBound {
    /// Absent when there is no body.
    inner: Option<Incoming>,
    /// Ready once nobody needs the rest.
    over: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Ready once the guest wants the body.
    wanted: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl GuestBound {
    /// A body that breaks off when the exchange is over.
    pub(crate) fn new(inner: Incoming, exchange: &CancellationToken) -> Self {
        if inner.is_end_stream() {
            return Self::empty();
        }
        let over = Some(Box::pin(exchange.clone().cancelled_owned()));
        Self { inner: Some(inner), over, wanted: None }
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self { inner: None, over: None, wanted: None }
    }

    /// Holds the body back until the guest says that it wants it.
    pub(crate) fn hold_until(mut self, wanted: CancellationToken) -> Self {
        self.wanted = Some(Box::pin(async move {
            let _ = tokio::time::timeout(CONTINUE_WAIT, wanted.cancelled()).await;
        }));
        self
    }
}

impl HttpBody for GuestBound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Some(over) = &mut this.over
            && over.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(Broken::ExchangeOver.into())));
        }
        if let Some(wanted) = &mut this.wanted {
            ready!(wanted.as_mut().poll(cx));
            this.wanted = None;
        }
        Pin::new(inner).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// A guest's body on its way to the client. `G` is told whether the body reached its end.
pub(crate) struct ClientBound<G: FnOnce(bool)> {
    inner: Incoming,
    run: CancellationToken,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    finished: bool,
    at_end: Option<G>,
}

impl<G: FnOnce(bool)> ClientBound<G> {
    /// A body that breaks off when the run of the sandbox ends; `at_end` is called when it is over.
    pub(crate) fn new(inner: Incoming, run: CancellationToken, at_end: G) -> Self {
        let ended = Box::pin(run.clone().cancelled_owned());
        Self { inner, run, ended, finished: false, at_end: Some(at_end) }
    }
}

impl<G: FnOnce(bool) + Unpin> HttpBody for ClientBound<G> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            if this.ended.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Err(Broken::SandboxEnded.into())));
            }
            return match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                // HTTP/2 clients count empty frames as an attack (contract client-versions.md §1.14).
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => continue,
                Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
                // What a guest's end closes looks like an end as well.
                None if this.run.is_cancelled() => Poll::Ready(Some(Err(Broken::SandboxEnded.into()))),
                None => {
                    this.finished = true;
                    Poll::Ready(None)
                }
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<G: FnOnce(bool)> Drop for ClientBound<G> {
    fn drop(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            at_end(self.finished || self.inner.is_end_stream());
        }
    }
}

/// A body that keeps something until it is over.
pub(crate) struct Keeping<B, K> {
    pub(crate) body: B,
    pub(crate) kept: K,
}

impl<B: HttpBody + Unpin, K: Unpin> HttpBody for Keeping<B, K> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B, K: fmt::Debug> fmt::Debug for Keeping<B, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeping").field("kept", &self.kept).finish_non_exhaustive()
    }
}
