//! The server: puts the parts together, runs them, and takes them apart in reverse.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use sandbar_artifacts::{LayerStore, ScratchSettings, import_tools};
use sandbar_control::{Control, OnShutdown, TokenSeed};
use sandbar_db::Database;
use sandbar_model::{InstanceId, LayerDigest, Node, Secret, SystemClock};
use sandbar_node::{LocalNode, Parts};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::client::read_api_key;
use crate::identity::{Identity, write_private};
use crate::ready::Ready;
use crate::settings::{AtShutdown, Limits, Settings};
use crate::signals::Signals;
use crate::stock;

/// How long a guest may take from its boot to its agent's first answer, on a host that boots many at once.
const AGENT_PATIENCE: Duration = Duration::from_secs(40);

/// How long the engine may take until a guest's first program runs.
const BOOT_LIMIT: Duration = Duration::from_secs(40);

/// Scratch disks made ahead of need.
const DISKS_READY: usize = 4;

/// A running server.
pub(crate) struct Server {
    settings: Settings,
    ready: Ready,
    stop: CancellationToken,
    edge: JoinHandle<()>,
    control: Arc<Control>,
    node: Arc<LocalNode>,
    db: Arc<dyn Database>,
    base_layers: Vec<LayerDigest>,
    /// Held last, so that no other server begins before this one has ended.
    identity: Identity,
}

/// Writes events to standard error, as `RUST_LOG` says or else `filter`.
pub(crate) fn start_logging(filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}

/// What a server says by itself: life events of sandboxes and of the server.
pub(crate) const LIFE_EVENTS: &str = "info";

impl Server {
    /// Starts everything; when this returns, the server answers.
    ///
    /// A signal ends the building of templates, which may take minutes. The rest is quick and goes to its end; a
    /// signal that comes then is there for [`Server::run_until`].
    pub(crate) async fn start(settings: Settings, signals: &mut Signals) -> anyhow::Result<Self> {
        let identity = Identity::take(&settings.data_dir)?;
        Ready::remove(&settings.data_dir);
        let store = LayerStore::open(&settings.artifacts_dir)?;
        let images = tokio::select! {
            images = stock::ensure_all(&store, &settings) => images?,
            signal = signals.next() => bail!("{signal} received while templates were being built"),
        };
        let agent = agent_binary()?;
        let guest_tools =
            import_tools(&store, &agent).with_context(|| format!("take {agent} into the store"))?;
        let base = images.iter().find(|image| image.name == "base").context("there is no template base")?;
        let base_layers = base.layers.iter().chain([&guest_tools]).cloned().collect();
        let node = open_node(&settings, &identity, &store, guest_tools).await?;

        let db = sandbar_db::open(&format!("sqlite:{}", settings.data_dir.join("sandbar.db"))).await?;
        let mut config = sandbar_control::Config::new(TokenSeed::new(identity.seed));
        config.concurrent_max = settings.limits.sandboxes_per_team;
        config.run_max = Duration::from_secs(u64::from(settings.limits.timeout_hours) * 3600);
        config.on_shutdown = match settings.at_shutdown {
            AtShutdown::Kill => OnShutdown::Kill,
            AtShutdown::Keep => OnShutdown::Keep,
        };
        let port: Arc<dyn Node> = node.clone();
        let control = Control::open(db.clone(), port, Arc::new(SystemClock), config).await?;
        stock::publish(&control, &images, &settings).await?;
        let key_file = settings.data_dir.join("api-key");
        let keep = |key: &Secret| write_private(&key_file, key.expose()).map_err(std::io::Error::other);
        if sandbar_api::ensure_first_key(&control, rand::random(), keep).await? {
            info!(path = %key_file, "first API key written");
        }

        let tls = sandbar_edge::certs::ensure(
            &settings.data_dir.join("tls"),
            &settings.domain,
            Some(Utf8Path::new(HOST_CA_BUNDLE)),
        )?;
        let mut config = sandbar_edge::Config::new(settings.listen.clone(), settings.domain.clone());
        config.tls = Some(tls);
        let bound = sandbar_edge::bind(config).await?;
        let addresses = bound.addresses().to_vec();
        let domain = with_port(&settings.domain, addresses.first().map_or(443, |address| address.port()));
        let api = sandbar_api::router(sandbar_api::ApiState::new(control.clone(), Some(domain.clone())));
        let stop = CancellationToken::new();
        let edge = bound.serve(sandbar_edge::api_service(api), control.routes(), stop.clone());
        let edge = tokio::spawn(edge);

        let ready = Ready { pid: std::process::id(), listen: addresses, domain };
        ready.write(&settings.data_dir)?;
        info!(listen = ?ready.listen, domain = ready.domain, instance = %identity.instance, "server is ready");
        Ok(Self { settings, ready, stop, edge, control, node, db, base_layers, identity })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where it answers.
    pub(crate) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Part of the name of everything this server has on the host.
    pub(crate) fn instance(&self) -> &InstanceId {
        &self.identity.instance
    }

    /// The layers of sandboxes that start from `base`, the agent's included.
    pub(crate) fn base_layers(&self) -> &[LayerDigest] {
        &self.base_layers
    }

    /// The key that was made at the first start.
    pub(crate) fn api_key(&self) -> anyhow::Result<String> {
        read_api_key(&self.settings.data_dir)
    }

    /// Runs until one of the signals, then stops.
    pub(crate) async fn run_until(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        tokio::select! {
            signal = signals.next() => info!(signal, "signal received"),
            ended = &mut self.edge => {
                ended.context("the listener failed")?;
                info!("the listener ended");
            }
        }
        self.stop().await
    }

    /// Takes everything apart: sandboxes first, so that whoever waits for one still gets an answer, then clients,
    /// the host, the records.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        info!("server stops");
        Ready::remove(&self.settings.data_dir);
        self.control.shutdown().await;
        self.stop.cancel();
        if !self.edge.is_finished() {
            self.edge.await.context("the listener failed")?;
        }
        let then = match self.settings.at_shutdown {
            AtShutdown::Kill => sandbar_node::AtShutdown::Kill,
            AtShutdown::Keep => sandbar_node::AtShutdown::Keep,
        };
        self.node.shutdown(then).await;
        self.db.close().await;
        info!("server has stopped");
        Ok(())
    }
}

/// What programs on the host trust; `bundle.pem` for Python is this and our own CA.
const HOST_CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// This host with its parts, after it has taken over what an earlier server left.
async fn open_node(
    settings: &Settings,
    identity: &Identity,
    store: &LayerStore,
    guest_tools: LayerDigest,
) -> anyhow::Result<Arc<LocalNode>> {
    let data_dir = &settings.data_dir;
    let journal_dir = data_dir.join("journal");
    let earlier = LocalNode::in_journal(journal_dir.clone())?;
    let engine = sandbar_engine::open(sandbar_engine::Config {
        instance: identity.instance.clone(),
        runsc: runsc_candidates(&settings.runsc_dir),
        boot_limit: BOOT_LIMIT,
    })
    .await?;
    let network = sandbar_node::HostNetwork::open(
        sandbar_net::Config {
            instance: identity.instance.clone(),
            data_dir: data_dir.clone(),
            runtime_dir: RUNTIME_DIR.into(),
            slots_ready_min: settings.limits.networks_ready,
            slots_ready_max: settings.limits.networks_ready.saturating_mul(2),
            slots_max: slots_max(&settings.limits),
            nameservers: Vec::new(),
        },
        earlier.slots,
    )
    .await?;
    let ahead = ScratchSettings { size: settings.sandbox.resources().disk, ready_min: DISKS_READY };
    let disks = sandbar_node::HostDisks::open(store.clone(), data_dir, ahead, &earlier.sandboxes).await?;
    let config = sandbar_node::Config {
        id: "local".parse().expect("a valid node id"),
        journal_dir,
        engine_dir: data_dir.join("guests"),
        sandboxes_max: settings.limits.sandboxes,
        guest_tools,
        agent_command: vec!["/usr/bin/sandbar-agent".to_owned(), "--control-from-stdin".to_owned()],
        agent_port: sandbar_wire::envd::PORT,
        agent_patience: AGENT_PATIENCE,
        agent_version: sandbar_wire::envd::VERSION.to_owned(),
    };
    let parts = Parts { engine, network: Arc::new(network), disks: Arc::new(disks) };
    Ok(LocalNode::open(config, parts).await?)
}

/// Networks in all: those of sandboxes, those made ahead, and as many on their way out.
fn slots_max(limits: &Limits) -> u16 {
    let sandboxes = u16::try_from(limits.sandboxes).unwrap_or(u16::MAX);
    sandboxes.saturating_add(limits.networks_ready.saturating_mul(4))
}

/// Claims of address blocks by all servers of this host.
pub(crate) const RUNTIME_DIR: &str = "/run/sandbar";

/// Where `runsc` may be, best first.
pub(crate) fn runsc_candidates(dir: &Utf8Path) -> Vec<Utf8PathBuf> {
    let named = std::env::var("SANDBAR_RUNSC").ok().map(Utf8PathBuf::from);
    named.into_iter().chain(["runsc".into(), dir.join("runsc")]).collect()
}

/// The guest's agent, which the build puts beside the server.
fn agent_binary() -> anyhow::Result<Utf8PathBuf> {
    let own = std::env::current_exe().context("find own program")?;
    let own = Utf8PathBuf::try_from(own).context("own path is not UTF-8")?;
    let agent = own.with_file_name("sandbar-agent");
    anyhow::ensure!(agent.is_file(), "{agent} is missing; build both with `cargo xtask build`");
    Ok(agent)
}

/// The domain as clients want it: with the port unless that is the one of HTTPS.
fn with_port(domain: &str, port: u16) -> String {
    if port == 443 { domain.to_owned() } else { format!("{domain}:{port}") }
}
