//! The node as a client of a guest's agent.
//!
//! One request on one connection: the node talks to an agent a few times in a sandbox's life, and a pool
//! would only keep connections to addresses that somebody else gets next.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use sandbar_wire::envd::control::{CONTROL_HEADER, InitRequest};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// More of an error answer than this is cut off.
const ANSWER_MAX_BYTES: usize = 16 * 1024;

/// One attempt may take this long. A guest that has just been booted on a busy host answers late, and an
/// attempt that is given up is repeated from the start.
const ATTEMPT: Duration = Duration::from_secs(5);

/// The pause after an attempt nobody answered: short, since every millisecond is part of each create.
const PAUSE: Duration = Duration::from_millis(2);

/// Why the agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody answered in time.
    #[error("agent at {address} did not answer within {waited:?}")]
    Silent {
        /// Where it should listen.
        address: SocketAddr,
        /// How long was waited.
        waited: Duration,
        /// What the last attempt ended with.
        source: AttemptError,
    },
    /// It answered, and refused.
    #[error("agent refused with status {status}: {body}")]
    Refused {
        /// The status it gave.
        status: StatusCode,
        /// What it said, cut to a bounded length.
        body: String,
    },
}

/// Why one attempt to talk to an agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// No connection.
    #[error("connect")]
    Connect(#[source] std::io::Error),
    /// The connection broke.
    #[error("exchange")]
    Exchange(#[source] hyper::Error),
    /// The body of the answer could not be read.
    #[error("read answer")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came for too long.
    #[error("no answer for {ATTEMPT:?}")]
    TimedOut,
}

/// Where an agent is and what proves to it that we are its host.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    pub(crate) control_secret: String,
}

impl Agent {
    /// Sends `/init` until it is accepted, refused, or `patience` is over. The agent takes it any number of
    /// times.
    pub(crate) async fn init(&self, request: &InitRequest, patience: Duration) -> Result<(), AgentError> {
        let body = Bytes::from(serde_json::to_vec(request).expect("an init request has string keys only"));
        let started = Instant::now();
        loop {
            let attempt = tokio::time::timeout(ATTEMPT, self.post("/init", body.clone())).await;
            let failure = match attempt {
                Ok(Ok((status, _))) if status.is_success() => return Ok(()),
                // The agent is still busy with an earlier attempt of ours.
                Ok(Ok((StatusCode::SERVICE_UNAVAILABLE, _))) => None,
                Ok(Ok((status, body))) => return Err(AgentError::Refused { status, body }),
                Ok(Err(error)) => Some(error),
                Err(_elapsed) => Some(AttemptError::TimedOut),
            };
            if started.elapsed() >= patience {
                return Err(AgentError::Silent {
                    address: self.address,
                    waited: started.elapsed(),
                    source: failure.unwrap_or(AttemptError::TimedOut),
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn post(&self, path: &str, body: Bytes) -> Result<(StatusCode, String), AttemptError> {
        let stream = TcpStream::connect(self.address).await.map_err(AttemptError::Connect)?;
        stream.set_nodelay(true).map_err(AttemptError::Connect)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(AttemptError::Exchange)?;
        let request = Request::post(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .header(CONTROL_HEADER, &self.control_secret)
            .body(Full::new(body))
            .expect("the request is made of valid parts");
        let exchange = async {
            let response = sender.send_request(request).await.map_err(AttemptError::Exchange)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES)
                .collect()
                .await
                .map_err(AttemptError::Answer)?
                .to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::pin!(connection);
        tokio::pin!(exchange);
        // The connection must be polled for the exchange to move; when it ends first, the exchange says how.
        tokio::select! {
            answer = &mut exchange => answer,
            _ended = &mut connection => exchange.await,
        }
    }
}
