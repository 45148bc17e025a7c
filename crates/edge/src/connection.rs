//! One client connection: TLS or plain, HTTP/1.1 or 2, from its first byte to its end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, IDLE, Verdict};
use crate::body::Body;
use crate::client_socket::ClientSocket;
use crate::gateway::Gateway;
use crate::tasks::Tasks;

/// For the first byte, and again for a TLS handshake.
const OPENING: Duration = Duration::from_secs(10);

/// How often a connection is looked at.
const WATCH: Duration = Duration::from_secs(5);

/// First byte of a TLS handshake record; no HTTP method begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// A request's head may have this many bytes.
const HEAD_MAX: usize = 64 * 1024;

/// Requests at once on one HTTP/2 connection. Clients that learn no number use one at a time (contract
/// client-versions.md §2.2 rule 19); below 100 is not allowed there.
const STREAMS_MAX: u32 = 250;

/// What a client may send ahead of the guest's reading, for one stream and for a connection. The latter is
/// large, since streams whose guest does not read share it with those whose guest does.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// An answer on its way.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// What all connections share.
pub(crate) struct Door {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) tasks: Tasks,
    pub(crate) stop: CancellationToken,
}

impl Door {
    /// Serves a connection until it ends.
    pub(crate) async fn serve(self: Arc<Self>, socket: ClientSocket, activity: Arc<Activity>) {
        let first = tokio::select! {
            () = self.stop.cancelled() => return,
            first = timeout(OPENING, socket.first_byte()) => first,
        };
        let Ok(Ok(Some(first))) = first else { return };
        if first != TLS_HANDSHAKE {
            return self.serve_http1(socket, activity).await;
        }
        let Some(acceptor) = &self.tls else {
            tracing::debug!("closed a TLS connection: no certificate is configured");
            return;
        };
        let stream = match timeout(OPENING, acceptor.accept(socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "TLS handshake did not succeed");
                return;
            }
            Err(_late) => return,
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.serve_http2(stream, activity).await;
        } else {
            self.serve_http1(stream, activity).await;
        }
    }

    async fn serve_http1<S>(&self, stream: S, activity: Arc<Activity>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = self.service(&activity);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // This timer also runs while the connection is idle.
            .header_read_timeout(IDLE)
            .max_header_size(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), service_fn(service))
            .with_upgrades();
        self.drive(Box::pin(connection), |connection| connection.graceful_shutdown(), &activity).await;
    }

    async fn serve_http2<S>(&self, stream: S, activity: Arc<Activity>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = self.service(&activity);
        let connection = http2::Builder::new(self.tasks.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD_MAX as u32)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(30))
            .serve_connection(TokioIo::new(stream), service_fn(service));
        self.drive(Box::pin(connection), |connection| connection.graceful_shutdown(), &activity).await;
    }

    fn service(&self, activity: &Arc<Activity>) -> impl Fn(Request<Incoming>) -> Answering + use<> {
        let (gateway, activity) = (self.gateway.clone(), activity.clone());
        move |request| {
            let (gateway, busy) = (gateway.clone(), activity.begin());
            Box::pin(async move { Ok(gateway.answer(request, busy).await) })
        }
    }

    /// Runs a connection to its end; asks it to end when it is idle for too long or the server stops.
    async fn drive<C>(&self, mut connection: Pin<Box<C>>, finish: impl Fn(Pin<&mut C>), activity: &Activity)
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut watch = interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut finishing = false;
        loop {
            tokio::select! {
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(error = &error as &dyn std::error::Error, "client connection broke");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !finishing => {
                    finishing = true;
                    finish(connection.as_mut());
                }
                _ = watch.tick(), if !finishing => match activity.verdict(Instant::now()) {
                    Verdict::Keep => {}
                    Verdict::Mute => return,
                    Verdict::Idle => {
                        finishing = true;
                        finish(connection.as_mut());
                    }
                }
            }
        }
    }
}
