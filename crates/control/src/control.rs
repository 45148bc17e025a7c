//! What the API can ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sandbar_db::record::{self, Team};
use sandbar_db::{Order, PageAfter, SandboxFilter};
use sandbar_model::{
    EgressPolicy, Resources, Routes, SandboxId, SandboxSpec, Secret, Stages, StopReason, TemplateId,
    TemplateRef, UsageError,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::error::{ChangeError, CreateError, KillError, LookupError, ReadError};
use crate::identity::KnownKeys;
use crate::sandbox::{Begin, Command, DeadlineChange, INBOX, SandboxTask, Shared, Start};

/// The control plane. Made by [`Control::open`].
pub struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: TaskTracker,
    pub(crate) default_team: Team,
    pub(crate) known_keys: KnownKeys,
}

/// A sandbox that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSandbox {
    /// What it starts from.
    pub template: TemplateRef,
    /// How long it lives after its start, unless told otherwise later.
    pub timeout: Duration,
    /// What its owner writes on it.
    pub metadata: BTreeMap<String, String>,
    /// Environment of every process in it.
    pub env: BTreeMap<String, String>,
    /// Whether its agent demands a token.
    pub secured: bool,
    /// Whether it may reach the internet, if the caller said.
    pub internet: Option<bool>,
}

/// A sandbox that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// What it was started from.
    pub template: TemplateId,
    /// The first name of the template at that time.
    pub alias: Option<String>,
    /// Its limits.
    pub resources: Resources,
    /// What its owner wrote on it.
    pub metadata: BTreeMap<String, String>,
    /// What its agent demands of callers; absent when it demands nothing.
    pub access_token: Option<Secret>,
    /// Whether it may reach the internet, if the caller said.
    pub internet: Option<bool>,
    /// Version of its agent, as `x.y.z`.
    pub agent_version: String,
    /// When its agent first answered, to the microsecond.
    pub started_at: Timestamp,
    /// When it will end, to the microsecond.
    pub deadline: Timestamp,
}

/// A new sandbox, and where the time of its start went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// Parts of the start.
    pub stages: Stages,
}

/// Which running sandboxes are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxQuery {
    /// With these pairs in their metadata, exactly.
    pub metadata: BTreeMap<String, String>,
    /// Started from this template.
    pub template: Option<TemplateId>,
    /// Started at this time or later.
    pub started_after: Option<Timestamp>,
    /// By time of start.
    pub order: Order,
    /// What follows this entry.
    pub after: Option<PageAfter>,
    /// How many at most.
    pub limit: u32,
}

/// Some of the running sandboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order asked for.
    pub sandboxes: Vec<Sandbox>,
    /// Where the next page begins; absent on the last.
    pub next: Option<PageAfter>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Control {
    /// The way to every sandbox that runs.
    pub fn routes(&self) -> Arc<dyn Routes> {
        self.shared.routes.clone()
    }

    /// Whether the server is ending and takes no new sandboxes.
    pub fn is_draining(&self) -> bool {
        self.shared.shutdown.is_cancelled()
    }

    /// The longest life a sandbox can be given.
    pub fn run_max(&self) -> Duration {
        self.shared.config.run_max
    }

    /// Starts a sandbox and returns once its agent answers.
    ///
    /// # Errors
    /// After any error nothing of the sandbox is left.
    ///
    /// # Cancel safety
    /// The sandbox is made all the same, and ends when its time is up.
    pub async fn create(&self, team: &Team, new: NewSandbox) -> Result<Created, CreateError> {
        let resolved = self.resolve(team, &new.template).await.map_err(CreateError::Template)?;
        let config = &self.shared.config;
        if new.timeout.is_zero() {
            return Err(CreateError::TimeoutZero);
        }
        if new.timeout > config.run_max {
            return Err(CreateError::TimeoutTooLong { max: config.run_max });
        }

        let id = SandboxId::from_random(rand::random());
        let record = record::Sandbox {
            id: id.clone(),
            team: team.id,
            template: resolved.template.id.clone(),
            build: resolved.build.id,
            alias: resolved.template.names.first().map(|name| name.name.clone()),
            resources: resolved.build.resources,
            metadata: new.metadata,
            secured: new.secured,
            internet: new.internet,
            timeout: new.timeout,
            created_at: self.shared.now(),
            ending: None,
            run: None,
        };
        let spec = SandboxSpec {
            id: id.clone(),
            team: team.id,
            build: resolved.to_model(),
            resources: resolved.build.resources,
            env: new.env,
            access_token: new.secured.then(|| config.seed.access_token(&id)),
            egress: if new.internet == Some(false) { EgressPolicy::Nothing } else { EgressPolicy::Internet },
        };

        let (inbox, commands) = mpsc::channel(INBOX);
        if self.is_draining() {
            return Err(CreateError::Draining);
        }
        self.shared
            .registry
            .reserve(&id, team.id, inbox, config.concurrent_max)
            .map_err(|_| CreateError::LimitReached { max: config.concurrent_max })?;
        let (reply, answer) = oneshot::channel();
        let task = SandboxTask::new(self.shared.clone(), record, commands);
        self.tasks.spawn(task.run(Begin::Start(Box::new(Start { spec, reply }))));

        // The task always answers; without an answer it panicked, and the server is going down.
        let (record, stages) = answer.await.unwrap_or(Err(CreateError::Draining))?;
        let sandbox = self.view(record).ok_or(CreateError::Killed(id))?;
        Ok(Created { sandbox, stages })
    }

    /// A running sandbox of the team.
    pub async fn sandbox(&self, team: &Team, id: &SandboxId) -> Result<Sandbox, LookupError> {
        let record = self.shared.db.sandbox(id).await.map_err(LookupError::Db)?;
        record
            .filter(|record| record.team == team.id && record.ending.is_none())
            .and_then(|record| self.view(record))
            .ok_or_else(|| LookupError::NotFound(id.clone()))
    }

    /// The last `max_bytes` of what the agent of a running sandbox printed.
    pub async fn console(
        &self,
        team: &Team,
        id: &SandboxId,
        max_bytes: usize,
    ) -> Result<Vec<u8>, LookupError> {
        self.sandbox(team, id).await?;
        self.shared.node.console(id, max_bytes).await.map_err(|error| match error {
            UsageError::NotHere(id) => LookupError::NotFound(id),
            error @ UsageError::Read { .. } => LookupError::Node(error),
        })
    }

    /// Running sandboxes of the team, one page of them.
    pub async fn sandboxes(&self, team: &Team, query: SandboxQuery) -> Result<Page, ReadError> {
        let db = &self.shared.db;
        let failed = |source| ReadError { doing: "list sandboxes", source };
        let filter = SandboxFilter {
            team: team.id,
            metadata: query.metadata,
            template: query.template,
            started_after: query.started_after,
        };
        let total = db.count_running(&filter).await.map_err(failed)?;
        // One more than wanted, to see whether there is more.
        let rows = db
            .running(&filter, query.order, query.after.as_ref(), query.limit.saturating_add(1))
            .await
            .map_err(failed)?;
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        let sandboxes: Vec<Sandbox> = rows.into_iter().take(limit).filter_map(|row| self.view(row)).collect();
        let next = match sandboxes.last() {
            Some(last) if more => Some(PageAfter { at: last.started_at, id: last.id.to_string() }),
            _ => None,
        };
        Ok(Page { sandboxes, next, total })
    }

    /// Ends a sandbox of the team, also one that is being started, and returns when nothing of it is left.
    /// Whoever asks while that is going on waits for the same end.
    pub async fn kill(&self, team: &Team, id: &SandboxId) -> Result<(), KillError> {
        let not_found = || KillError::NotFound(id.clone());
        let inbox = self.shared.registry.find_of(team.id, id).ok_or_else(not_found)?;
        let (done, ended) = oneshot::channel();
        inbox.send(Command::Kill { reason: StopReason::Requested, done }).await.map_err(|_| not_found())?;
        // The task ended before it saw the command.
        ended.await.map_err(|_| not_found())
    }

    /// Lets a running sandbox end `life` from now, be that earlier or later than before. Silently shortened to what
    /// is allowed.
    pub async fn set_timeout(
        &self,
        team: &Team,
        id: &SandboxId,
        life: Duration,
    ) -> Result<Sandbox, ChangeError> {
        self.change(team, id, DeadlineChange::Set(life)).await
    }

    /// Lets a running sandbox live at least until `life` from now. Silently shortened to what is allowed.
    pub async fn extend(&self, team: &Team, id: &SandboxId, life: Duration) -> Result<Sandbox, ChangeError> {
        self.change(team, id, DeadlineChange::AtLeast(life)).await
    }

    /// As [`Self::extend`], for a caller who will use the sandbox now: a life that is not allowed is an error.
    pub async fn connect(&self, team: &Team, id: &SandboxId, life: Duration) -> Result<Sandbox, ChangeError> {
        let max = self.shared.config.run_max;
        if life > max {
            return Err(ChangeError::TimeoutTooLong { max });
        }
        self.extend(team, id, life).await
    }

    async fn change(
        &self,
        team: &Team,
        id: &SandboxId,
        change: DeadlineChange,
    ) -> Result<Sandbox, ChangeError> {
        let not_found = || ChangeError::NotFound(id.clone());
        let inbox = self.shared.registry.find_of(team.id, id).ok_or_else(not_found)?;
        let (reply, answer) = oneshot::channel();
        inbox.send(Command::Change { change, reply }).await.map_err(|_| not_found())?;
        let record = answer.await.map_err(|_| not_found())??;
        self.view(record).ok_or_else(not_found)
    }

    /// Ends what this server does: no new sandboxes, those that run end or stay as configured, starts that were
    /// begun are brought to their end. Returns when all that is done.
    pub async fn shutdown(&self) {
        self.shared.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What others see of a row; nothing while it has no run.
    fn view(&self, record: record::Sandbox) -> Option<Sandbox> {
        let run = record.run?;
        Some(Sandbox {
            access_token: record.secured.then(|| self.shared.config.seed.access_token(&record.id)),
            id: record.id,
            template: record.template,
            alias: record.alias,
            resources: record.resources,
            metadata: record.metadata,
            internet: record.internet,
            agent_version: run.agent_version,
            started_at: run.started_at,
            deadline: run.deadline,
        })
    }
}
