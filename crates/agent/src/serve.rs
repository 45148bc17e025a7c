//! The listener: HTTP/1.1, and HTTP/2 for those who start with it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::question::Question;
use crate::route::Routes;

/// An idle connection is kept for so long: longer than any proxy in front keeps it. Source: e2b-dev/infra
/// packages/shared/pkg/proxy.
const IDLE_MAX: Duration = Duration::from_secs(640);

/// Pause after an error of `accept`, which is nearly always a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until told to stop.
pub(crate) async fn serve(listener: TcpListener, routes: Arc<Routes>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
    builder.http2().timer(TokioTimer::new());
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        drop(stream.set_nodelay(true)); // slower at worst
        let (builder, routes) = (builder.clone(), routes.clone());
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let routes = routes.clone();
                async move { Ok::<_, Infallible>(routes.answer(request.map(Question::new)).await) }
            });
            // Clients hang up as they like, and what was wrong with a request they were told.
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::trace!(error, "connection ended");
            }
        });
    }
}
