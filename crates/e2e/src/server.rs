//! One `sandbar serve`, from start to a clean end.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;

use crate::{Api, Traces, until_sync};

/// The first start on a machine builds the stock template.
const READY_WITHIN: Duration = Duration::from_secs(900);
/// All sandboxes are stopped first.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// What the kernel finishes on its own after the server's exit, such as the end of a namespace's links.
const CLEAN_WITHIN: Duration = Duration::from_secs(5);

/// What a server writes to `server.json` once it is ready.
#[derive(Debug, Deserialize)]
struct ServerFile {
    pid: i32,
    listen: Vec<SocketAddr>,
    domain: String,
}

/// A server with a data directory of its own. Dropping it ends it and removes whatever it left.
#[derive(Debug)]
pub struct Server {
    child: Child,
    data: TempDir,
    log: PathBuf,
    instance: String,
    address: SocketAddr,
    domain: String,
    api_key: String,
}

impl Server {
    /// Starts a server on a new data directory and waits until it is ready.
    ///
    /// # Errors
    /// When there is no binary, or the server ends or is not ready in time; its log is part of the error.
    pub fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// [`Server::start`] with these lines in its settings file.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(settings: &str) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("sandbar-e2e-").tempdir()?;
        fs::write(data.path().join("sandbar.toml"), settings)?;
        Self::start_in(data)
    }

    fn start_in(data: TempDir) -> Result<Self> {
        let log = data.path().with_extension("log");
        let mut child = spawn(data.path(), &log)?;
        match ready(&mut child, data.path()) {
            Ok((file, instance)) => {
                let address = *file.listen.first().context("the server listens nowhere")?;
                let api_key = fs::read_to_string(data.path().join("api-key"))?.trim().to_owned();
                Ok(Self { child, log, instance, address, domain: file.domain, api_key, data })
            }
            Err(error) => {
                // Nothing may stay behind, whatever the reason was; the first error is the one to report.
                drop(child.kill());
                drop(child.wait());
                if let Ok(instance) = instance_of(data.path()) {
                    drop(Traces::sweep(&instance, data.path()));
                }
                let said = tail(&log);
                drop(fs::remove_file(&log));
                Err(error.context(format!("log of the server:\n{said}")))
            }
        }
    }

    /// Ends the server at once, as a crash does, and starts it again on the same data directory.
    ///
    /// `between` runs while no server does.
    ///
    /// # Errors
    /// As [`Server::start`], and those of `between`.
    pub fn crash_and_restart(&mut self, between: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        ensure!(status.signal() == Some(Signal::SIGKILL as i32), "the server had ended before: {status}");
        between(self)?;
        self.launch_again()
    }

    /// Ends the server in order and starts it again on the same data directory.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.terminate()?;
        self.launch_again()
    }

    fn launch_again(&mut self) -> Result<()> {
        fs::remove_file(self.data.path().join("server.json")).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        self.child = spawn(self.data.path(), &self.log)?;
        let (file, instance) = ready(&mut self.child, self.data.path())
            .with_context(|| format!("log of the server:\n{}", tail(&self.log)))?;
        ensure!(instance == self.instance, "the instance id changed from {} to {instance}", self.instance);
        self.address = *file.listen.first().context("the server listens nowhere")?;
        self.domain = file.domain;
        Ok(())
    }

    /// Ends the server as a service manager does, and checks that nothing of it is left on the host.
    ///
    /// # Errors
    /// When it does not end in time and in order, when something is left, or when its log has complaints.
    pub fn stop(mut self) -> Result<()> {
        let status = self.terminate()?;
        ensure!(status.success(), "the server ended with {status}; its log:\n{}", tail(&self.log));
        let traces = self.traces_after_end()?;
        ensure!(traces.is_empty(), "left on the host: {traces:#?}");
        let panics = self.log_lines("panicked at")?;
        ensure!(panics.is_empty(), "in the log: {panics:#?}");
        Ok(())
    }

    fn terminate(&mut self) -> Result<ExitStatus> {
        kill(self.pid(), Signal::SIGTERM)?;
        until_sync("end of the server after SIGTERM", STOPPED_WITHIN, || Ok(self.child.try_wait()?))
            .with_context(|| format!("log of the server:\n{}", tail(&self.log)))
    }

    fn traces_after_end(&self) -> Result<Traces> {
        let gone = until_sync("clean host", CLEAN_WITHIN, || {
            let traces = self.traces()?;
            Ok(traces.is_empty().then_some(traces))
        });
        gone.or_else(|_| self.traces())
    }

    /// What this instance has on the host now.
    ///
    /// # Errors
    /// When the host cannot be read.
    pub fn traces(&self) -> Result<Traces> {
        Traces::find(&self.instance, self.data.path())
    }

    /// The lines of the server's log that contain `text`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log_lines(&self, text: &str) -> Result<Vec<String>> {
        let log = fs::read(&self.log)?;
        let log = String::from_utf8_lossy(&log);
        Ok(log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect())
    }

    /// The server's process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"))
    }

    /// Where it listens, in IPv4.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The domain of its sandboxes, with the port.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The key of its first team.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// The id in all its names on the host.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// The certificate of its own authority.
    pub fn ca(&self) -> PathBuf {
        self.data.path().join("tls/ca.pem")
    }

    /// The host's certificates and its own in one file.
    pub fn ca_bundle(&self) -> PathBuf {
        self.data.path().join("tls/bundle.pem")
    }

    /// A client of its control plane.
    pub fn api(&self) -> Api {
        Api::new(self.address, &self.api_key)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` there is nothing to do; after a failed test whatever is left goes, so that the next one is
        // not disturbed. Errors here would only hide the one that is being reported.
        if let Ok(None) = self.child.try_wait() {
            drop(self.terminate());
            drop(self.child.kill());
            drop(self.child.wait());
        }
        drop(Traces::sweep(&self.instance, self.data.path()));
        drop(fs::remove_file(&self.log));
    }
}

fn spawn(data: &Path, log: &Path) -> Result<Child> {
    let binary = binary();
    ensure!(
        binary.exists(),
        "no server at {}: run `cargo xtask build`, or set SANDBAR_BIN",
        binary.display()
    );
    let log = File::options().create(true).append(true).open(log)?;
    Command::new(&binary)
        .arg("serve")
        .arg("--data-dir")
        .arg(data)
        .args(["--listen", "127.0.0.1:0"])
        .arg("--artifacts-dir")
        .arg(artifacts())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {}", binary.display()))
}

fn ready(child: &mut Child, data: &Path) -> Result<(ServerFile, String)> {
    let pid = i32::try_from(child.id())?;
    let file = until_sync("server.json", READY_WITHIN, || {
        if let Some(status) = child.try_wait()? {
            bail!("the server ended with {status}");
        }
        // Written by rename, but an old one of the same directory may still be there.
        let file =
            fs::read(data.join("server.json")).ok().map(|text| serde_json::from_slice::<ServerFile>(&text));
        Ok(file.transpose()?.filter(|file| file.pid == pid))
    })?;
    Ok((file, instance_of(data)?))
}

fn instance_of(data: &Path) -> Result<String> {
    let instance =
        fs::read_to_string(data.join("instance")).context("read the instance id")?.trim().to_owned();
    // It becomes part of what is swept from the host: an empty one would match everything.
    if instance.len() != 4 {
        return Err(anyhow!("instance id {instance:?} does not have four characters"));
    }
    Ok(instance)
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// `$SANDBAR_BIN`, or the release binary of this workspace.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("SANDBAR_BIN").map_or_else(|| target().join("release/sandbar"), PathBuf::from)
}

/// Shared by all runs on a machine, so that stock templates are built once.
fn artifacts() -> PathBuf {
    std::env::var_os("SANDBAR_ARTIFACTS_DIR")
        .map_or_else(|| "/var/cache/sandbar/artifacts".into(), PathBuf::from)
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/e2e is two levels deep");
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), |target| workspace.join(target))
}
