//! The first things a server does: it takes over what is there.

use std::collections::HashMap;
use std::sync::Arc;

use sandbar_db::record;
use sandbar_db::{Database, DbError};
use sandbar_model::{Clock, Node, NodeEvent, Observed, SandboxId, StopReason};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::config::Config;
use crate::control::Control;
use crate::identity::{KnownKeys, ensure_default_team};
use crate::registry::Registry;
use crate::routes::RouteTable;
use crate::sandbox::{Begin, Command, INBOX, SandboxTask, Shared};

/// Why the control plane could not begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no default team and none could be made.
    #[error("find or make the default team")]
    DefaultTeam(#[source] DbError),
    /// What should exist is not known.
    #[error("load sandboxes")]
    Load(#[source] DbError),
}

impl Control {
    /// Compares what should exist with what `node` has adopted, closes the gap, and begins to serve.
    ///
    /// Must be called within a runtime, and after the node has found what survived.
    pub async fn open(
        db: Arc<dyn Database>,
        node: Arc<dyn Node>,
        clock: Arc<dyn Clock>,
        config: Config,
    ) -> Result<Arc<Self>, OpenError> {
        let shared = Arc::new(Shared {
            routes: Arc::new(RouteTable::new(config.seed.clone())),
            registry: Registry::default(),
            shutdown: CancellationToken::new(),
            db,
            node,
            clock,
            config,
        });
        let default_team = ensure_default_team(&shared).await.map_err(OpenError::DefaultTeam)?;
        let tasks = TaskTracker::new();
        reconcile(&shared, &tasks).await?;
        tasks.spawn(listen(shared.clone()));
        Ok(Arc::new(Self { shared, tasks, default_team, known_keys: KnownKeys::default() }))
    }
}

/// Gives every sandbox that should exist or does exist an owner, who brings the two together.
async fn reconcile(shared: &Arc<Shared>, tasks: &TaskTracker) -> Result<(), OpenError> {
    let rows = shared.db.all_sandboxes().await.map_err(OpenError::Load)?;
    let mut seen: HashMap<SandboxId, Observed> =
        shared.node.list().await.into_iter().map(|observed| (observed.id.clone(), observed)).collect();

    for row in rows {
        let begin = decide(&row, seen.remove(&row.id).as_ref());
        match &begin {
            Begin::Adopt => info!(sandbox_id = %row.id, "sandbox adopted"),
            Begin::End(reason) => info!(sandbox_id = %row.id, ?reason, "sandbox did not outlive the server"),
            Begin::Start(_) => {}
        }
        let (inbox, commands) = mpsc::channel(INBOX);
        shared.registry.reserve(&row.id, row.team, inbox, u32::MAX).expect("nobody has that many sandboxes");
        tasks.spawn(SandboxTask::new(shared.clone(), row, commands).run(begin));
    }
    for id in seen.into_keys() {
        warn!(sandbox_id = %id, "stopping a sandbox that nobody asked for");
        let shared = shared.clone();
        tasks.spawn(async move {
            if let Err(error) = shared.node.stop(&id, StopReason::Lost).await {
                error!(sandbox_id = %id, error = &error as &dyn std::error::Error, "stray sandbox was not stopped");
            }
        });
    }
    Ok(())
}

/// What a task does first with a row that a server before left. Time that ran out meanwhile needs no case of its own:
/// who is adopted with no time left ends as expired.
fn decide(row: &record::Sandbox, seen: Option<&Observed>) -> Begin {
    match (row.ending, &row.run, seen) {
        (Some(reason), _, _) => Begin::End(reason),
        // Nobody was told about it.
        (None, None, _) => Begin::End(StopReason::StartFailed),
        (None, Some(run), Some(seen)) if run.id == seen.run => Begin::Adopt,
        (None, Some(_), _) => Begin::End(StopReason::Lost),
    }
}

/// Hands what the node reports to the tasks it concerns.
async fn listen(shared: Arc<Shared>) {
    loop {
        let event = tokio::select! {
            () = shared.shutdown.cancelled() => return,
            event = shared.node.next_event() => event,
        };
        match event {
            NodeEvent::Ended { id, run, reason } => match shared.registry.find(&id) {
                // Refused only by a task that is at its end anyway.
                Some(inbox) => drop(inbox.send(Command::Exited { run, reason }).await),
                None => debug!(sandbox_id = %id, "end of a sandbox that was forgotten already"),
            },
        }
    }
}
