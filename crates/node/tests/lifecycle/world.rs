//! A host whose parts note what is held and fail when told to.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use sandbar_engine::Fake;
use sandbar_model::{
    BuildId, EgressPolicy, GuestNetwork, LayerDigest, Lease, Mib, Resources, SandboxId, SandboxSpec, Secret,
    SlotIndex, TeamId, TemplateBuild, WorkloadDefaults,
};
use sandbar_node::{BoxError, Config, Disks, LocalNode, Network, Parts};
use sandbar_wire::envd::control::{CONTROL_HEADER, InitRequest};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

/// More than any of these tests takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) engine: Fake,
    pub(crate) network: Arc<FakeNetwork>,
    pub(crate) disks: Arc<FakeDisks>,
    pub(crate) agent: FakeAgent,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            engine: sandbar_engine::fake(),
            network: Arc::default(),
            disks: Arc::default(),
            agent: FakeAgent::start().await,
        }
    }

    /// A server on this host; after an earlier one it is the restarted server.
    pub(crate) async fn open(&self) -> Arc<LocalNode> {
        self.open_with_patience(DEADLINE).await
    }

    pub(crate) async fn open_with_patience(&self, agent_patience: Duration) -> Arc<LocalNode> {
        let config = Config {
            id: "n1".parse().unwrap(),
            journal_dir: self.journal(),
            engine_dir: self.path("guests"),
            sandboxes_max: 3,
            guest_tools: digest('b'),
            agent_command: vec!["/agent".to_owned()],
            agent_port: self.agent.port,
            agent_patience,
            agent_version: "0.5.14".to_owned(),
        };
        let parts =
            Parts { engine: self.engine.engine(), network: self.network.clone(), disks: self.disks.clone() };
        within(LocalNode::open(config, parts)).await.unwrap()
    }

    /// Everything that is held on the host, sorted.
    pub(crate) fn holdings(&self) -> Vec<String> {
        let mut all: Vec<String> = self.engine.left().iter().map(|id| format!("guest {id}")).collect();
        all.extend(self.network.held.lock().unwrap().iter().map(|slot| format!("slot {slot}")));
        all.extend(self.disks.held.lock().unwrap().iter().cloned());
        if let Ok(entries) = self.journal().read_dir_utf8() {
            all.extend(
                entries
                    .map(|entry| format!("journal {}", entry.unwrap().file_name().trim_end_matches(".json"))),
            );
        }
        all.sort();
        all
    }

    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.until_async(what, async || condition(self)).await;
    }

    pub(crate) async fn until_async(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "waited in vain until {what}");
    }

    pub(crate) fn copy_of_journal(&self) -> Vec<(String, Vec<u8>)> {
        let entries = self.journal().read_dir_utf8().unwrap();
        entries
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().to_owned(), std::fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    pub(crate) fn restore_journal(&self, files: Vec<(String, Vec<u8>)>) {
        for (name, content) in files {
            self.write_journal_file(&name, &content);
        }
    }

    pub(crate) fn write_journal_file(&self, name: &str, content: &[u8]) {
        std::fs::create_dir_all(self.journal()).unwrap();
        std::fs::write(self.journal().join(name), content).unwrap();
    }

    fn journal(&self) -> Utf8PathBuf {
        self.path("journal")
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.dir.path()).unwrap().join(name)
    }
}

/// Fails when the work takes longer than any of these tests should.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("this should not take so long")
}

pub(crate) fn spec(id: &str) -> SandboxSpec {
    SandboxSpec {
        id: id.parse().unwrap(),
        team: TeamId(Uuid::nil()),
        build: TemplateBuild {
            template: "base".parse().unwrap(),
            build: BuildId(Uuid::nil()),
            layers: vec![digest('a')],
            defaults: WorkloadDefaults { user: "user".to_owned(), workdir: None },
        },
        resources: Resources { vcpus: NonZeroU32::MIN, memory: Mib(128), disk: Mib(64), pids: 100 },
        env: [("A".to_owned(), "1".to_owned())].into(),
        access_token: Some(Secret::new("token")),
        egress: EgressPolicy::Internet,
    }
}

fn digest(letter: char) -> LayerDigest {
    letter.to_string().repeat(64).parse().unwrap()
}

/// How often the next calls of a step fail.
#[derive(Debug)]
struct Failures<S>(Mutex<HashMap<S, u32>>);

impl<S> Default for Failures<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: Eq + Hash> Failures<S> {
    fn set(&self, step: S, times: u32) {
        self.0.lock().unwrap().insert(step, times);
    }

    fn pass(&self, step: S) -> Result<(), BoxError> {
        match self.0.lock().unwrap().get_mut(&step) {
            Some(times) if *times > 0 => {
                *times -= 1;
                Err("injected".into())
            }
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NetworkStep {
    Lease,
    Release,
}

#[derive(Debug, Default)]
pub(crate) struct FakeNetwork {
    held: Mutex<BTreeSet<u16>>,
    failures: Failures<NetworkStep>,
}

impl FakeNetwork {
    pub(crate) fn fail(&self, step: NetworkStep, times: u32) {
        self.failures.set(step, times);
    }
}

fn lease(slot: u16) -> Lease {
    Lease {
        slot: SlotIndex(slot),
        guest_netns: "/run/netns/none".into(),
        host_address: Ipv4Addr::LOCALHOST,
        guest: GuestNetwork::STANDARD,
    }
}

#[async_trait]
impl Network for FakeNetwork {
    async fn lease(&self, _policy: EgressPolicy) -> Result<Lease, BoxError> {
        self.failures.pass(NetworkStep::Lease)?;
        let mut held = self.held.lock().unwrap();
        let free = (0..).find(|slot| !held.contains(slot)).expect("there are more numbers than tests");
        held.insert(free);
        Ok(lease(free))
    }

    async fn adopt(&self, slot: SlotIndex, _policy: EgressPolicy) -> Result<Option<Lease>, BoxError> {
        Ok(self.held.lock().unwrap().contains(&slot.0).then(|| lease(slot.0)))
    }

    async fn release(&self, slot: SlotIndex) -> Result<(), BoxError> {
        self.failures.pass(NetworkStep::Release)?;
        self.held.lock().unwrap().remove(&slot.0);
        Ok(())
    }

    async fn close(&self) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DiskStep {
    HoldRoot,
    MakeScratch,
    RemoveScratch,
}

#[derive(Debug, Default)]
pub(crate) struct FakeDisks {
    held: Mutex<BTreeSet<String>>,
    failures: Failures<DiskStep>,
}

impl FakeDisks {
    pub(crate) fn fail(&self, step: DiskStep, times: u32) {
        self.failures.set(step, times);
    }

    /// As a crash would.
    pub(crate) fn leave_scratch(&self, id: &str) {
        self.held.lock().unwrap().insert(format!("disk {id}"));
    }
}

#[async_trait]
impl Disks for FakeDisks {
    async fn hold_root(&self, id: &SandboxId, layers: &[LayerDigest]) -> Result<Utf8PathBuf, BoxError> {
        assert_eq!(layers, [digest('a'), digest('b')], "the template's layers and the agent's on top");
        self.failures.pass(DiskStep::HoldRoot)?;
        self.held.lock().unwrap().insert(format!("root {id}"));
        Ok("/root".into())
    }

    async fn release_root(&self, id: &SandboxId) -> Result<(), BoxError> {
        self.held.lock().unwrap().remove(&format!("root {id}"));
        Ok(())
    }

    async fn make_scratch(&self, id: &SandboxId, _size: Mib) -> Result<Utf8PathBuf, BoxError> {
        self.failures.pass(DiskStep::MakeScratch)?;
        self.held.lock().unwrap().insert(format!("disk {id}"));
        Ok("/scratch".into())
    }

    async fn adopt_scratch(&self, id: &SandboxId) -> Result<(), BoxError> {
        let held = self.held.lock().unwrap().contains(&format!("disk {id}"));
        held.then_some(()).ok_or_else(|| "the disk is gone".into())
    }

    async fn remove_scratch(&self, id: &SandboxId) -> Result<(), BoxError> {
        self.failures.pass(DiskStep::RemoveScratch)?;
        self.held.lock().unwrap().remove(&format!("disk {id}"));
        Ok(())
    }

    async fn sweep(&self) -> Result<(), BoxError> {
        Ok(())
    }

    async fn close(&self) {}
}

/// What the agents of all guests do with `/init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentMood {
    /// Accept.
    Answers,
    /// Refuse, once; then accept.
    Refuses,
    /// Say nothing until the mood changes.
    Silent,
    /// Close every connection.
    Closes,
}

#[derive(Clone, Debug)]
pub(crate) struct Init {
    pub(crate) secret: String,
    pub(crate) body: InitRequest,
}

/// The agent of every guest: all of them live at the loopback address.
pub(crate) struct FakeAgent {
    pub(crate) port: u16,
    mood: watch::Sender<AgentMood>,
    last: Arc<Mutex<Option<Init>>>,
    server: tokio::task::JoinHandle<()>,
}

impl FakeAgent {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mood, _) = watch::channel(AgentMood::Answers);
        let last = Arc::new(Mutex::new(None));
        let server = tokio::spawn(serve(listener, mood.clone(), last.clone()));
        Self { port, mood, last, server }
    }

    pub(crate) fn set_mood(&self, mood: AgentMood) {
        self.mood.send_replace(mood);
    }

    pub(crate) fn last_init(&self) -> Init {
        self.last.lock().unwrap().clone().expect("somebody called")
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, mood: watch::Sender<AgentMood>, last: Arc<Mutex<Option<Init>>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        if *mood.borrow() == AgentMood::Closes {
            continue;
        }
        let (mood, last) = (mood.clone(), last.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| init(request, mood.clone(), last.clone()));
            // A node that gives up closes its connection; that is no error here.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn init(
    request: Request<Incoming>,
    mood: watch::Sender<AgentMood>,
    last: Arc<Mutex<Option<Init>>>,
) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/init"));
    let secret = request.headers()[CONTROL_HEADER].to_str().unwrap().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    *last.lock().unwrap() = Some(Init { secret, body: serde_json::from_slice(&body).unwrap() });
    let mut changes = mood.subscribe();
    let now = *changes.wait_for(|mood| *mood != AgentMood::Silent).await.unwrap();
    let status = if now == AgentMood::Refuses { 401 } else { 204 };
    if now == AgentMood::Refuses {
        mood.send_replace(AgentMood::Answers);
    }
    Ok(Response::builder().status(status).body(Empty::new()).unwrap())
}
