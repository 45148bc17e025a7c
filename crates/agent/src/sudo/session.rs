//! The root side of one `sudo`: runs the command, follows it, and passes signals on.
//!
//! Leads a session of its own. With a terminal it is also what keeps the command's process group from being an orphan,
//! so that the command can be stopped and continued.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::{Pid, setsid};

use super::message::{Line, Run, ToSession, ToShim};
use super::terminal;
use crate::child::{Identity, Launch, Session, launch};

/// Entry of the process. Its connection to the shim is standard input.
pub(super) fn main() -> ! {
    // SAFETY: the agent starts a session with the connection as this descriptor, and nothing else uses it.
    let line = Line::new(UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) }));
    if let Err(error) = run(&line) {
        drop(line.send(&ToShim::Refused(format!("session ended early: {error}"))));
        std::process::exit(1);
    }
    std::process::exit(0);
}

fn run(line: &Line) -> io::Result<()> {
    // The terminal hanging up concerns the command; we stay to tell how it ended.
    for ignored in [Signal::SIGHUP, Signal::SIGTTOU, Signal::SIGTTIN, Signal::SIGPIPE] {
        // SAFETY: no handler of ours is involved.
        unsafe { signal(ignored, SigHandler::SigIgn)? };
    }
    setsid()?;
    let ToSession::Run(wanted) = line.receive()? else {
        return Err(io::Error::other("the first message must be the command"));
    };
    let stdio = line.receive_fds::<3>()?;
    let (pid, terminal) = match start(line, &wanted, stdio) {
        Ok(started) => started,
        Err(refused) => return line.send(&ToShim::Refused(refused)),
    };
    line.send(&ToShim::Started)?;
    let signals = line.try_clone()?;
    let background = wanted.background;
    std::thread::spawn(move || pass_signals(&signals, pid, terminal.as_ref(), background));
    follow(line, pid)
}

/// Starts the command. Nothing of its standard streams stays open here but the terminal made for it.
fn start(line: &Line, wanted: &Run, stdio: [OwnedFd; 3]) -> Result<(u32, Option<OwnedFd>), String> {
    let failed = |action: &'static str| move |error: io::Error| format!("{action}: {error}");
    let own_terminal = match wanted.terminal {
        None => None,
        Some(replaced) => {
            let (master, slave) = terminal::open(wanted.uid).map_err(failed("open terminal"))?;
            terminal::control(&slave).map_err(failed("take terminal"))?;
            let offered = line.send(&ToShim::Terminal).and_then(|()| line.send_fds(&[master.as_fd()]));
            offered.map_err(failed("pass terminal"))?;
            match line.receive() {
                Ok(ToSession::Ready) => {}
                _ => return Err("the caller went away".to_owned()),
            }
            Some((slave, replaced))
        }
    };
    let stream = |at: usize| -> BorrowedFd<'_> {
        match &own_terminal {
            Some((slave, replaced)) if replaced[at] => slave.as_fd(),
            _ => stdio[at].as_fd(),
        }
    };
    let session = match &own_terminal {
        Some((slave, _)) => Session::Foreground { terminal: slave.as_raw_fd() },
        None => Session::OwnGroup,
    };
    let os_string = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
    let argv: Vec<_> = wanted.argv.iter().map(os_string).collect();
    let envs: Vec<_> = wanted.envs.iter().map(|(key, value)| (os_string(key), os_string(value))).collect();
    let identity = Identity { uid: wanted.uid, gid: wanted.gid, groups: wanted.groups.clone() };
    let wanted = Launch {
        program: OsStr::from_bytes(&wanted.program),
        argv: &argv,
        envs: &envs,
        cwd: OsStr::from_bytes(&wanted.cwd),
        identity: &identity,
        umask: wanted.umask,
        session,
        stdio: [stream(0), stream(1), stream(2)],
        cgroup_procs: None,
    };
    let reap = |pid| {
        let _ = nix::sys::wait::waitpid(Pid::from_raw(pid as i32), None);
    };
    let pid = launch(&wanted, reap).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })?;
    Ok((pid, own_terminal.map(|(slave, _)| slave)))
}

/// Waits for the command and tells the shim what becomes of it. A shim that is gone need not know.
fn follow(line: &Line, pid: u32) -> io::Result<()> {
    loop {
        let mut status = 0;
        // SAFETY: writes one integer. Not through `nix`, which knows no real-time signals.
        if unsafe { libc::waitpid(pid as i32, &mut status, libc::WUNTRACED) } < 0 {
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(error),
            }
        }
        if libc::WIFSTOPPED(status) {
            drop(line.send(&ToShim::Stopped));
        } else if libc::WIFSIGNALED(status) {
            drop(line.send(&ToShim::Killed(libc::WTERMSIG(status))));
            return Ok(());
        } else if libc::WIFEXITED(status) {
            drop(line.send(&ToShim::Exited(libc::WEXITSTATUS(status))));
            return Ok(());
        }
    }
}

/// Sends the command's process group what the shim was sent; ends it when the shim was killed.
fn pass_signals(line: &Line, pid: u32, terminal: Option<&OwnedFd>, background: bool) {
    let group = Pid::from_raw(-(pid as i32));
    loop {
        match line.receive() {
            Ok(ToSession::Signal(number)) => {
                let Ok(signal) = Signal::try_from(number) else { continue };
                if signal == Signal::SIGWINCH
                    && let Some(front) = terminal.and_then(terminal::in_front)
                {
                    let _ = kill(front, signal); // a job of the command's own
                }
                let _ = kill(group, signal); // ended meanwhile: the shim will be told
            }
            Ok(_) => {}
            Err(_) if background => return,
            Err(_) => {
                for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCONT] {
                    let _ = kill(group, signal);
                }
                return;
            }
        }
    }
}
