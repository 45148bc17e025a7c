//! A node in memory, which fails, waits and loses sandboxes on request.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use sandbar_model::{
    Capabilities, Node, NodeEvent, NodeId, Observed, RunId, SandboxId, SandboxSpec, Stages, StartError,
    Started, StopError, StopReason, Usage, UsageError,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A node that runs nothing. As a real one it owns its work: a caller that goes away changes nothing.
pub struct FakeNode {
    id: NodeId,
    capabilities: Capabilities,
    shared: Arc<Shared>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<NodeEvent>>,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    held: watch::Sender<bool>,
    events: mpsc::UnboundedSender<NodeEvent>,
}

#[derive(Default)]
struct State {
    starting: HashMap<SandboxId, CancellationToken>,
    running: HashMap<SandboxId, (Observed, SandboxSpec)>,
    start_failures: VecDeque<StartError>,
    stop_failures: u32,
    stops: Vec<(SandboxId, StopReason)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics with this lock held")
    }

    fn say_changed(&self) {
        self.changed.send_replace(());
    }
}

impl Default for FakeNode {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeNode {
    /// An empty node called `fake`.
    pub fn new() -> Self {
        let (events, receiver) = mpsc::unbounded_channel();
        Self {
            id: "fake".parse().expect("this is a node id"),
            capabilities: Capabilities {
                engine: "fake",
                engine_version: "0".to_owned(),
                hardware_isolation: false,
                memory_snapshot: false,
                setuid: false,
            },
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: watch::channel(()).0,
                held: watch::channel(false).0,
                events,
            }),
            events: tokio::sync::Mutex::new(receiver),
        }
    }

    /// From now on starts wait, until they are let go or killed.
    pub fn hold_starts(&self) {
        self.shared.held.send_replace(true);
    }

    /// Starts go on.
    pub fn release_starts(&self) {
        self.shared.held.send_replace(false);
    }

    /// The next start that is let go fails like this.
    pub fn fail_next_start(&self, error: StartError) {
        self.shared.lock().start_failures.push_back(error);
    }

    /// The next `count` stops fail, and stop nothing.
    pub fn fail_next_stops(&self, count: u32) {
        self.shared.lock().stop_failures = count;
    }

    /// A sandbox ends by itself.
    pub fn exit(&self, id: &SandboxId) {
        let ended = self.shared.lock().running.remove(id);
        let (observed, _) = ended.expect("the test names a sandbox that runs");
        let event = NodeEvent::Ended { id: id.clone(), run: observed.run, reason: StopReason::Exited };
        self.shared.events.send(event).expect("the node holds the receiver");
        self.shared.say_changed();
    }

    /// The host goes down and comes up again: nothing runs, and nobody is told.
    pub fn reboot(&self) {
        self.shared.lock().running.clear();
        self.shared.say_changed();
    }

    /// Something runs that nobody asked for.
    pub fn run_stray(&self, id: &SandboxId, spec: SandboxSpec) {
        self.shared.lock().running.insert(id.clone(), (observed(id), spec));
    }

    /// What was started here last and still runs.
    pub fn spec(&self, id: &SandboxId) -> Option<SandboxSpec> {
        self.shared.lock().running.get(id).map(|(_, spec)| spec.clone())
    }

    /// Everything that runs or is being started, in order of the ids.
    pub fn holds(&self) -> Vec<SandboxId> {
        let state = self.shared.lock();
        let mut ids: Vec<_> = state.starting.keys().chain(state.running.keys()).cloned().collect();
        ids.sort();
        ids
    }

    /// Every stop that was asked for, in order.
    pub fn stops(&self) -> Vec<(SandboxId, StopReason)> {
        self.shared.lock().stops.clone()
    }

    /// Waits until exactly this many sandboxes run or are being started. Fails the test after ten real seconds.
    pub async fn wait_for(&self, count: usize) -> Vec<SandboxId> {
        let mut changed = self.shared.changed.subscribe();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let holds = self.holds();
            if holds.len() == count {
                return holds;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "want {count} sandboxes on the node, have {holds:?}"
            );
            tokio::select! {
                _ = changed.changed() => {}
                // Real time, since the runtime's may stand still.
                _ = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(20))) => {}
            }
        }
    }
}

fn observed(id: &SandboxId) -> Observed {
    Observed { id: id.clone(), run: RunId(Uuid::new_v4()), address: Ipv4Addr::new(10, 0, 0, 1) }
}

async fn start(
    shared: Arc<Shared>,
    spec: SandboxSpec,
    killed: CancellationToken,
) -> Result<Started, StartError> {
    let mut held = shared.held.subscribe();
    let go_on = tokio::select! {
        () = killed.cancelled() => false,
        gone = held.wait_for(|held| !held) => gone.is_ok(),
    };
    let mut state = shared.lock();
    state.starting.remove(&spec.id);
    let result = if !go_on {
        Err(StartError::Killed { id: spec.id })
    } else if let Some(error) = state.start_failures.pop_front() {
        Err(error)
    } else {
        let observed = observed(&spec.id);
        let mut stages = Stages::default();
        stages.add("engine", Duration::from_millis(7));
        let started = Started { run: observed.run, address: observed.address, stages };
        state.running.insert(spec.id.clone(), (observed, spec));
        Ok(started)
    };
    drop(state);
    shared.say_changed();
    result
}

#[async_trait]
impl Node for FakeNode {
    fn id(&self) -> &NodeId {
        &self.id
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn agent_version(&self) -> &str {
        "0.6.13"
    }

    async fn start(&self, spec: SandboxSpec) -> Result<Started, StartError> {
        let killed = CancellationToken::new();
        self.shared.lock().starting.insert(spec.id.clone(), killed.clone());
        self.shared.say_changed();
        tokio::spawn(start(self.shared.clone(), spec, killed)).await.expect("a start does not panic")
    }

    async fn stop(&self, id: &SandboxId, reason: StopReason) -> Result<(), StopError> {
        {
            let mut state = self.shared.lock();
            state.stops.push((id.clone(), reason));
            if state.stop_failures > 0 {
                state.stop_failures -= 1;
                let source = "injected".into();
                return Err(StopError { id: id.clone(), step: "injected", source });
            }
            if let Some(killed) = state.starting.get(id) {
                killed.cancel();
            }
            state.running.remove(id);
        }
        self.shared.say_changed();
        let mut changed = self.shared.changed.subscribe();
        while self.shared.lock().starting.contains_key(id) {
            // The sender is ours.
            let _ = changed.changed().await;
        }
        Ok(())
    }

    async fn usage(&self, id: &SandboxId) -> Result<Usage, UsageError> {
        let runs = self.shared.lock().running.contains_key(id);
        if runs { Ok(Usage::default()) } else { Err(UsageError::NotHere(id.clone())) }
    }

    async fn console(&self, id: &SandboxId, max_bytes: usize) -> Result<Vec<u8>, UsageError> {
        if !self.shared.lock().running.contains_key(id) {
            return Err(UsageError::NotHere(id.clone()));
        }
        let said = format!("{{\"level\":\"INFO\",\"message\":\"{id} listens\"}}\n").into_bytes();
        Ok(said[said.len().saturating_sub(max_bytes)..].to_vec())
    }

    async fn list(&self) -> Vec<Observed> {
        self.shared.lock().running.values().map(|(observed, _)| observed.clone()).collect()
    }

    async fn next_event(&self) -> NodeEvent {
        let event = self.events.lock().await.recv().await;
        event.expect("the sender lives as long as the node")
    }
}
