//! Connections to guests, kept by run, so that none is ever used for another sandbox.
//!
//! Only connections to the agent are kept for the next request; user ports get a new one each time, since
//! nobody knows what listens there.

mod dial;
mod guest_socket;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use sandbar_model::{Route, RunId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::body::GuestBound;
use crate::tasks::Tasks;
use guest_socket::GuestSocket;

/// How long an unused connection is kept: well below the time after which servers close theirs, so that a
/// request rarely meets a connection that is being closed.
const KEPT: Duration = Duration::from_secs(20);

/// Unused connections kept for one run.
const KEPT_MAX: usize = 32;

/// How long a connection may take to become usable again after an answer's end.
const SETTLE: Duration = Duration::from_secs(1);

/// All runs that had traffic and have not ended.
#[derive(Clone)]
pub(crate) struct Upstreams {
    runs: Arc<Mutex<HashMap<RunId, Arc<Run>>>>,
    tasks: Tasks,
}

/// One run of a sandbox, as the edge sees it.
pub(crate) struct Run {
    address: Ipv4Addr,
    ended: CancellationToken,
    in_flight: AtomicUsize,
    /// Least recently used first.
    kept: Mutex<Vec<(Instant, SendRequest<GuestBound>)>>,
    tasks: Tasks,
}

/// A request in flight to a run; it is over when this is dropped.
pub(crate) struct Admission(Arc<Run>);

/// A guest's answer and the connection it comes on.
pub(crate) struct Answered {
    pub(crate) response: Response<Incoming>,
    pub(crate) connection: Connection,
}

/// A connection in use.
pub(crate) struct Connection {
    run: Arc<Run>,
    sender: SendRequest<GuestBound>,
}

/// Why a guest did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("connect to {address}:{port}")]
    Dial { address: Ipv4Addr, port: u16, source: std::io::Error },
    #[error("exchange with {address}:{port}")]
    Exchange { address: Ipv4Addr, port: u16, source: hyper::Error },
}

impl Upstreams {
    pub(crate) fn new(tasks: Tasks) -> Self {
        Self { runs: Arc::default(), tasks }
    }

    /// The run that a route leads to.
    pub(crate) fn run(&self, route: &Route) -> Arc<Run> {
        let mut runs = lock(&self.runs);
        if let Some(run) = runs.get(&route.run) {
            return run.clone();
        }
        let run = Arc::new(Run {
            address: route.address,
            ended: route.ended.clone(),
            in_flight: AtomicUsize::new(0),
            kept: Mutex::default(),
            tasks: self.tasks.clone(),
        });
        runs.insert(route.run, run.clone());
        drop(runs);
        let (all, id, ended) = (self.clone(), route.run, route.ended.clone());
        self.tasks.spawn(async move {
            ended.cancelled().await;
            lock(&all.runs).remove(&id);
        });
        run
    }

    /// Closes connections that have not been used for a while, again and again.
    pub(crate) async fn sweep(&self) {
        loop {
            tokio::time::sleep(KEPT / 2).await;
            let runs: Vec<Arc<Run>> = lock(&self.runs).values().cloned().collect();
            for run in runs {
                lock(&run.kept).retain(|(since, _)| since.elapsed() < KEPT);
            }
        }
    }
}

impl Run {
    /// Counts a request; `None` when there are `limit` already.
    pub(crate) fn admit(self: &Arc<Self>, limit: Option<usize>) -> Option<Admission> {
        let admission = Admission(self.clone());
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        limit.is_none_or(|limit| before < limit).then_some(admission)
    }

    /// Sends a request and returns the head of the answer.
    ///
    /// `reuse` allows a kept connection. One that turns out to be closed is no error: the request is sent
    /// again if no guest can have acted on it.
    pub(crate) async fn send(
        self: &Arc<Self>,
        port: u16,
        mut request: Request<GuestBound>,
        reuse: bool,
    ) -> Result<Answered, SendError> {
        let address = self.address;
        while let Some(mut sender) = reuse.then(|| self.take_kept()).flatten() {
            let again = copy_if_repeatable(&request);
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.answered(response, sender)),
                Err(mut error) => match (error.take_message(), again) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(copy)) => request = copy,
                    (None, None) => {
                        return Err(SendError::Exchange { address, port, source: error.into_error() });
                    }
                },
            }
        }
        let stream =
            dial::dial(address, port).await.map_err(|source| SendError::Dial { address, port, source })?;
        let exchange = |source| SendError::Exchange { address, port, source };
        let io = TokioIo::new(GuestSocket::new(stream));
        let (mut sender, connection) = http1::handshake(io).await.map_err(exchange)?;
        let ended = self.ended.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                result = connection.with_upgrades() => {
                    if let Err(error) = result {
                        tracing::debug!(%address, port, error = &error as &dyn std::error::Error, "connection to guest broke");
                    }
                }
            }
        });
        let response = sender.send_request(request).await.map_err(exchange)?;
        Ok(self.answered(response, sender))
    }

    fn answered(self: &Arc<Self>, response: Response<Incoming>, sender: SendRequest<GuestBound>) -> Answered {
        Answered { response, connection: Connection { run: self.clone(), sender } }
    }

    /// The connection used last, if one is usable.
    fn take_kept(&self) -> Option<SendRequest<GuestBound>> {
        let mut kept = lock(&self.kept);
        while let Some((since, sender)) = kept.pop() {
            if since.elapsed() < KEPT && sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<GuestBound>) {
        let mut kept = lock(&self.kept);
        if kept.len() < KEPT_MAX && !self.ended.is_cancelled() {
            kept.push((Instant::now(), sender));
        }
    }
}

impl Connection {
    /// Keeps the connection for the next request, once the last one is quite over.
    pub(crate) fn keep(mut self) {
        let run = self.run.clone();
        self.run.tasks.clone().spawn(async move {
            if let Ok(Ok(())) = tokio::time::timeout(SETTLE, self.sender.ready()).await {
                run.keep(self.sender);
            }
        });
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A copy of a request that may be sent twice: one without a body that changes nothing.
fn copy_if_repeatable(request: &Request<GuestBound>) -> Option<Request<GuestBound>> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(GuestBound::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes here guard is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
