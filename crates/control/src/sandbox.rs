//! One sandbox, from its reservation until nothing of it is left.
//!
//! A task owns the sandbox and is the only writer of its row. Others send it a [`Command`] and await the answer;
//! what they do meanwhile changes nothing. While the sandbox is being started, changes of its deadline wait; while
//! it is being ended, whoever wants its end joins and everybody else is refused.
//!
//! Not here: what a start or an end consists of on the host (`node`).

mod ending;
mod starting;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sandbar_db::Database;
use sandbar_db::record;
use sandbar_model::{Clock, Node, RunId, SandboxId, SandboxSpec, Stages, StopReason};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, OnShutdown};
use crate::error::{ChangeError, CreateError};
use crate::registry::Registry;
use crate::routes::{Announced, RouteTable};

/// Commands that wait for a task. Who finds it full waits for a place; the tasks always come back to their inbox.
pub(crate) const INBOX: usize = 16;

/// How long a task trusts its timer before it looks at the clock again: the host's clock may be set, and the timer
/// stands still while the host is suspended.
const CLOCK_TRUST: Duration = Duration::from_secs(30);

/// What every task needs.
pub(crate) struct Shared {
    pub(crate) db: Arc<dyn Database>,
    pub(crate) node: Arc<dyn Node>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) registry: Registry,
    /// Cancelled when the server ends.
    pub(crate) shutdown: CancellationToken,
}

impl Shared {
    /// Now, to the microsecond: what is stored is what is compared and shown.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.clock.now().as_microsecond())
            .expect("a timestamp without its nanoseconds is one")
    }
}

/// What a task can be asked.
pub(crate) enum Command {
    /// End the sandbox. Answered when nothing of it is left, or when that takes too long.
    Kill { reason: StopReason, done: oneshot::Sender<()> },
    /// Let it live longer or shorter.
    Change { change: DeadlineChange, reply: oneshot::Sender<Result<record::Sandbox, ChangeError>> },
    /// The node says that a run ended by itself.
    Exited { run: RunId, reason: StopReason },
}

/// How the end of a sandbox moves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DeadlineChange {
    /// To this long from now.
    Set(Duration),
    /// To this long from now, unless it is later already.
    AtLeast(Duration),
}

/// The first thing a task does.
pub(crate) enum Begin {
    /// Start the sandbox.
    Start(Box<Start>),
    /// Take over a sandbox that runs.
    Adopt,
    /// End what may be left of it.
    End(StopReason),
}

/// A start and who waits for it.
pub(crate) struct Start {
    pub(crate) spec: SandboxSpec,
    pub(crate) reply: oneshot::Sender<Result<(record::Sandbox, Stages), CreateError>>,
}

/// Somebody who waits for the end.
enum Waiter {
    Killer(oneshot::Sender<()>),
    Creator(oneshot::Sender<Result<(record::Sandbox, Stages), CreateError>>, CreateError),
}

impl Waiter {
    fn answer(self) {
        // Whoever hung up does not want to know.
        match self {
            Self::Killer(done) => drop(done.send(())),
            Self::Creator(reply, error) => drop(reply.send(Err(error))),
        }
    }
}

/// The owner of one sandbox.
pub(crate) struct SandboxTask {
    shared: Arc<Shared>,
    record: record::Sandbox,
    inbox: mpsc::Receiver<Command>,
    waiters: Vec<Waiter>,
    /// Changes that wait for the end of the start.
    deferred: Vec<Command>,
}

impl SandboxTask {
    pub(crate) fn new(shared: Arc<Shared>, record: record::Sandbox, inbox: mpsc::Receiver<Command>) -> Self {
        Self { shared, record, inbox, waiters: Vec::new(), deferred: Vec::new() }
    }

    /// Owns the sandbox until nothing of it is left, or until the server ends and leaves it running.
    #[tracing::instrument(name = "sandbox", skip_all, fields(sandbox_id = %self.record.id))]
    pub(crate) async fn run(mut self, begin: Begin) {
        let end = match begin {
            Begin::Start(start) => match self.start(*start).await {
                Ok(()) => self.live().await,
                Err(reason) => Some(reason),
            },
            Begin::Adopt => {
                self.announce();
                self.live().await
            }
            Begin::End(reason) => Some(reason),
        };
        if let Some(reason) = end {
            self.end(reason).await;
        }
    }

    fn id(&self) -> &SandboxId {
        &self.record.id
    }

    /// From here on traffic finds the sandbox.
    fn announce(&self) {
        let Some(run) = &self.record.run else { return };
        let announced = Announced { run: run.id, address: run.address, secured: self.record.secured };
        self.shared.routes.announce(self.id(), announced);
    }

    /// Runs until the sandbox shall end, and says why; nothing when it shall outlive the server.
    async fn live(&mut self) -> Option<StopReason> {
        for command in std::mem::take(&mut self.deferred) {
            if let Some(reason) = self.obey(command).await {
                return Some(reason);
            }
        }
        loop {
            let left = self.time_left();
            if left.is_zero() {
                return Some(StopReason::Expired);
            }
            // Every branch is cancel safe.
            let command = tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => return self.leave(),
                command = self.inbox.recv() => command,
                () = tokio::time::sleep(left.min(CLOCK_TRUST)) => continue,
            };
            // The registry holds a sender for as long as this task has not released its place.
            let command = command?;
            if let Some(reason) = self.obey(command).await {
                return Some(reason);
            }
        }
    }

    fn time_left(&self) -> Duration {
        let deadline = self.record.run.as_ref().map(|run| run.deadline).unwrap_or(Timestamp::MIN);
        Duration::try_from(deadline.duration_since(self.shared.now())).unwrap_or(Duration::ZERO)
    }

    /// Why the sandbox shall end with the server, if it shall.
    fn leave(&self) -> Option<StopReason> {
        match self.shared.config.on_shutdown {
            OnShutdown::Keep => None,
            OnShutdown::Kill => Some(StopReason::Requested),
        }
    }

    /// Does what a live sandbox can be asked; says why it shall end, if it shall.
    async fn obey(&mut self, command: Command) -> Option<StopReason> {
        match command {
            Command::Kill { reason, done } => {
                self.waiters.push(Waiter::Killer(done));
                Some(reason)
            }
            Command::Change { change, reply } => {
                let result = self.change(change).await;
                // Whoever hung up does not want to know.
                drop(reply.send(result));
                None
            }
            Command::Exited { run, reason } => {
                let ours = self.record.run.as_ref().is_some_and(|current| current.id == run);
                if ours {
                    warn!(?reason, "sandbox ended by itself");
                }
                ours.then_some(reason)
            }
        }
    }

    /// Moves the deadline. It is on disk before anybody hears of it.
    async fn change(&mut self, change: DeadlineChange) -> Result<record::Sandbox, ChangeError> {
        let now = self.shared.now();
        let Some(run) = &mut self.record.run else {
            return Err(ChangeError::NotFound(self.record.id.clone()));
        };
        let last = after(run.started_at, self.shared.config.run_max);
        let deadline = match change {
            DeadlineChange::Set(life) => after(now, life).min(last),
            DeadlineChange::AtLeast(life) => after(now, life).min(last).max(run.deadline),
        };
        if deadline != run.deadline {
            self.shared.db.set_deadline(&self.record.id, deadline).await.map_err(ChangeError::Db)?;
            run.deadline = deadline;
            info!(%deadline, "sandbox's deadline moved");
        }
        Ok(self.record.clone())
    }
}

/// A time after another; the last there is when it would be later than that.
pub(crate) fn after(at: Timestamp, life: Duration) -> Timestamp {
    at.checked_add(life).unwrap_or(Timestamp::MAX)
}
