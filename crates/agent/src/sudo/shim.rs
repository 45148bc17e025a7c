//! What the caller starts: understands the command line, asks the agent, relays, and ends as the command ends.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, killpg, raise, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{geteuid, getgid, getgroups, getpgrp, getuid};
use sandbar_wire::envd::VERSION;

use super::SOCKET;
use super::environment::{Caller, SECURE_PATH, environment, script, shell_of};
use super::message::{Line, Run, ToSession, ToShim};
use super::options::{Invocation, Request, Shell, UsageError, parse};
use super::server::may;
use super::terminal::CallersTerminal;
use crate::accounts::{Accounts, User};

const USAGE: &str = "\
usage: sudo -h | -K | -k | -V
usage: sudo -v [-knS]
usage: sudo -l [-knS]
usage: sudo [-bEHknPS] [-g group] [-u user] [-D directory] [VAR=value] [-i | -s] [command [arg ...]]";

/// Bytes relayed at once.
const RELAY_BYTES: usize = 16 * 1024;

/// Signals that are the command's.
const PASSED: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTSTP,
];

/// How the shim ends.
enum End {
    Code(i32),
    Signal(i32),
}

/// Why a request does not even begin.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error("{0}\n{USAGE}")]
    Usage(#[from] UsageError),
    #[error("unknown user {0}")]
    UnknownUser(String),
    #[error("unknown group {0}")]
    UnknownGroup(String),
    #[error("{0}: command not found")]
    CommandNotFound(String),
    #[error("unable to execute {0}: {1}")]
    Execute(String, io::Error),
    #[error("unable to reach the agent at {SOCKET}: {0}")]
    Unreachable(io::Error),
    #[error("lost the agent: {0}")]
    Lost(io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Entry of the process.
pub(super) fn main() -> ! {
    let end = run().unwrap_or_else(|error| {
        drop(writeln!(io::stderr(), "sudo: {error}"));
        End::Code(1)
    });
    match end {
        End::Code(code) => std::process::exit(code),
        End::Signal(number) => die_of(number),
    }
}

fn run() -> Result<End, ShimError> {
    let invocation = match parse(std::env::args_os().skip(1))? {
        Request::Run(invocation) => invocation,
        other => return Ok(answer_alone(&other)),
    };
    let accounts = Accounts::load();
    let wanted = prepare(&invocation, &accounts)?;
    if geteuid().is_root() {
        return Err(execute_here(&wanted));
    }
    ask_agent(wanted)
}

/// What needs no command.
fn answer_alone(request: &Request) -> End {
    let accounts = Accounts::load();
    let own = accounts.user_of(getuid().as_raw());
    let name = accounts.user_name(getuid().as_raw());
    let allowed = getuid().is_root() || own.is_some_and(|own| may(own, &accounts));
    let host = nix::unistd::gethostname().map(|host| host.to_string_lossy().into_owned()).unwrap_or_default();
    let text = match request {
        Request::Help => USAGE.to_owned(),
        Request::Version => format!("Sudo version 1.9 (sandbar-agent {VERSION})"),
        Request::List if allowed => {
            format!("User {name} may run the following commands on {host}:\n    (ALL : ALL) NOPASSWD: ALL")
        }
        Request::List | Request::Nothing if !allowed => {
            drop(writeln!(io::stderr(), "Sorry, user {name} may not run sudo on {host}."));
            return End::Code(1);
        }
        _ => return End::Code(0),
    };
    drop(writeln!(io::stdout(), "{text}"));
    End::Code(0)
}

/// Everything about the command except how it is reached.
fn prepare(invocation: &Invocation, accounts: &Accounts) -> Result<Run, ShimError> {
    let target = find_user(invocation.user.as_deref(), accounts)?;
    let gid = match &invocation.group {
        None => target.gid,
        Some(group) => find_group(group, accounts)?,
    };
    let groups = if invocation.preserve_groups {
        getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect()
    } else {
        accounts.groups_of(&target)
    };
    let envs: Vec<_> = std::env::vars_os().collect();
    let (program, argv) = match invocation.shell {
        None => {
            let name = &invocation.command[0];
            (
                find_program(name).ok_or_else(|| ShimError::CommandNotFound(lossy(name)))?,
                invocation.command.clone(),
            )
        }
        Some(kind) => {
            let program = match kind {
                Shell::Login => PathBuf::from(shell_of(&target)),
                Shell::Plain => {
                    let own = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
                    own.map_or_else(|| PathBuf::from(shell_of(&target)), PathBuf::from)
                }
            };
            let mut argv0 = program.file_name().unwrap_or(OsStr::new("sh")).to_owned();
            if kind == Shell::Login {
                let mut login = OsString::from("-");
                login.push(argv0);
                argv0 = login;
            }
            let mut argv = vec![argv0];
            if !invocation.command.is_empty() {
                argv.extend(["-c".into(), script(&invocation.command)]);
            }
            (program, argv)
        }
    };
    let caller_name = accounts.user_name(getuid().as_raw());
    let caller = Caller { name: &caller_name, uid: getuid().as_raw(), gid: getgid().as_raw(), envs: &envs };
    let mut told = program.as_os_str().to_owned();
    for argument in argv.iter().skip(1) {
        told.push(" ");
        told.push(argument);
    }
    let envs = environment(invocation, &caller, &target, told);
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let cwd = match (&invocation.directory, invocation.shell) {
        (Some(directory), _) => here.join(directory),
        (None, Some(Shell::Login)) if Path::new(&target.home).is_dir() => PathBuf::from(&target.home),
        (None, _) => here,
    };
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::sys::stat::umask(umask);
    Ok(Run {
        uid: target.uid,
        gid,
        groups,
        program: program.into_os_string().into_vec(),
        argv: argv.into_iter().map(OsString::into_vec).collect(),
        envs: envs.into_iter().map(|(key, value)| (key.into_vec(), value.into_vec())).collect(),
        cwd: cwd.into_os_string().into_vec(),
        umask: umask.bits() | 0o022,
        terminal: None,
        background: invocation.background,
    })
}

fn find_user(named: Option<&OsStr>, accounts: &Accounts) -> Result<User, ShimError> {
    let root = || User { name: "root".into(), uid: 0, gid: 0, home: "/root".into(), shell: String::new() };
    let Some(named) = named else {
        return Ok(accounts.user_of(0).cloned().unwrap_or_else(root));
    };
    let name = lossy(named);
    let found = match name.strip_prefix('#') {
        Some(uid) => uid.parse().ok().map(|uid| {
            // A number need not have an entry.
            accounts.user_of(uid).cloned().unwrap_or_else(|| User { uid, gid: uid, ..root() })
        }),
        None => accounts.user(&name).cloned(),
    };
    found.ok_or(ShimError::UnknownUser(name))
}

fn find_group(named: &OsStr, accounts: &Accounts) -> Result<u32, ShimError> {
    let name = lossy(named);
    let found = match name.strip_prefix('#') {
        Some(gid) => gid.parse().ok(),
        None => accounts.gid(&name),
    };
    found.ok_or(ShimError::UnknownGroup(name))
}

fn find_program(name: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.as_bytes().contains(&b'/') {
        let path = std::path::absolute(name).ok()?;
        // A directory we may not enter is no reason: root may.
        return (is_program(&path)
            || fs::metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied))
        .then_some(path);
    }
    SECURE_PATH.split(':').map(|directory| Path::new(directory).join(name)).find(|path| is_program(path))
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// Root needs nobody's help: the command replaces us, in our session. Returns only when that failed.
fn execute_here(wanted: &Run) -> ShimError {
    use std::os::unix::process::CommandExt as _;
    let program = OsStr::from_bytes(&wanted.program);
    let failed = |error: io::Error| ShimError::Execute(lossy(program), error);
    let become_target = || -> io::Result<()> {
        let groups: Vec<_> = wanted.groups.iter().copied().map(nix::unistd::Gid::from_raw).collect();
        nix::unistd::setgroups(&groups)?;
        nix::unistd::setgid(wanted.gid.into())?;
        nix::unistd::setuid(wanted.uid.into())?;
        std::env::set_current_dir(OsStr::from_bytes(&wanted.cwd))
    };
    let mut command = std::process::Command::new(program);
    if let Some((argv0, arguments)) = wanted.argv.split_first() {
        command
            .arg0(OsStr::from_bytes(argv0))
            .args(arguments.iter().map(|argument| OsStr::from_bytes(argument)));
    }
    command.env_clear();
    command.envs(wanted.envs.iter().map(|(key, value)| (OsStr::from_bytes(key), OsStr::from_bytes(value))));
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(wanted.umask));
    // SAFETY: ends the parent; the child, which has one thread as we had, goes on.
    if wanted.background && !matches!(unsafe { nix::unistd::fork() }, Ok(nix::unistd::ForkResult::Child)) {
        std::process::exit(0);
    }
    match become_target() {
        Ok(()) => failed(command.exec()),
        Err(error) => failed(error),
    }
}

fn ask_agent(mut wanted: Run) -> Result<End, ShimError> {
    let line = Line::new(UnixStream::connect(SOCKET).map_err(ShimError::Unreachable)?);
    let stdio_are_terminals =
        [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()];
    let terminal = CallersTerminal::find();
    wanted.terminal = terminal.as_ref().map(|_| stdio_are_terminals);
    let background = wanted.background;
    // Blocked before the command exists, so that none is lost on its way there.
    let signals = take_signals().map_err(ShimError::Lost)?;
    let asked = line
        .send(&ToSession::Run(Box::new(wanted)))
        .and_then(|()| line.send_fds(&[io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()]));
    // Who refuses does not read: its answer counts, not that we could not finish asking.
    let first = line.receive().or_else(|lost| asked.and(Err(lost))).map_err(ShimError::Lost)?;
    let command_terminal = match first {
        ToShim::Refused(message) => return Err(ShimError::Refused(message)),
        ToShim::Terminal => {
            let [master] = line.receive_fds::<1>().map_err(ShimError::Lost)?;
            Some(master)
        }
        _ => None,
    };
    let typed = stdio_are_terminals[0] && !background;
    let relay = terminal.zip(command_terminal).map(|(callers, command)| Relay {
        raw: typed && stdio_are_terminals[1],
        typed,
        callers,
        command,
        to_command: Vec::new(),
        to_caller: Vec::new(),
        hung_up: false,
    });
    if let Some(relay) = &relay {
        relay.callers.copy_to(&relay.command, relay.raw);
        line.send(&ToSession::Ready).map_err(ShimError::Lost)?;
        match line.receive().map_err(ShimError::Lost)? {
            ToShim::Refused(message) => return Err(ShimError::Refused(message)),
            ToShim::Started => {}
            _ => return Err(ShimError::Lost(io::Error::other("unexpected answer"))),
        }
    }
    if background {
        return Ok(End::Code(0));
    }
    follow(&line, &signals, relay).map_err(ShimError::Lost)
}

fn take_signals() -> io::Result<SignalFd> {
    let mut taken = SigSet::empty();
    for signal in
        PASSED.into_iter().chain([Signal::SIGWINCH, Signal::SIGCONT, Signal::SIGTTIN, Signal::SIGTTOU])
    {
        taken.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&taken), None)?;
    extern "C" fn nothing(_: libc::c_int) {}
    for ignored_by_default in [Signal::SIGWINCH, Signal::SIGCONT] {
        // gVisor drops what would be ignored even while it is blocked, so it must not be ignored.
        // SAFETY: the handler does nothing, and never runs while the signal is blocked.
        unsafe { signal(ignored_by_default, SigHandler::Handler(nothing))? };
    }
    Ok(SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Two terminals and what is on its way between them.
struct Relay {
    callers: CallersTerminal,
    command: OwnedFd,
    /// Whether what is typed goes to the command.
    typed: bool,
    /// Whether the caller's terminal leaves keys to the command's.
    raw: bool,
    to_command: Vec<u8>,
    to_caller: Vec<u8>,
    /// Nobody has the command's terminal open any more.
    hung_up: bool,
}

impl Relay {
    /// Takes the keyboard, if it is ours to take.
    fn resume(&self) {
        if self.raw && self.callers.is_ours() {
            self.callers.make_raw();
        }
        self.callers.copy_window_to(&self.command);
    }

    fn pause(&self) {
        if self.raw && self.callers.is_ours() {
            self.callers.restore();
        }
    }

    /// Reads what the command wrote, `false` when there is nothing now.
    fn read_command(&mut self) -> bool {
        let mut buffer = [0; RELAY_BYTES];
        match nix::unistd::read(&self.command, &mut buffer) {
            Ok(0) | Err(Errno::EIO) => self.hung_up = true,
            Ok(count) => {
                self.to_caller.extend_from_slice(&buffer[..count]);
                return true;
            }
            Err(_) => {}
        }
        false
    }

    fn read_caller(&mut self) {
        let mut buffer = [0; RELAY_BYTES];
        match self.callers.file().read(&mut buffer) {
            Ok(0) => self.typed = false,
            Ok(count) => self.to_command.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.typed = false,
        }
    }

    fn flush(&mut self) {
        if !self.to_caller.is_empty() {
            match self.callers.file().write(&self.to_caller) {
                Ok(count) => drop(self.to_caller.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.to_caller.clear(),
            }
        }
        if !self.to_command.is_empty() {
            match nix::unistd::write(&self.command, &self.to_command) {
                Ok(count) => drop(self.to_command.drain(..count)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => self.to_command.clear(),
            }
        }
    }

    /// Shows what the command wrote before it ended.
    fn drain(&mut self) {
        loop {
            while !self.to_caller.is_empty() {
                let mut fds = [PollFd::new(self.callers.file().as_fd(), PollFlags::POLLOUT)];
                if poll(&mut fds, PollTimeout::from(1000u16)).unwrap_or(0) == 0 {
                    return; // a terminal that takes nothing for a second has nobody in front
                }
                self.flush();
            }
            if self.hung_up || !self.read_command() {
                return;
            }
        }
    }
}

/// Relays until the command has ended.
fn follow(line: &Line, signals: &SignalFd, mut relay: Option<Relay>) -> io::Result<End> {
    if let Some(relay) = &relay {
        let flags = OFlag::from_bits_retain(fcntl(&relay.command, FcntlArg::F_GETFL)?);
        fcntl(&relay.command, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        relay.resume();
    }
    let end = loop {
        let ready = wait(line, signals, relay.as_ref())?;
        if ready.signals {
            while let Ok(Some(info)) = signals.read_signal() {
                on_signal(info.ssi_signo as i32, line, relay.as_ref())?;
            }
        }
        if let Some(relay) = &mut relay {
            if ready.command {
                relay.read_command();
            }
            if ready.caller {
                relay.read_caller();
            }
            relay.flush();
        }
        if ready.line {
            match line.receive()? {
                ToShim::Exited(code) => break End::Code(code),
                ToShim::Killed(number) => break End::Signal(number),
                ToShim::Stopped => {
                    if let Some(relay) = &relay {
                        relay.pause();
                    }
                    stop_ourselves();
                    if let Some(relay) = &relay {
                        relay.resume();
                    }
                    line.send(&ToSession::Signal(Signal::SIGCONT as i32))?;
                }
                ToShim::Refused(message) => return Err(io::Error::other(message)),
                ToShim::Started | ToShim::Terminal => {}
            }
        }
    };
    if let Some(relay) = &mut relay {
        relay.drain();
    }
    Ok(end)
}

/// What can be done now.
#[derive(Debug, Default)]
struct Ready {
    line: bool,
    signals: bool,
    command: bool,
    caller: bool,
}

fn wait(line: &Line, signals: &SignalFd, relay: Option<&Relay>) -> io::Result<Ready> {
    let mut fds = vec![
        PollFd::new(line.stream().as_fd(), PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    if let Some(relay) = relay {
        let mut command = PollFlags::empty();
        command.set(PollFlags::POLLIN, relay.to_caller.is_empty());
        command.set(PollFlags::POLLOUT, !relay.to_command.is_empty());
        if !relay.hung_up {
            fds.push(PollFd::new(relay.command.as_fd(), command));
        }
        let mut caller = PollFlags::empty();
        caller.set(PollFlags::POLLIN, relay.typed && relay.to_command.is_empty() && relay.callers.is_ours());
        caller.set(PollFlags::POLLOUT, !relay.to_caller.is_empty());
        if !caller.is_empty() {
            fds.push(PollFd::new(relay.callers.file().as_fd(), caller));
        }
    }
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(Ready::default()),
        Err(errno) => return Err(errno.into()),
    }
    let any = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
    let (hung_up, has_relay) = (relay.is_some_and(|relay| relay.hung_up), relay.is_some());
    let command_at = (has_relay && !hung_up).then_some(2);
    let caller_at = 2 + usize::from(command_at.is_some());
    Ok(Ready {
        line: any(&fds[0]),
        signals: any(&fds[1]),
        command: command_at.is_some_and(|at| any(&fds[at])),
        caller: fds.get(caller_at).is_some_and(any),
    })
}

fn on_signal(number: i32, line: &Line, relay: Option<&Relay>) -> io::Result<()> {
    match (Signal::try_from(number), relay) {
        (Ok(Signal::SIGWINCH), Some(relay)) => {
            relay.callers.copy_window_to(&relay.command);
            // Linux has told the command by now; gVisor up to 2024 leaves that to us.
            line.send(&ToSession::Signal(number))?;
        }
        (Ok(Signal::SIGCONT), Some(relay)) => {
            relay.resume();
            line.send(&ToSession::Signal(number))?;
        }
        (Ok(signal), _) if signal == Signal::SIGCONT || PASSED.contains(&signal) => {
            line.send(&ToSession::Signal(number))?;
        }
        _ => {}
    }
    Ok(())
}

/// Stops our job, as its command was stopped. Does nothing where nobody would continue it.
fn stop_ourselves() {
    let stop = SigSet::from(Signal::SIGTSTP);
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&stop), None);
    let _ = killpg(getpgrp(), Signal::SIGTSTP);
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stop), None);
}

/// Ends this process by the signal that ended the command, without a core file of ours.
fn die_of(number: i32) -> ! {
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    if let Ok(fatal) = Signal::try_from(number) {
        // SAFETY: back to the default action; no handler of ours is involved.
        let _ = unsafe { signal(fatal, SigHandler::SigDfl) };
        let _ = raise(fatal);
        let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from(fatal)), None);
    }
    std::process::exit(128 + number)
}
