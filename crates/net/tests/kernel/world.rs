//! What a test needs around it: an instance of its own and an internet of its own.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use camino::Utf8PathBuf;
use nix::fcntl::{Flock, FlockArg};
use sandbar_model::{InstanceId, SlotIndex};
use sandbar_net::{Config, Networks, leftovers, open};

use crate::probe::{self, Server};

/// The host's own address in the internet of tests (RFC 5737, TEST-NET-3).
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// A web server.
pub(crate) const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 80), 80);
/// A resolver.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
/// A server with a private address, which the host can reach.
pub(crate) const PRIVATE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 255, 254, 80), 80);

const RUNTIME_DIR: &str = "/run/sandbar";
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// A fresh instance; nothing of it may be left at the end.
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    data_dir: tempfile::TempDir,
}

impl Instance {
    pub(crate) fn new() -> Self {
        let mut random = [0; 4];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).expect("randomness");
        let data_dir = tempfile::tempdir().expect("a temp dir");
        Self { id: InstanceId::from_random(random), data_dir }
    }

    pub(crate) fn config(&self) -> Config {
        let data_dir = Utf8PathBuf::from_path_buf(self.data_dir.path().to_owned()).expect("ASCII");
        Config {
            instance: self.id.clone(),
            data_dir,
            runtime_dir: RUNTIME_DIR.into(),
            slots_ready_min: 1,
            slots_ready_max: 2,
            slots_max: 16,
            nameservers: vec![RESOLVER.into()],
        }
    }

    pub(crate) async fn open(&self, in_use: &[SlotIndex]) -> Networks {
        open(self.config(), in_use.to_vec()).await.expect("open networks")
    }

    /// What carries the instance's name on the host, without what waits for a lease.
    pub(crate) async fn left(&self) -> Vec<String> {
        leftovers(&self.id).await.expect("search the host")
    }

    #[track_caller]
    pub(crate) fn check_clean(&self, left: Vec<String>) {
        assert_eq!(left, Vec::<String>::new(), "left of instance {}", self.id);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // A failed test has closed nothing. Opening again removes what is left, as after a crash.
        let config = self.config();
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                if let Ok(networks) = open(config, Vec::new()).await {
                    networks.close().await;
                }
            });
        });
        let _ = cleaning.join();
    }
}

/// An internet behind the host, in a namespace of its own.
pub(crate) struct World {
    netns: String,
    link: String,
    _servers: Vec<Server>,
    forwarded_before: Option<String>,
    // Last, so that the next test starts when all else is gone.
    _serial: Flock<File>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let serial = tokio::task::spawn_blocking(|| {
            // Any file that all runs have in common will do.
            let file = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).expect("open");
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).expect("lock")
        })
        .await
        .expect("no panic");
        let alone = !std::path::Path::new(RUNTIME_DIR).exists();
        let netns = format!("sbtest-{}", std::process::id());
        let link = format!("sbt{}", std::process::id());
        let mut world = Self {
            netns: netns.clone(),
            link: link.clone(),
            _servers: Vec::new(),
            forwarded_before: alone.then(|| std::fs::read_to_string(IP_FORWARD).expect("read")),
            _serial: serial,
        };
        ip(&format!("netns add {netns}"));
        ip(&format!("link add {link} type veth peer name world netns {netns}"));
        ip(&format!("addr add {HOST}/24 dev {link}"));
        ip(&format!("link set {link} up"));
        ip(&format!("-n {netns} link set lo up"));
        for address in [*WEB.ip(), RESOLVER] {
            ip(&format!("-n {netns} addr add {address}/24 dev world"));
        }
        ip(&format!("-n {netns} addr add {}/32 dev lo", PRIVATE.ip()));
        ip(&format!("-n {netns} link set world up"));
        ip(&format!("-n {netns} route add default via {HOST}"));
        ip(&format!("route add {}/32 via {} dev {link}", PRIVATE.ip(), WEB.ip()));
        let path = format!("/run/netns/{netns}");
        world._servers = vec![
            Server::tcp(probe::within(&path, || TcpListener::bind(WEB).expect("bind"))),
            Server::tcp(probe::within(&path, || TcpListener::bind(PRIVATE).expect("bind"))),
            Server::dns(probe::within(&path, || UdpSocket::bind((RESOLVER, 53)).expect("bind"))),
        ];
        world
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // With them go the link and the routes through it.
        let _ = Command::new("ip").args(["link", "del", &self.link]).status();
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
        let alone = !std::path::Path::new(RUNTIME_DIR).exists();
        if let Some(before) = self.forwarded_before.as_ref().filter(|_| alone && !std::thread::panicking()) {
            let after = std::fs::read_to_string(IP_FORWARD).expect("read");
            assert_eq!(&after, before, "ip_forward is put back");
        }
    }
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) -> String {
    run(Command::new("ip").args(words.split_whitespace()))
}

/// Runs `nft` with these words.
pub(crate) fn nft(words: &str) -> String {
    run(Command::new("nft").arg(words))
}

/// All IPv4 addresses of the host but loopback.
pub(crate) fn host_addresses() -> Vec<Ipv4Addr> {
    let addresses = ip("-4 -o addr show");
    let words = addresses.lines().filter_map(|line| line.split_whitespace().nth(3));
    let addresses = words.filter_map(|word| word.split('/').next()?.parse().ok());
    addresses.filter(|address: &Ipv4Addr| !address.is_loopback()).collect()
}

/// Waits for a condition, at most ten seconds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("run a program; are iproute2 and nftables installed?");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
