//! The body of a request.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// Of a body that nobody wants any more, so much is still read.
const UNWANTED_MAX: usize = 1024 * 1024;

/// For so long it may take to come.
const UNWANTED_PATIENCE: Duration = Duration::from_secs(30);

/// The body of a request, which is read to its end even when its reader stops before.
///
/// Many answers begin, and some end, before the question is over: clients send the last chunk of a stream's only
/// message late. A connection that is closed with unread bytes is reset, and a reset takes back what was sent.
pub(crate) struct Question(Option<Incoming>);

impl Question {
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self(Some(incoming))
    }
}

impl Body for Question {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(incoming) => Pin::new(incoming).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let Some(incoming) = self.0.take().filter(|incoming| !incoming.is_end_stream()) else { return };
        // Owned by nobody, but bounded in bytes and time, and it ends with its connection.
        tokio::spawn(tokio::time::timeout(UNWANTED_PATIENCE, read_to_end(incoming)));
    }
}

async fn read_to_end(mut incoming: Incoming) {
    let mut seen = 0;
    while seen < UNWANTED_MAX
        && let Some(Ok(frame)) = incoming.frame().await
    {
        seen += frame.data_ref().map_or(0, Bytes::len);
    }
}
