//! One sandbox on this host, from start to end.
//!
//! A single task owns each sandbox and is the only writer of its state. Others hold a [`Handle`]: they ask
//! for the end through it, or send a [`Command`]. Which event is legal when is decided by
//! `sandbar_model::State`, without I/O.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use sandbar_engine::{BootSpec, Exit, UsageError};
use sandbar_model::{
    Event, NodeEvent, Observed, RunId, SandboxId, SandboxSpec, Stages, StartError, Started, State,
    StopReason, Usage,
};
use sandbar_wire::envd::boot::Boot;
use sandbar_wire::envd::control::InitRequest;
use tokio::sync::{mpsc, oneshot, watch};

use crate::agent::Agent;
use crate::held::{Chain, Held, Leftover};
use crate::journal::{NewRecord, Record};
use crate::local::Shared;
use crate::parts::BoxError;

/// Commands that wait for their turn. A caller beyond that waits with its command in hand.
pub(crate) const INBOX: usize = 16;

/// What others may ask of a running sandbox.
pub(crate) enum Command {
    Usage(oneshot::Sender<Result<Usage, UsageError>>),
    Console { max_bytes: usize, reply: oneshot::Sender<Vec<u8>> },
}

/// How a sandbox's task is to end. The first one said wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Give everything back.
    Stop(StopReason),
    /// Leave the guest running for the next server.
    Leave,
}

/// What the task says when it has ended: `Ok` when nothing of the sandbox is left (or it was left running
/// on purpose).
pub(crate) type Ended = Result<(), Arc<Leftover>>;

/// The way to a sandbox's task.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) inbox: mpsc::Sender<Command>,
    pub(crate) ending: watch::Sender<Option<Ending>>,
    pub(crate) observed: watch::Receiver<Option<Observed>>,
    pub(crate) ended: watch::Receiver<Option<Ended>>,
}

impl Handle {
    /// Asks for the end; the first ending asked for stands.
    pub(crate) fn end(&self, ending: Ending) {
        self.ending.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(ending);
            first
        });
    }

    /// Waits until the task has ended.
    pub(crate) async fn wait_ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(value) => value.clone().expect("waited for it"),
            // The task is gone without a word: it panicked, and its record is still in the journal.
            Err(_closed) => Err(Arc::new(Leftover { step: "run task", source: "task panicked".into() })),
        }
    }
}

/// The task's side of a [`Handle`].
pub(crate) struct Task {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: SandboxId,
    pub(crate) run: RunId,
    state: State,
    held: Held,
    inbox: mpsc::Receiver<Command>,
    ending: watch::Receiver<Option<Ending>>,
    observed: watch::Sender<Option<Observed>>,
    ended: watch::Sender<Option<Ended>>,
}

/// Why a start did not get through.
enum Failure {
    Killed,
    Step(&'static str, BoxError),
}

impl Task {
    /// A task that is not running yet, and the handle to it.
    pub(crate) fn new(shared: Arc<Shared>, id: SandboxId, run: RunId) -> (Self, Handle) {
        let (inbox_sender, inbox) = mpsc::channel(INBOX);
        let (ending_sender, ending) = watch::channel(None);
        let (observed, observed_receiver) = watch::channel(None);
        let (ended, ended_receiver) = watch::channel(None);
        let handle = Handle {
            inbox: inbox_sender,
            ending: ending_sender,
            observed: observed_receiver,
            ended: ended_receiver,
        };
        let state = State::Starting;
        (Self { shared, id, run, state, held: Held::default(), inbox, ending, observed, ended }, handle)
    }

    /// Starts the sandbox, tells `ready`, and stays with it until its end.
    #[tracing::instrument(name = "sandbox", skip_all, fields(sandbox_id = %self.id))]
    pub(crate) async fn start_and_watch(
        mut self,
        spec: SandboxSpec,
        ready: oneshot::Sender<Result<Started, StartError>>,
    ) {
        match self.start(&spec).await {
            Ok((observed, stages)) => {
                self.apply(Event::Ready { run: self.run });
                let started = Started { run: self.run, address: observed.address, stages };
                self.observed.send_replace(Some(observed));
                // Whoever asked may have gone away; the sandbox runs nevertheless.
                let _ = ready.send(Ok(started));
                self.watch().await;
            }
            Err(failure) => {
                let (event, error) = match failure {
                    Failure::Killed => {
                        (Event::Kill(StopReason::Requested), StartError::Killed { id: self.id.clone() })
                    }
                    Failure::Step(step, source) => {
                        tracing::warn!(step, error = %Chain(&*source), "sandbox did not start");
                        (Event::StartFailed, StartError::Step { id: self.id.clone(), step, source })
                    }
                };
                self.apply(event);
                self.release().await;
                let _ = ready.send(Err(error));
            }
        }
    }

    /// Takes over a sandbox that ran before this server was started, and stays with it until its end.
    #[tracing::instrument(name = "sandbox", skip_all, fields(sandbox_id = %self.id))]
    pub(crate) async fn adopt_and_watch(mut self, held: Held, observed: Observed) {
        self.held = held;
        self.apply(Event::Ready { run: self.run });
        self.observed.send_replace(Some(observed));
        self.watch().await;
    }

    /// The steps of a start, in order. What was taken is in `self.held`, also after a failure.
    async fn start(&mut self, spec: &SandboxSpec) -> Result<(Observed, Stages), Failure> {
        let shared = Arc::clone(&self.shared);
        let (parts, config) = (&shared.parts, &shared.config);
        let mut watch = Stopwatch::start();

        let lease = parts.network.lease(spec.egress).await.map_err(step("lease network"))?;
        self.held.slot = Some(lease.slot);
        watch.lap("lease");
        self.check_killed()?;

        // The agent is a layer of its own on top: a new one needs no new template.
        let mut layers = spec.build.layers.clone();
        layers.push(config.guest_tools.clone());
        self.held.root = true;
        let root = parts.disks.hold_root(&self.id, &layers).await.map_err(step("mount root"))?;
        self.held.scratch = true;
        let scratch = parts
            .disks
            .make_scratch(&self.id, spec.resources.disk)
            .await
            .map_err(step("make scratch disk"))?;
        watch.lap("root");
        self.check_killed()?;

        let control_secret = (shared.random_secret)();
        let boot_line = Boot {
            control_secret: control_secret.clone(),
            disk_total_bytes: Some(spec.resources.disk.bytes()),
        };
        let boot = BootSpec {
            id: self.id.clone(),
            lease: lease.clone(),
            root,
            scratch,
            resources: spec.resources,
            hostname: hostname(&self.id),
            init: config.agent_command.clone(),
            env: [("PATH".to_owned(), GUEST_PATH.to_owned())].into(),
            stdin: boot_line.to_line().into_bytes(),
            dir: config.engine_dir.join(self.id.as_str()),
        };
        let planned = parts.engine.plan(&boot);
        let record = Record::new(NewRecord {
            id: &self.id,
            run: self.run,
            slot: lease.slot,
            egress: spec.egress,
            layers: &layers,
            control_secret: &control_secret,
            guest: planned.clone(),
        });
        let journal = shared.journal.entry(&self.id);
        self.held.journal = Some(journal.clone());
        journal.write(&record).await.map_err(|e| Failure::Step("write journal", e.into()))?;
        watch.lap("journal");
        self.check_killed()?;

        self.held.planned = Some(planned);
        let mut ending = self.ending.clone();
        let guest = tokio::select! {
            booted = parts.engine.boot(boot) => booted.map_err(|e| Failure::Step("boot guest", e.into()))?,
            // What an abandoned boot leaves is removed by its plan.
            _ = ending.wait_for(Option::is_some) => return Err(Failure::Killed),
        };
        let record = record.running(guest.record());
        self.held.planned = Some(guest.record());
        self.held.guest = Some(guest);
        watch.lap("engine");

        // The record with the guest's processes and the agent's first answer do not depend on each other.
        let agent =
            Agent { address: SocketAddr::from((lease.host_address, config.agent_port)), control_secret };
        let request = init_request(spec, &lease);
        let written =
            async { journal.write(&record).await.map_err(|e| Failure::Step("write journal", e.into())) };
        let answered = async {
            let init = agent.init(&request, config.agent_patience);
            init.await.map_err(|e| Failure::Step("initialise agent", e.into()))
        };
        let guest = self.held.guest.as_mut().expect("just booted");
        tokio::select! {
            both = async { tokio::try_join!(written, answered) } => { both?; }
            exit = guest.exited() => {
                return Err(Failure::Step("initialise agent", format!("guest ended: {exit:?}").into()));
            }
            _ = ending.wait_for(Option::is_some) => return Err(Failure::Killed),
        }
        watch.lap("agent");
        self.check_killed()?;
        Ok((Observed { id: self.id.clone(), run: self.run, address: lease.host_address }, watch.stages))
    }

    /// A kill wins at every step.
    fn check_killed(&self) -> Result<(), Failure> {
        if self.ending.borrow().is_some() { Err(Failure::Killed) } else { Ok(()) }
    }

    /// Stays with a running sandbox until it ends, by itself or because somebody wants it.
    async fn watch(mut self) {
        enum Input {
            Exited(Exit),
            Ending(Ending),
            Command(Command),
        }
        loop {
            let guest = self.held.guest.as_mut().expect("a running sandbox has a guest");
            // Every branch is cancel safe; the work itself happens after the select, uncancelled.
            let input = tokio::select! {
                biased;
                Ok(ending) = self.ending.wait_for(Option::is_some) => {
                    Input::Ending(ending.expect("waited for it"))
                }
                exit = guest.exited() => Input::Exited(exit),
                Some(command) = self.inbox.recv() => Input::Command(command),
            };
            match input {
                Input::Command(Command::Usage(reply)) => {
                    let _ = reply.send(guest.usage().await);
                }
                Input::Command(Command::Console { max_bytes, reply }) => {
                    let _ = reply.send(guest.console(max_bytes).await);
                }
                Input::Ending(Ending::Leave) => {
                    self.observed.send_replace(None);
                    self.ended.send_replace(Some(Ok(())));
                    return;
                }
                Input::Ending(Ending::Stop(reason)) => {
                    self.apply(Event::Kill(reason));
                    self.release().await;
                    return;
                }
                Input::Exited(exit) => {
                    tracing::info!(?exit, "guest ended by itself");
                    self.apply(Event::EngineExited);
                    let (id, run) = (self.id.clone(), self.run);
                    let shared = Arc::clone(&self.shared);
                    self.release().await;
                    shared.tell(NodeEvent::Ended { id, run, reason: StopReason::Exited });
                    return;
                }
            }
        }
    }

    fn apply(&mut self, event: Event) {
        match self.state.apply(event) {
            Ok((next, _effect)) => {
                tracing::debug!(from = self.state.name(), to = next.name(), "sandbox changed state");
                self.state = next;
            }
            Err(refused) => tracing::error!(error = %refused, "sandbox refused an event"),
        }
    }

    async fn release(&mut self) {
        self.observed.send_replace(None);
        let held = std::mem::take(&mut self.held);
        let leftover = held.release(&self.id, &self.shared.parts).await;
        self.apply(Event::Released);
        self.shared.forget(&self.id);
        self.ended.send_replace(Some(leftover.map_or(Ok(()), |leftover| Err(Arc::new(leftover)))));
        tracing::info!("sandbox released");
    }
}

/// The `PATH` of the agent, which the processes it starts inherit (contract/envd.md §5.4).
const GUEST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The guest's host name: its id, which is a valid label.
fn hostname(id: &SandboxId) -> String {
    id.to_string()
}

fn init_request(spec: &SandboxSpec, lease: &sandbar_model::Lease) -> InitRequest {
    InitRequest {
        timestamp: Some(Timestamp::now().to_string()),
        env_vars: Some(spec.env.clone()),
        access_token: spec.access_token.as_ref().map(|token| token.expose().to_owned()),
        default_user: Some(spec.build.defaults.user.clone()),
        default_workdir: spec.build.defaults.workdir.clone(),
        sandbox_id: Some(spec.id.to_string()),
        template_id: Some(spec.build.template.to_string()),
        team_id: Some(spec.team.to_string()),
        hostname: Some(hostname(&spec.id)),
        nameserver: Some(lease.guest.gateway.to_string()),
        pids_max: Some(spec.resources.pids),
        ..InitRequest::default()
    }
}

fn step(name: &'static str) -> impl Fn(BoxError) -> Failure {
    move |source| Failure::Step(name, source)
}

/// Splits the time of a start into its stages.
struct Stopwatch {
    stages: Stages,
    since: Instant,
}

impl Stopwatch {
    fn start() -> Self {
        Self { stages: Stages::default(), since: Instant::now() }
    }

    fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        self.stages.add(name, now - self.since);
        self.since = now;
    }
}
