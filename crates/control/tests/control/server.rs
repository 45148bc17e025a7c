//! A server under test, which can be ended and begun again over what is left.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use sandbar_control::testing::{FakeNode, RuntimeClock, Still};
use sandbar_control::{Config, Control, NewSandbox, Sandbox, StockTemplate, Team, TokenSeed};
use sandbar_db::{Database, open};
use sandbar_model::{Mib, Resources, SandboxId, WorkloadDefaults};

pub(crate) struct Server {
    pub(crate) db: Arc<dyn Database>,
    pub(crate) node: Arc<FakeNode>,
    pub(crate) clock: RuntimeClock,
    pub(crate) config: Config,
    pub(crate) control: Arc<Control>,
    pub(crate) team: Team,
    _still: Still,
}

impl Server {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let still = Still::new();
        let db = open("sqlite::memory:").await.unwrap();
        let node = Arc::new(FakeNode::new());
        let clock = RuntimeClock::new();
        let mut config = Config::new(TokenSeed::new([7; 32]));
        configure(&mut config);
        let control =
            Control::open(db.clone(), node.clone(), Arc::new(clock.clone()), config.clone()).await.unwrap();
        control.publish(stock("base")).await.unwrap();
        let team = db.default_team().await.unwrap().unwrap();
        Self { db, node, clock, config, control, team, _still: still }
    }

    /// The server ends in good order and another begins; the node keeps what it has.
    pub(crate) async fn restart(&mut self) {
        self.control.shutdown().await;
        self.crash().await;
    }

    /// Another server begins, and the one before had no chance to do anything about it.
    pub(crate) async fn crash(&mut self) {
        let parts = (self.db.clone(), self.node.clone(), Arc::new(self.clock.clone()), self.config.clone());
        self.control = Control::open(parts.0, parts.1, parts.2, parts.3).await.unwrap();
    }

    pub(crate) async fn create(&self, secs: u64) -> Sandbox {
        self.control.create(&self.team, new(secs)).await.unwrap().sandbox
    }

    /// Waits until nothing is left of any sandbox: on the node, in the database, among the routes.
    pub(crate) async fn wait_until_empty(&self) {
        self.node.wait_for(0).await;
        for _ in 0..1000 {
            if self.db.all_sandboxes().await.unwrap().is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("rows are left: {:?}", self.db.all_sandboxes().await.unwrap());
    }

    /// Waits until the server does not know a sandbox any more.
    pub(crate) async fn wait_until_gone(&self, id: &SandboxId) {
        for _ in 0..1000 {
            if self.db.sandbox(id).await.unwrap().is_none() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("sandbox {id} is still there");
    }

    pub(crate) async fn is_reachable(&self, id: &SandboxId) -> bool {
        self.control.routes().find(id).await.is_ok()
    }
}

pub(crate) fn new(secs: u64) -> NewSandbox {
    NewSandbox {
        template: "base".parse().unwrap(),
        timeout: Duration::from_secs(secs),
        metadata: BTreeMap::new(),
        env: BTreeMap::new(),
        secured: true,
        internet: None,
    }
}

pub(crate) fn stock(name: &str) -> StockTemplate {
    StockTemplate {
        name: name.to_owned(),
        layers: vec!["a".repeat(64).parse().unwrap()],
        resources: Resources {
            vcpus: NonZeroU32::new(2).unwrap(),
            memory: Mib(1024),
            disk: Mib(10240),
            pids: 4096,
        },
        agent_version: "0.6.13".to_owned(),
        defaults: WorkloadDefaults { user: "user".to_owned(), workdir: None },
    }
}

/// Lets time pass, and everybody who waited for it act on it.
pub(crate) async fn pass(duration: Duration) {
    tokio::time::advance(duration).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}
