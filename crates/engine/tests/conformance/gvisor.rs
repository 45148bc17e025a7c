//! gVisor, held to the suite; and what it alone must keep: limits, isolation, the file system of a guest.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sandbar_engine::{BootSpec, Config, Engine, Exit, Guest, GuestRecord};
use sandbar_model::{InstanceId, Mib, Resources, SandboxId};

use crate::inside;
use crate::network::Network;
use crate::suite::{PATIENCE, Stage, all_checks, end_of};

/// Size of a guest's disk.
const DISK: Mib = Mib(64);

pub(crate) struct GvisorStage {
    instance: InstanceId,
    engine: Arc<dyn Engine>,
    plots: Mutex<BTreeMap<SandboxId, Plot>>,
    work: tempfile::TempDir,
}

/// What one guest of a test stands on.
struct Plot {
    network: Arc<Network>,
    scratch: Utf8PathBuf,
    dir: Utf8PathBuf,
}

impl Drop for GvisorStage {
    /// Removes what a test that failed has left running.
    fn drop(&mut self) {
        let plots = std::mem::take(self.plots.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let (engine, instance) = (self.engine.clone(), self.instance.clone());
        let removing = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for (id, plot) in &plots {
                let record = GuestRecord {
                    version: GuestRecord::VERSION,
                    engine: "gvisor".to_owned(),
                    id: id.clone(),
                    dir: plot.dir.clone(),
                    scratch: plot.scratch.clone(),
                    cgroup: format!("sandbar-{instance}/{id}").into(),
                    process: None,
                };
                if let Err(error) = runtime.block_on(engine.remove(&record)) {
                    println!("{error:?}");
                }
            }
        };
        // A runtime cannot be waited for on a thread of another.
        let _ = std::thread::spawn(removing).join();
    }
}

impl Drop for Plot {
    fn drop(&mut self) {
        let _ = umount2(self.scratch.as_std_path(), MntFlags::MNT_DETACH);
    }
}

pub(crate) fn config(instance: InstanceId) -> Config {
    let mut runsc: Vec<Utf8PathBuf> = vec!["runsc".into(), "/var/lib/sandbar/bin/runsc".into()];
    if let Ok(path) = std::env::var("SANDBAR_RUNSC") {
        runsc.insert(0, path.into());
    }
    Config { instance, runsc, boot_limit: PATIENCE }
}

pub(crate) async fn open() -> Option<GvisorStage> {
    if std::env::var_os("SANDBAR_SKIP_ENGINE_TESTS").is_some() {
        println!("skipped: SANDBAR_SKIP_ENGINE_TESTS is set");
        return None;
    }
    assert!(nix::unistd::geteuid().is_root(), "the tests of gVisor need root");
    static NEXT: Mutex<u32> = Mutex::new(0);
    let number = {
        let mut next = NEXT.lock().unwrap();
        *next += 1;
        *next
    };
    // Two runs at once are told apart by their pid, the tests of one run by their number.
    let instance = format!("{:02}{:02}", std::process::id() % 100, number % 100);
    let instance: InstanceId = instance.parse().unwrap();
    let engine = sandbar_engine::open(config(instance.clone())).await.expect("open gVisor");
    Some(GvisorStage { instance, engine, plots: Mutex::default(), work: tempfile::tempdir().unwrap() })
}

all_checks!(open);

impl GvisorStage {
    fn network(&self, spec: &BootSpec) -> Arc<Network> {
        self.plots.lock().unwrap()[&spec.id].network.clone()
    }

    /// Tells the program in the guest to do what may end it, and waits for no answer.
    async fn tell(&self, spec: &BootSpec, order: &str) {
        let (network, order) = (self.network(spec), format!("{order}\n"));
        let telling = move || connect(&network).write_all(order.as_bytes()).unwrap();
        tokio::task::spawn_blocking(telling).await.unwrap();
    }

    /// Asks the program in the guest. `None` if it does not answer.
    async fn ask(&self, spec: &BootSpec, question: &str) -> Option<String> {
        let (network, question) = (self.network(spec), format!("{question}\n"));
        let asking = move || {
            let mut stream = connect(&network);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(question.as_bytes()).unwrap();
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            read.ok().filter(|bytes| *bytes > 0).map(|_| answer.trim_end().to_owned())
        };
        tokio::task::spawn_blocking(asking).await.unwrap()
    }

    async fn boot(&self, change: impl FnOnce(&mut BootSpec)) -> (BootSpec, Box<dyn Guest>) {
        let mut spec = self.spec();
        change(&mut spec);
        let guest = self.engine.boot(spec.clone()).await.unwrap_or_else(|error| panic!("{error:?}"));
        (spec, guest)
    }
}

/// Waits until the program in the guest listens. Blocks.
fn connect(network: &Network) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match network.connect(inside::PORT, Duration::from_secs(1)) {
            Ok(stream) => return stream,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("the guest does not listen: {error}"),
        }
    }
}

#[async_trait]
impl Stage for GvisorStage {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    async fn reopened(&self) -> Arc<dyn Engine> {
        sandbar_engine::open(config(self.instance.clone())).await.expect("open gVisor")
    }

    fn spec(&self) -> BootSpec {
        let mut plots = self.plots.lock().unwrap();
        let number = plots.len();
        let id: SandboxId = format!("i{number}").parse().unwrap();
        let dir = Utf8Path::from_path(self.work.path()).unwrap().join(id.as_str());
        let scratch = dir.join("scratch");
        fs::create_dir_all(&scratch).unwrap();
        let size = format!("size={}", DISK.bytes());
        let network = Arc::new(Network::new());
        mount(Some("none"), scratch.as_std_path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .unwrap();
        let lease = network.lease(number as u16);
        plots.insert(id.clone(), Plot { network, scratch: scratch.clone(), dir: dir.join("engine") });
        BootSpec {
            id,
            lease,
            root: root().to_owned(),
            scratch,
            dir: dir.join("engine"),
            resources: Resources { vcpus: NonZeroU32::MIN, memory: Mib(256), disk: DISK, pids: 16 },
            hostname: "guest".to_owned(),
            init: inside::init(),
            env: BTreeMap::from([("COLOUR".to_owned(), "light blue".to_owned())]),
            stdin: b"a secret\n".to_vec(),
        }
    }

    fn broken_spec(&self) -> BootSpec {
        BootSpec { init: vec!["/no/such/program".to_owned()], ..self.spec() }
    }

    async fn end(&self, spec: &BootSpec, code: i32) {
        self.tell(spec, &format!("exit {code}")).await;
    }

    async fn answers(&self, spec: &BootSpec) -> bool {
        self.ask(spec, "env COLOUR").await.as_deref() == Some("light blue")
    }

    fn cuts(&self) -> Vec<Duration> {
        [0, 1, 5, 20, 40, 60, 80, 100, 120, 140, 160, 200].map(Duration::from_millis).into()
    }

    fn left(&self, record: &GuestRecord) -> Vec<String> {
        let mut left = Vec::new();
        let dir = record.dir.as_str();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(dir) {
                left.push(format!("process {}: {line}", entry.file_name().to_string_lossy()));
            }
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let group = hierarchy.path().join(&record.cgroup);
            if group.exists() {
                left.push(format!("cgroup {}", group.display()));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(dir)).map(|line| format!("mount {line}")));
        for path in [record.dir.clone(), record.scratch.join("console.log")] {
            if path.exists() {
                left.push(format!("path {path}"));
            }
        }
        left
    }
}

/// The root directory of all guests: this binary and what it is linked with. Made once for each build of it.
fn root() -> &'static Utf8Path {
    static ROOT: OnceLock<Utf8PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let binary = std::env::current_exe().unwrap();
        let built = fs::metadata(&binary).unwrap();
        let name = format!("engine-root-{}-{}", built.ino(), built.mtime_nsec());
        let all = Utf8Path::new(env!("CARGO_TARGET_TMPDIR"));
        let root = all.join(&name);
        if root.exists() {
            return root;
        }
        for old in all.read_dir_utf8().unwrap().flatten() {
            if old.file_name().starts_with("engine-root-") {
                fs::remove_dir_all(old.path()).unwrap();
            }
        }
        let draft = all.join(format!("engine-root-draft{}", std::process::id()));
        fill_root(&draft, &binary);
        fs::rename(&draft, &root).unwrap();
        root
    })
}

fn fill_root(root: &Utf8Path, binary: &Path) {
    for dir in ["proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let listed = Command::new("ldd").arg(binary).output().expect("ldd").stdout;
    let listed = String::from_utf8(listed).unwrap();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(library, target).unwrap();
    }
    // Its mode goes with it.
    fs::copy(binary, root.join(inside::PATH.trim_start_matches('/'))).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_program_gets_its_input_environment_host_name_and_is_heard() {
    let Some(stage) = open().await else { return };
    let (spec, guest) = stage.boot(|_| {}).await;
    assert_eq!(stage.ask(&spec, "stdin").await.as_deref(), Some("a secret"));
    assert_eq!(stage.ask(&spec, "env COLOUR").await.as_deref(), Some("light blue"));
    assert_eq!(stage.ask(&spec, "env PATH").await.as_deref(), Some(""), "nothing of ours is inherited");
    assert_eq!(stage.ask(&spec, "read /proc/sys/kernel/hostname").await.as_deref(), Some("guest"));
    assert_eq!(stage.ask(&spec, "print heard").await.as_deref(), Some("ok"));
    assert!(String::from_utf8(guest.console(1000).await).unwrap().contains("heard"));
    assert_eq!(guest.console(3).await.len(), 3);
    guest.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_program_is_asked_to_end_where_there_is_time() {
    let Some(stage) = open().await else { return };
    let (spec, guest) = stage.boot(|_| {}).await;
    assert_eq!(stage.ask(&spec, "on-term").await.as_deref(), Some("ok"));
    assert_eq!(guest.stop(PATIENCE).await.unwrap(), Exit::Code(inside::CODE_ON_TERM));
    let (_, guest) = stage.boot(|_| {}).await;
    assert_eq!(guest.stop(PATIENCE).await.unwrap(), Exit::Code(128 + 15), "no handler");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sentry_has_no_rights_on_the_host() {
    let Some(stage) = open().await else { return };
    let (_, guest) = stage.boot(|_| {}).await;
    let pid = guest.record().process.unwrap().pid;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let has = |line: &str| status.lines().any(|other| other.replace('\t', " ") == line);
    assert!(has("CapEff: 0000000000000000") && has("CapPrm: 0000000000000000"), "{status}");
    assert!(has("Uid: 65534 65534 65534 65534") && has("NoNewPrivs: 1") && has("Seccomp: 2"), "{status}");
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "300");
    guest.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reason_of_a_failed_start_is_told() {
    let Some(stage) = open().await else { return };
    let error = stage.engine.boot(stage.broken_spec()).await.err().unwrap();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    let mut spec = stage.spec();
    spec.lease.guest_netns = "/run/netns/none".into();
    let error = stage.engine.boot(spec).await.err().unwrap();
    assert_eq!(error.to_string(), "open the network namespace");
    let spec = BootSpec { stdin: vec![0; BootSpec::STDIN_MAX + 1], ..stage.spec() };
    let error = stage.engine.boot(spec).await.err().unwrap();
    assert!(error.to_string().contains("standard input"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_stay_on_the_disk_of_the_guest_and_end_where_it_ends() {
    let Some(stage) = open().await else { return };
    let (spec, guest) = stage.boot(|_| {}).await;
    let before = guest.usage().await.unwrap().disk_bytes;
    assert_eq!(stage.ask(&spec, "fill /some 20").await.as_deref(), Some("20 ok"));
    let used = guest.usage().await.unwrap().disk_bytes - before;
    assert!((20 << 20..24 << 20).contains(&used), "{used}");
    let answer = stage.ask(&spec, "fill /more 100").await.unwrap();
    let (mib, error) = answer.split_once(' ').unwrap();
    assert_eq!(error, "StorageFull");
    assert!((38..=44).contains(&mib.parse::<u64>().unwrap()), "{answer}");
    assert!(!root().join("some").exists());
    assert!(stage.answers(&spec).await, "the guest goes on");
    guest.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guest_sees_its_memory_and_a_process_that_wants_more_dies_alone() {
    let Some(stage) = open().await else { return };
    let (spec, mut guest) = stage.boot(|_| {}).await;
    let memory = stage.ask(&spec, "read /proc/meminfo").await.unwrap();
    let total: String = memory.split('|').next().unwrap().split_whitespace().nth(1).unwrap().into();
    assert_eq!(total, (256 * 1024).to_string());
    assert_eq!(stage.ask(&spec, "hog 200").await.as_deref(), Some("had it all"));
    let answer = stage.ask(&spec, "hog 1000").await.unwrap();
    assert!(answer.starts_with("ended"), "{answer}");
    assert!(stage.answers(&spec).await, "the guest goes on");
    // What no process can be blamed for ends the guest.
    stage.tell(&spec, "fill /dev/shm/big 1000").await;
    assert_eq!(end_of(&mut guest).await, Exit::OutOfMemory);
    guest.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guest_sees_and_uses_its_processors() {
    let Some(stage) = open().await else { return };
    for vcpus in [1, 2] {
        let vcpus = NonZeroU32::new(vcpus).unwrap();
        let (spec, guest) = stage.boot(|spec| spec.resources.vcpus = vcpus).await;
        assert_eq!(stage.ask(&spec, "nproc").await, Some(vcpus.to_string()));
        let before = guest.usage().await.unwrap().cpu_time_us;
        let began = Instant::now();
        assert_eq!(stage.ask(&spec, "burn 1000").await.as_deref(), Some("ok"));
        let used = guest.usage().await.unwrap().cpu_time_us - before;
        // A period's worth may be used twice at the edges.
        let most = (began.elapsed().as_micros() as u64 + 200_000) * u64::from(vcpus.get());
        assert!(used > 10_000 && used <= most, "{used} us of {most}");
        guest.stop(Duration::ZERO).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_are_limited_by_the_guest_first_and_by_the_host_at_last() {
    let Some(stage) = open().await else { return };
    let (spec, mut guest) = stage.boot(|spec| spec.resources.memory = Mib(1024)).await;
    assert_eq!(stage.ask(&spec, "write /sys/fs/cgroup/pids/pids.max 40").await.as_deref(), Some("ok"));
    let answer = stage.ask(&spec, "forks 400").await.unwrap();
    let (count, error) = answer.split_once(' ').unwrap();
    assert_eq!(error, "EAGAIN");
    // gVisor counts late, so some more pass.
    assert!((20..=120).contains(&count.parse::<u32>().unwrap()), "{answer}");
    assert!(stage.answers(&spec).await, "the guest goes on");
    // Root in the guest can lift its own limit, and then meets the host's.
    assert_eq!(stage.ask(&spec, "write /sys/fs/cgroup/pids/pids.max 99999").await.as_deref(), Some("ok"));
    stage.tell(&spec, "forks 2000").await;
    end_of(&mut guest).await;
    guest.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_outlives_the_server_that_started_it() {
    let Some(stage) = open().await else { return };
    let spec = stage.spec();
    let plan = stage.engine.plan(&spec);
    let exe = std::env::current_exe().unwrap();
    let mut server = Command::new(exe)
        .args(["gvisor::server", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("SERVER_INSTANCE", stage.instance.as_str())
        .env("SERVER_NETNS", &spec.lease.guest_netns)
        .env("SERVER_DIR", &plan.dir)
        .env("SERVER_SCRATCH", &plan.scratch)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(server.stdout.take().unwrap());
    let record = loop {
        let mut line = String::new();
        assert_ne!(
            std::io::BufRead::read_line(&mut output, &mut line).unwrap(),
            0,
            "the server prints a record"
        );
        if let Ok(record) = serde_json::from_str::<GuestRecord>(&line) {
            break record;
        }
    };
    server.kill().unwrap();
    server.wait().unwrap();

    let mut guest = stage.reopened().await.adopt(&record).await.unwrap().expect("it still runs");
    assert!(stage.answers(&BootSpec { id: spec.id.clone(), ..spec.clone() }).await);
    stage.end(&spec, 5).await;
    let exit = end_of(&mut guest).await;
    assert!(matches!(exit, Exit::Code(5) | Exit::Unknown), "{exit:?}");
    guest.stop(Duration::ZERO).await.unwrap();
    assert_eq!(stage.left(&record), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_guests_start_at_once_and_leave_nothing() {
    let Some(stage) = open().await else { return };
    let specs: Vec<BootSpec> = (0..20).map(|_| stage.spec()).collect();
    let guests = futures::future::join_all(specs.iter().map(|spec| stage.engine.boot(spec.clone()))).await;
    let guests: Vec<_> = guests.into_iter().map(|guest| guest.unwrap()).collect();
    for spec in &specs {
        assert!(stage.answers(spec).await);
    }
    let records: Vec<_> = guests.iter().map(|guest| guest.record()).collect();
    let stopped = guests.into_iter().map(|guest| guest.stop(Duration::ZERO));
    assert!(futures::future::join_all(stopped).await.iter().all(Result::is_ok));
    for record in &records {
        assert_eq!(stage.left(record), Vec::<String>::new());
    }
}

/// What [`a_guest_outlives_the_server_that_started_it`] starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a process of its own, started by another test"]
async fn server() {
    let variable = |name| std::env::var(name).expect("set by the other test");
    let instance = variable("SERVER_INSTANCE").parse().unwrap();
    let engine = sandbar_engine::open(config(instance)).await.unwrap();
    let stage = GvisorStage {
        instance: variable("SERVER_INSTANCE").parse().unwrap(),
        engine,
        plots: Mutex::default(),
        work: tempfile::tempdir().unwrap(),
    };
    let mut spec = stage.spec();
    spec.lease.guest_netns = variable("SERVER_NETNS").into();
    spec.dir = variable("SERVER_DIR").into();
    spec.scratch = variable("SERVER_SCRATCH").into();
    // Undone now, as this process will not come to its end.
    drop(stage.plots.lock().unwrap().split_off(&spec.id));
    let work = stage.work.path().to_owned();
    fs::remove_dir_all(work).unwrap();
    let guest = stage.engine.boot(spec).await.unwrap();
    println!("\n{}", serde_json::to_string(&guest.record()).unwrap());
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_tells_that_guests_start() {
    let Some(stage) = open().await else { return };
    let work = Utf8Path::from_path(stage.work.path()).unwrap();
    let probe = sandbar_engine::probe(config(stage.instance.clone()), work).await.unwrap();
    assert_eq!(probe.capabilities.engine, "gvisor");
    assert_eq!(fs::read_dir(work).unwrap().count(), 0);
}
