//! What the parts of Sandbar ask of each other, without knowing who answers.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{ErrorKind, NodeId, RunId, SandboxId, SandboxSpec, Stages, StopReason, Usage};

/// Tells the time. Time that decides something comes in through this, so that a test can choose it.
pub trait Clock: Send + Sync {
    /// Now, in UTC.
    fn now(&self) -> Timestamp;
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// What a node's engine can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The engine: `gvisor`, `fake`.
    pub engine: &'static str,
    /// Its version, as it says itself.
    pub engine_version: String,
    /// Whether a guest has a kernel of its own under hardware virtualization.
    pub hardware_isolation: bool,
    /// Whether memory and processes can be saved and brought back.
    pub memory_snapshot: bool,
    /// Whether setuid programs gain their owner's rights in the guest without our help.
    pub setuid: bool,
}

/// One host that runs sandboxes. A host far away looks like one that is near.
///
/// The node owns the work: a caller that goes away changes nothing.
#[async_trait]
pub trait Node: Send + Sync {
    /// Its name in the cluster.
    fn id(&self) -> &NodeId;

    /// What its engine can do.
    fn capabilities(&self) -> &Capabilities;

    /// Version of the agent that guests run, as `x.y.z`.
    fn agent_version(&self) -> &str;

    /// Starts a sandbox and returns once its agent answers.
    ///
    /// # Errors
    /// After any error nothing of the sandbox is left on the host.
    async fn start(&self, spec: SandboxSpec) -> Result<Started, StartError>;

    /// Ends a sandbox and returns when nothing of it is left. Ending one that is not there succeeds;
    /// ending one that is being started ends the start.
    async fn stop(&self, id: &SandboxId, reason: StopReason) -> Result<(), StopError>;

    /// What one sandbox uses now.
    async fn usage(&self, id: &SandboxId) -> Result<Usage, UsageError>;

    /// The last `max_bytes` of what the guest's first program printed. The guest's words: not to be trusted,
    /// perhaps not UTF-8.
    async fn console(&self, id: &SandboxId, max_bytes: usize) -> Result<Vec<u8>, UsageError>;

    /// Every sandbox that runs here now.
    async fn list(&self) -> Vec<Observed>;

    /// The next thing that happened by itself. There is one listener; nothing is lost while it is away.
    async fn next_event(&self) -> NodeEvent;
}

/// A sandbox that runs on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The sandbox.
    pub id: SandboxId,
    /// Its run.
    pub run: RunId,
    /// Where the host reaches its ports.
    pub address: Ipv4Addr,
}

/// A successful start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The run that began.
    pub run: RunId,
    /// Where the host reaches the guest's ports.
    pub address: Ipv4Addr,
    /// Where the time went.
    pub stages: Stages,
}

/// Something that happened on a node without being asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    /// A sandbox ended by itself; nothing of it is left.
    Ended {
        /// The sandbox.
        id: SandboxId,
        /// The run that ended.
        run: RunId,
        /// Why.
        reason: StopReason,
    },
}

/// Why a sandbox could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host is full.
    #[error("no room for another sandbox on {node}")]
    Full {
        /// The host.
        node: NodeId,
    },
    /// The host is shutting down.
    #[error("{node} is shutting down")]
    Draining {
        /// The host.
        node: NodeId,
    },
    /// It was killed before it was ready.
    #[error("sandbox {id} was killed while it was being started")]
    Killed {
        /// The sandbox.
        id: SandboxId,
    },
    /// A step failed.
    #[error("start sandbox {id}: {step}")]
    Step {
        /// The sandbox.
        id: SandboxId,
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StartError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full { .. } | Self::Draining { .. } => ErrorKind::Capacity,
            Self::Killed { .. } => ErrorKind::NotFound,
            Self::Step { .. } => ErrorKind::Internal,
        }
    }
}

/// Why a sandbox could not be ended. The node goes on trying.
#[derive(Debug, thiserror::Error)]
#[error("stop sandbox {id}: {step}")]
pub struct StopError {
    /// The sandbox.
    pub id: SandboxId,
    /// What was being done.
    pub step: &'static str,
    /// Why it failed.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Why a sandbox's usage could not be told.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// It does not run here.
    #[error("sandbox {0} does not run here")]
    NotHere(SandboxId),
    /// The engine could not tell.
    #[error("read usage of sandbox {id}")]
    Read {
        /// The sandbox.
        id: SandboxId,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where traffic for a sandbox goes.
#[async_trait]
pub trait Routes: Send + Sync {
    /// The way to a sandbox, if it can be reached.
    async fn find(&self, id: &SandboxId) -> Result<Route, Refusal>;

    /// The sandbox whose agent demands this token. For clients that send no other address
    /// (contract/client-versions.md §2.2 rule 14). Compared in constant time.
    async fn find_by_token(&self, token: &str) -> Option<SandboxId>;
}

/// The way to one run of a sandbox.
#[derive(Clone, Debug)]
pub struct Route {
    /// The run. Connections are pooled by it, so that none is ever used for another sandbox.
    pub run: RunId,
    /// Every port of this address is that port of the guest.
    pub address: Ipv4Addr,
    /// Cancelled when the run ends; open connections are cut then.
    pub ended: CancellationToken,
}

/// Why there is no way to a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Unknown, killed, or not running.
    #[error("the sandbox was not found")]
    NotFound,
}
