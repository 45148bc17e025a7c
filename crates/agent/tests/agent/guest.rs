//! A guest for one test: namespaces, private directories, and the agent as process 1.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{self, Answer, Events};

/// Makes the private directories, then becomes the agent. `$0` is the directory of the test, `$1` the agent.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
test_dir=$0 agent=$1; shift
mkdir "$test_dir/fs"; mount -t tmpfs -o mode=755 tmpfs "$test_dir/fs"; cd "$test_dir/fs"
mkdir -p home/user/demo root run tmp etc etc.work local local.work bin
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$PWD/etc,workdir=$PWD/etc.work" /etc
mount -t overlay overlay -o "lowerdir=/usr/local,upperdir=$PWD/local,workdir=$PWD/local.work" /usr/local
cat > /etc/passwd <<END
root:x:0:0:root:/root:/bin/bash
user:x:1000:1000::/home/user:/bin/bash
helper:x:1001:1001::/tmp:/bin/sh
stranger:x:1002:1002::/tmp:/bin/sh
END
cat > /etc/group <<END
root:x:0:
tty:x:5:
sudo:x:27:user,helper
user:x:1000:
extra:x:1010:user
helper:x:1001:
stranger:x:1002:
END
echo '# rc' > home/user/.bashrc
chmod 644 home/user/.bashrc; chmod 1777 tmp; chown -R 1000:1000 home/user
cp "$agent" bin/agent
rm -f /usr/local/bin/sudo; ln -s "$PWD/bin/agent" /usr/local/bin/sudo
mount --bind home /home; mount --bind root /root; mount --bind run /run
mount --bind tmp /tmp
mount -t tmpfs tmpfs /sys/fs/cgroup
test "$(readlink /proc/1/ns/net)" = "$HOST_NET" || ip link set lo up
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec "$PWD/bin/agent" --listen 127.0.0.1:0 --port-file "$test_dir/port" "$@"
"#;

/// How long anything in a test may take that should take no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The secret that guests of [`Guest::hosted`] are booted with.
pub(crate) const CONTROL_SECRET: &str = "5ec3e7";

/// A running guest; it ends with the test.
pub(crate) struct Guest {
    unshare: Child,
    directory: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Guest {
    /// A guest whose default user is `user`, without a token.
    pub(crate) fn start() -> Self {
        let guest = Self::boot(false);
        assert_eq!(guest.init(&json!({"defaultUser": "user"})).status, 204);
        guest
    }

    /// A guest as a host boots it: with a control secret.
    pub(crate) fn hosted() -> Self {
        Self::boot(true)
    }

    /// A guest that was told nothing yet.
    pub(crate) fn fresh() -> Self {
        Self::boot(false)
    }

    /// A guest with a network of its own, which the calling thread moves into.
    pub(crate) fn networked(arguments: &[&str]) -> Self {
        let guest = Self::boot_with(false, &["--net"], arguments);
        assert_eq!(guest.init(&json!({"defaultUser": "user"})).status, 204);
        guest
    }

    fn boot(hosted: bool) -> Self {
        Self::boot_with(hosted, &[], &[])
    }

    fn boot_with(hosted: bool, namespaces: &[&str], arguments: &[&str]) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make namespaces: run them as root");
        // Not below /tmp, which the guest has for itself.
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"])
            .args(namespaces)
            .args(["bash", "-c", SCRIPT])
            .arg(directory.path())
            .arg(env!("CARGO_BIN_EXE_sandbar-agent"))
            .args(arguments)
            .env("HOST_NET", std::fs::read_link("/proc/self/ns/net").unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        if hosted {
            command.arg("--control-from-stdin");
        }
        if std::env::var_os("SANDBAR_AGENT_LOG").is_none() {
            command.stderr(Stdio::null());
        }
        let mut unshare = command.spawn().unwrap();
        let mut stdin = unshare.stdin.take().unwrap();
        if hosted {
            let line = json!({"control_secret": CONTROL_SECRET, "disk_total_bytes": 1_000_000_000});
            writeln!(stdin, "{line}").unwrap();
        }
        let port_file = directory.path().join("port");
        let port = wait_for("the agent's port", || std::fs::read_to_string(&port_file).ok()?.parse().ok());
        if namespaces.contains(&"--net") {
            let network = std::fs::File::open(format!("/proc/{}/ns/net", unshare.id())).unwrap();
            nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        }
        Self { unshare, directory, port }
    }

    /// Output of a shell script in the guest, run by root. It must succeed.
    pub(crate) fn run_root(&self, script: &str) -> String {
        self.run_as("root", script)
    }

    /// Output of a shell script in the guest, run by `user`. It must succeed.
    pub(crate) fn run(&self, script: &str) -> String {
        self.run_as("user", script)
    }

    pub(crate) fn run_as(&self, user: &str, script: &str) -> String {
        let ran = self.shell_as(user, script).finish();
        assert_eq!(ran.exit_code(), 0, "{script}: {ran:?}");
        ran.stdout()
    }

    /// `S(cmd)` of the contract: a login shell without input.
    pub(crate) fn shell(&self, script: &str) -> Events {
        self.start_with(
            &[],
            json!({"process": {"cmd": "/bin/bash", "args": ["-l", "-c", script]}, "stdin": false}),
        )
    }

    pub(crate) fn shell_as(&self, user: &str, script: &str) -> Events {
        let authorization = client::basic(user);
        let request = json!({"process": {"cmd": "/bin/bash", "args": ["-l", "-c", script]}, "stdin": false});
        self.start_with(&[("authorization", &authorization)], request)
    }

    pub(crate) fn start_with(&self, headers: &[(&str, &str)], request: Value) -> Events {
        Events::open(self.port, "/process.Process/Start", headers, &request)
    }

    pub(crate) fn connect(&self, pid: u64) -> Events {
        Events::open(self.port, "/process.Process/Connect", &[], &json!({"process": {"pid": pid}}))
    }

    /// A unary call in JSON.
    pub(crate) fn call(&self, path: &str, request: Value) -> Answer {
        self.call_with(&[], path, request)
    }

    pub(crate) fn call_with(&self, headers: &[(&str, &str)], path: &str, request: Value) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        client::send(self.port, "POST", path, &all, request.to_string().as_bytes())
    }

    pub(crate) fn process(&self, method: &str, request: Value) -> Answer {
        self.call(&format!("/process.Process/{method}"), request)
    }

    pub(crate) fn filesystem(&self, method: &str, request: Value) -> Answer {
        self.call(&format!("/filesystem.Filesystem/{method}"), request)
    }

    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        client::send(self.port, "GET", path, headers, b"")
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        client::send(self.port, "POST", path, headers, body)
    }

    pub(crate) fn init(&self, request: &Value) -> Answer {
        self.post("/init", &[], request.to_string().as_bytes())
    }

    pub(crate) fn init_as_host(&self, request: &Value) -> Answer {
        self.post("/init", &[("x-sandbar-control", CONTROL_SECRET)], request.to_string().as_bytes())
    }

    /// A directory that the guest's root and the test share.
    pub(crate) fn shared_directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Asks the guest's first process to end, and waits until it has.
    pub(crate) fn terminate(&mut self) {
        let unshare = self.unshare.id();
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        let first = nix::unistd::Pid::from_raw(children.trim().parse().unwrap());
        nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGTERM).unwrap();
        wait_for("the guest to end", || self.unshare.try_wait().unwrap());
    }

    /// Ids of the processes that the agent lists.
    pub(crate) fn listed(&self) -> Vec<u64> {
        let answer = self.process("List", json!({})).json();
        let processes = answer["processes"].as_array().cloned().unwrap_or_default();
        processes.iter().map(|process| process["pid"].as_u64().unwrap()).collect()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // The kernel ends everything in the namespaces with their first process, and their mounts with them.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < give_up, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
