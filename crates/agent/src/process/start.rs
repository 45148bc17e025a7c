//! From a start request to a live process.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use nix::sys::signal::Signal;
use sandbar_wire::envd::process::{ProcessConfig, StartRequest};
use sandbar_wire::envd::{Code, RpcError};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::end::end_event;
use super::environment::environment;
use super::fanout::{Event, Fanout};
use super::live::{InputSide, OutputSide, Process, follow, window};
use super::stdio::{Pipes, open_terminal};
use super::table::Table;
use crate::accounts::{Accounts, User};
use crate::child::{Identity, Launch, LaunchError, Session};
use crate::guest::Settings;
use crate::paths;
use crate::reaper::{Child, Children};

/// How long the end of a process is kept for those who ask late. Source: e2b-dev/infra packages/envd.
const RETENTION: std::time::Duration = std::time::Duration::from_secs(30);

/// File mode mask of user processes. Source: e2b-dev/infra packages/envd.
const UMASK: u32 = 0o022;

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Home(#[from] paths::ForeignHome),
    #[error("cwd '{0}' does not exist")]
    NoCwd(String),
    #[error("error starting process '{command}': open standard streams: {source}")]
    Streams { command: String, source: io::Error },
    #[error("error starting pty with command '{command}': open terminal: {source}")]
    Terminal { command: String, source: io::Error },
    #[error("error starting process '{command}': {}", chain(source))]
    Launch { command: String, source: LaunchError },
}

impl From<StartError> for RpcError {
    fn from(error: StartError) -> Self {
        RpcError::new(Code::InvalidArgument, error.to_string())
    }
}

fn chain(error: &LaunchError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A start request with everything that was looked up for it.
#[derive(Debug)]
pub(super) struct Plan {
    request: StartRequest,
    config: ProcessConfig,
    cwd: String,
    user: User,
    identity: Identity,
    envs: Vec<(OsString, OsString)>,
    cgroup_procs: Option<std::ffi::CString>,
}

impl Plan {
    /// Looks up directory, identity and variables. Reads the disk.
    pub(super) fn new(
        request: StartRequest,
        user: User,
        accounts: &Accounts,
        settings: &Settings,
    ) -> Result<Self, StartError> {
        let config = request.process.clone().unwrap_or_default();
        let cwd =
            paths::resolve(config.cwd.as_deref().unwrap_or(""), &user, settings.default_workdir.as_deref())?;
        if !Path::new(&cwd).exists() {
            return Err(StartError::NoCwd(cwd));
        }
        let identity = Identity { uid: user.uid, gid: user.gid, groups: accounts.groups_of(&user) };
        let envs = environment(&user, settings, &config.envs);
        let cgroup_procs = settings.pids_cgroup.as_ref().map(|cgroup| cgroup.procs.clone());
        Ok(Self { request, config, cwd, user, identity, envs, cgroup_procs })
    }

    fn command(&self) -> String {
        let mut words = vec![self.config.cmd.as_str()];
        words.extend(self.config.args.iter().map(String::as_str));
        words.join(" ")
    }
}

/// A process that runs, before anybody follows it.
#[derive(Debug)]
pub(super) struct Started {
    process: Arc<Process>,
    output: OutputSide,
    child: Child,
}

/// Starts the program. Blocks until it runs.
pub(super) fn start(plan: Plan, children: &Children) -> Result<Started, StartError> {
    let (program_side, session, input, output) = match &plan.request.pty {
        Some(pty) => {
            let size = window(pty.size.unwrap_or_default());
            let (terminal, program) = open_terminal(size, plan.user.uid)
                .map_err(|source| StartError::Terminal { command: plan.command(), source })?;
            let terminal = Arc::new(terminal);
            let output = OutputSide::Terminal(terminal.clone());
            (vec![program], Session::Terminal, InputSide::Terminal(terminal), output)
        }
        None => {
            // Absent means yes: clients before 2.2 did not know the field.
            let pipes = Pipes::open(plan.request.stdin.unwrap_or(true))
                .map_err(|source| StartError::Streams { command: plan.command(), source })?;
            let output = OutputSide::Pipes { stdout: pipes.stdout, stderr: pipes.stderr };
            let input = InputSide::Pipe(Mutex::new(pipes.stdin));
            (Vec::from(pipes.program), Session::Inherited, input, output)
        }
    };
    let mut argv = vec![OsString::from(&plan.config.cmd)];
    argv.extend(plan.config.args.iter().map(OsString::from));
    let stdio = [0, 1, 2].map(|at: usize| program_side[at.min(program_side.len() - 1)].as_fd());
    let launch = Launch {
        program: OsStr::new(&plan.config.cmd),
        argv: &argv,
        envs: &plan.envs,
        cwd: OsStr::new(&plan.cwd),
        identity: &plan.identity,
        umask: UMASK,
        session,
        stdio,
        cgroup_procs: plan.cgroup_procs.as_deref(),
    };
    let child =
        children.spawn(&launch).map_err(|source| StartError::Launch { command: plan.command(), source })?;
    let process = Process {
        pid: child.pid,
        config: plan.config,
        tag: plan.request.tag,
        fanout: Fanout::default(),
        input,
        cut_short: CancellationToken::new(),
        finished: CancellationToken::new(),
    };
    Ok(Started { process: Arc::new(process), output, child })
}

impl Started {
    /// Makes the process known with its first listener, and returns what to run until its end is forgotten.
    pub(super) fn into_life(
        self,
        table: Arc<Table>,
        children: Children,
        deadline: Option<Instant>,
    ) -> (u32, mpsc::Receiver<Event>, impl Future<Output = ()> + Send) {
        let Self { process, output, child } = self;
        let pid = process.pid;
        let events = process.fanout.listen();
        let start = table.insert(process.clone());
        let life = async move {
            let kill = || {
                let _ = children.signal(pid, Signal::SIGKILL); // gone already is what is wanted
            };
            let exit = follow(&process, output, child.exit, deadline, kill).await;
            let end = end_event(exit);
            tracing::debug!(pid, status = end.status, "process ended");
            table.finish(pid, end.clone());
            process.fanout.tell(Event::End(end)).await;
            drop(process);
            tokio::time::sleep(RETENTION).await;
            table.forget(pid, start);
        };
        (pid, events, life)
    }
}
