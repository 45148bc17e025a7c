//! This host as a `Node`: the registry of its sandboxes and what may be asked of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use sandbar_model::{
    Capabilities, LayerDigest, Node, NodeEvent, NodeId, Observed, RunId, SandboxId, SandboxSpec, SlotIndex,
    StartError, Started, StopError, StopReason, Usage, UsageError,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::adopt;
use crate::held::Chain;
use crate::journal::{Journal, JournalError};
use crate::parts::Parts;
use crate::sandbox::{Command, Ending, Handle, Task};

/// What a node is told once, at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name in the cluster.
    pub id: NodeId,
    /// Where the journal lies.
    pub journal_dir: Utf8PathBuf,
    /// Where the engine keeps what belongs to one sandbox: a directory each, named by its id.
    pub engine_dir: Utf8PathBuf,
    /// Sandboxes at once.
    pub sandboxes_max: usize,
    /// The layer with the agent, on top of every root.
    pub guest_tools: LayerDigest,
    /// What the guest's first process is.
    pub agent_command: Vec<String>,
    /// Where the agent listens in the guest.
    pub agent_port: u16,
    /// How long a guest may take from its boot to the agent's first answer.
    pub agent_patience: Duration,
    /// Version of the agent, as `x.y.z`.
    pub agent_version: String,
}

/// What happens to running sandboxes when the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtShutdown {
    /// They are ended.
    Kill,
    /// They go on, and the next server adopts them.
    Keep,
}

/// Why a node could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal.
    #[error("open node")]
    Journal(#[from] JournalError),
}

/// What an earlier server may still hold.
#[derive(Clone, Debug, Default)]
pub struct Earlier {
    /// Network slots.
    pub slots: Vec<SlotIndex>,
    /// Sandboxes, with their scratch disks.
    pub sandboxes: Vec<SandboxId>,
}

/// This host.
pub struct LocalNode {
    shared: Arc<Shared>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<NodeEvent>>,
    tasks: TaskTracker,
    draining: AtomicBool,
}

/// What the node and its tasks have in common.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) parts: Parts,
    pub(crate) journal: Journal,
    /// Makes a control secret: 64 hex digits.
    pub(crate) random_secret: fn() -> String,
    sandboxes: Mutex<HashMap<SandboxId, Handle>>,
    /// Unbounded, but each sandbox says at most one thing.
    events: mpsc::UnboundedSender<NodeEvent>,
}

impl Shared {
    pub(crate) fn tell(&self, event: NodeEvent) {
        // The receiver lives as long as the node; without one nobody is left to be told.
        let _ = self.events.send(event);
    }

    pub(crate) fn forget(&self, id: &SandboxId) {
        self.sandboxes.lock().expect("no holder panics").remove(id);
    }

    fn find(&self, id: &SandboxId) -> Option<Handle> {
        self.sandboxes.lock().expect("no holder panics").get(id).cloned()
    }

    fn handles(&self) -> Vec<Handle> {
        self.sandboxes.lock().expect("no holder panics").values().cloned().collect()
    }

    /// Registers a sandbox. `Err` with the number of sandboxes when there are `max` already or it is known.
    fn register(&self, id: &SandboxId, handle: &Handle, max: usize) -> bool {
        let mut sandboxes = self.sandboxes.lock().expect("no holder panics");
        if sandboxes.len() >= max || sandboxes.contains_key(id) {
            return false;
        }
        sandboxes.insert(id.clone(), handle.clone());
        true
    }
}

impl LocalNode {
    /// Opens the node: adopts what is alive of an earlier server and removes the rest of what it left.
    pub async fn open(config: Config, parts: Parts) -> Result<Arc<Self>, OpenError> {
        let journal = Journal::open(config.journal_dir.clone())?;
        let found = journal.load()?;
        let (events, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            config,
            parts,
            journal,
            random_secret: || hex_digits(rand::random()),
            sandboxes: Mutex::new(HashMap::new()),
            events,
        });
        let node = Arc::new(Self {
            shared: Arc::clone(&shared),
            events: tokio::sync::Mutex::new(receiver),
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
        });
        for found in found {
            if let Some(adopted) = adopt::adopt(&shared, found).await {
                let (task, handle) = Task::new(Arc::clone(&shared), adopted.observed.id.clone(), adopted.run);
                shared.register(&adopted.observed.id, &handle, usize::MAX);
                let mut observed = handle.observed.clone();
                node.tasks.spawn(task.adopt_and_watch(adopted.held, adopted.observed));
                // `list` is asked right after; the task has said what it observed by then.
                let _ = observed.wait_for(Option::is_some).await;
            }
        }
        node.sweep().await;
        Ok(node)
    }

    /// What an earlier server may still hold, by its journal.
    ///
    /// Asked before networks and disks are opened: those remove what belongs to none of these.
    pub fn in_journal(journal_dir: Utf8PathBuf) -> Result<Earlier, OpenError> {
        let found = Journal::open(journal_dir)?.load()?;
        let slots =
            found.iter().filter_map(|found| found.record.as_ref()).map(|record| record.slot()).collect();
        Ok(Earlier { slots, sandboxes: found.into_iter().map(|found| found.id).collect() })
    }

    /// Ends the node's work: no more starts, then every sandbox is ended or left, then what belongs to no
    /// sandbox is removed.
    pub async fn shutdown(&self, then: AtShutdown) {
        self.draining.store(true, Ordering::SeqCst);
        let ending = match then {
            AtShutdown::Kill => Ending::Stop(StopReason::Requested),
            AtShutdown::Keep => Ending::Leave,
        };
        for handle in self.shared.handles() {
            handle.end(ending);
        }
        self.tasks.close();
        self.tasks.wait().await;
        self.shared.parts.network.close().await;
        self.shared.parts.disks.close().await;
        self.sweep().await;
    }

    async fn sweep(&self) {
        if let Err(error) = self.shared.parts.disks.sweep().await {
            // The next start tries again; until then it is a mount that nobody uses.
            tracing::error!(error = %Chain(&*error), "unused roots were not removed");
        }
    }
}

#[async_trait]
impl Node for LocalNode {
    fn id(&self) -> &NodeId {
        &self.shared.config.id
    }

    fn capabilities(&self) -> &Capabilities {
        self.shared.parts.engine.capabilities()
    }

    fn agent_version(&self) -> &str {
        &self.shared.config.agent_version
    }

    async fn start(&self, spec: SandboxSpec) -> Result<Started, StartError> {
        let node = || self.shared.config.id.clone();
        if self.draining.load(Ordering::SeqCst) {
            return Err(StartError::Draining { node: node() });
        }
        let id = spec.id.clone();
        let (task, handle) = Task::new(Arc::clone(&self.shared), id.clone(), RunId(Uuid::new_v4()));
        if !self.shared.register(&id, &handle, self.shared.config.sandboxes_max) {
            return Err(StartError::Full { node: node() });
        }
        let (ready, answer) = oneshot::channel();
        self.tasks.spawn(task.start_and_watch(spec, ready));
        match answer.await {
            Ok(answer) => answer,
            Err(_dropped) => {
                self.shared.forget(&id);
                Err(StartError::Step { id, step: "run task", source: "task panicked".into() })
            }
        }
    }

    async fn stop(&self, id: &SandboxId, reason: StopReason) -> Result<(), StopError> {
        let Some(handle) = self.shared.find(id) else {
            return Ok(());
        };
        handle.end(Ending::Stop(reason));
        handle.wait_ended().await.map_err(|leftover| StopError {
            id: id.clone(),
            step: leftover.step,
            source: leftover.source.to_string().into(),
        })
    }

    async fn usage(&self, id: &SandboxId) -> Result<Usage, UsageError> {
        let gone = || UsageError::NotHere(id.clone());
        let handle = self.shared.find(id).ok_or_else(gone)?;
        let (reply, answer) = oneshot::channel();
        handle.inbox.send(Command::Usage(reply)).await.map_err(|_| gone())?;
        let usage = answer.await.map_err(|_| gone())?;
        usage.map_err(|error| UsageError::Read { id: id.clone(), source: error.into() })
    }

    async fn console(&self, id: &SandboxId, max_bytes: usize) -> Result<Vec<u8>, UsageError> {
        let gone = || UsageError::NotHere(id.clone());
        let handle = self.shared.find(id).ok_or_else(gone)?;
        let (reply, answer) = oneshot::channel();
        handle.inbox.send(Command::Console { max_bytes, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    async fn list(&self) -> Vec<Observed> {
        let handles = self.shared.handles();
        handles.iter().filter_map(|handle| handle.observed.borrow().clone()).collect()
    }

    async fn next_event(&self) -> NodeEvent {
        let mut events = self.events.lock().await;
        events.recv().await.expect("the node holds a sender")
    }
}

fn hex_digits(random: [u8; 32]) -> String {
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
