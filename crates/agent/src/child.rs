//! Starts a program without copying the agent.
//!
//! The child is made with `clone(CLONE_VM | CLONE_VFORK)`: it borrows the agent's memory until it executes the
//! program, so starting costs the same however large the agent is. Everything the child needs is therefore laid
//! out before ([`Plan`]), and between `clone` and `execve` it makes system calls only.
//!
//! A program that cannot be found is not an error here: as behind a shell, the child says so on its standard error
//! and exits with 127 (126 when it may not be executed). Errors are for what the caller asked wrongly.
//!
//! Not here: who waits for the child (`reaper`).

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_char, c_int, c_void};

/// Where programs are looked up when the child has no `PATH`. Source: execvp(3), with the sbin directories.
const FALLBACK_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The child runs on this until it executes the program. It calls nothing deep.
const STACK_BYTES: usize = 64 * 1024;

/// How likely the kernel ends a user process when memory runs out; the agent itself is protected.
const OOM_SCORE_ADJ: &[u8] = b"100";

/// Whom a program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// How a program relates to the terminal and to signals from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// The agent's session and group.
    Inherited,
    /// A process group of its own.
    OwnGroup,
    /// A session of its own, controlled by the terminal on standard input.
    Terminal,
    /// A process group of its own, in front of the terminal that controls the caller's session.
    Foreground { terminal: c_int },
}

/// A program to start.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Looked up in the child's own `PATH` when it has no slash.
    pub(crate) program: &'a OsStr,
    /// The first argument is the program's idea of its name.
    pub(crate) argv: &'a [OsString],
    pub(crate) envs: &'a [(OsString, OsString)],
    pub(crate) cwd: &'a OsStr,
    pub(crate) identity: &'a Identity,
    pub(crate) umask: u32,
    pub(crate) session: Session,
    /// Standard input, output and error. None of them may be below 3.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// `cgroup.procs` of the group to enter.
    pub(crate) cgroup_procs: Option<&'a CStr>,
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("program, argument or variable contains a NUL byte")]
    Nul,
    #[error("create process")]
    Clone(#[source] io::Error),
    #[error("become the user")]
    Identity(#[source] io::Error),
    #[error("attach standard input, output and error")]
    Stdio(#[source] io::Error),
    #[error("take control of the terminal")]
    Terminal(#[source] io::Error),
    #[error("chdir")]
    Chdir(#[source] io::Error),
}

/// Starts the program and returns its process id once it runs, or has failed to be found.
///
/// Blocks for that long. On an error the child is already gone, but not yet waited for: `reap` is called with it.
pub(crate) fn launch(launch: &Launch<'_>, reap: impl FnOnce(u32)) -> Result<u32, LaunchError> {
    let plan = Plan::new(launch)?;
    let mut stack = vec![0u8; STACK_BYTES];
    // SAFETY: one past the end of an allocation, aligned down to what the ABI wants of a stack pointer.
    let stack_top = unsafe { stack.as_mut_ptr().add(STACK_BYTES) };
    let stack_top = stack_top.wrapping_sub(stack_top as usize % 16);

    let blocked = BlockedSignals::new();
    // SAFETY: with CLONE_VFORK this thread sleeps until the child has executed or exited, so `plan` and `stack`
    // outlive its use of them. The child only makes system calls, on memory nobody else changes meanwhile.
    let pid = unsafe {
        libc::clone(
            child_main,
            stack_top.cast::<c_void>(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            std::ptr::from_ref(&plan).cast_mut().cast::<c_void>(),
        )
    };
    let clone_error = io::Error::last_os_error();
    drop(blocked);
    let Ok(pid) = u32::try_from(pid) else {
        return Err(LaunchError::Clone(clone_error));
    };
    let step = plan.failed_step.load(Ordering::Relaxed);
    if step == 0 {
        return Ok(pid);
    }
    reap(pid);
    let source = io::Error::from_raw_os_error(plan.failed_errno.load(Ordering::Relaxed));
    Err(match step {
        STEP_STDIO => LaunchError::Stdio(source),
        STEP_TERMINAL => LaunchError::Terminal(source),
        STEP_IDENTITY => LaunchError::Identity(source),
        _ => LaunchError::Chdir(source),
    })
}

const STEP_STDIO: c_int = 1;
const STEP_TERMINAL: c_int = 2;
const STEP_IDENTITY: c_int = 3;
const STEP_CHDIR: c_int = 4;

/// All signals are blocked in this thread while this lives, so that no handler of ours runs in the child.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn new() -> Self {
        // SAFETY: both sets are plain memory that the calls fill in.
        unsafe {
            let mut all = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self(before)
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: restores the mask taken above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// What the child will do, in memory it can use without allocating.
struct Plan<'a> {
    /// Files to try to execute, in order.
    candidates: Vec<CString>,
    argv: Pointers,
    /// `/bin/sh FILE ARGS…`, for a script without `#!`. Its second entry is set when it is needed.
    shell_argv: Pointers,
    envp: Pointers,
    cwd: CString,
    uid: u32,
    gid: u32,
    groups: &'a [u32],
    umask: u32,
    session: Session,
    stdio: [c_int; 3],
    cgroup_procs: Option<&'a CStr>,
    not_found: Vec<u8>,
    not_executable: Vec<u8>,
    failed_step: AtomicI32,
    failed_errno: AtomicI32,
}

/// Strings and the null-terminated array of pointers to them.
struct Pointers {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Pointers {
    fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { _strings: strings, pointers }
    }
}

impl<'a> Plan<'a> {
    fn new(launch: &Launch<'a>) -> Result<Self, LaunchError> {
        let argv = launch.argv.iter().map(|arg| c_string(arg)).collect::<Result<Vec<_>, _>>()?;
        let mut shell_argv = vec![c"/bin/sh".to_owned(), CString::default()];
        shell_argv.extend(argv.iter().skip(1).cloned());
        let envs = launch.envs.iter().map(|(key, value)| {
            let mut pair = key.clone();
            pair.push("=");
            pair.push(value);
            c_string(&pair)
        });
        let message = |text: &str| {
            let mut line = launch.program.as_bytes().to_vec();
            line.extend_from_slice(text.as_bytes());
            line
        };
        Ok(Self {
            candidates: candidates(launch.program, launch.envs)?,
            argv: Pointers::new(argv),
            shell_argv: Pointers::new(shell_argv),
            envp: Pointers::new(envs.collect::<Result<Vec<_>, _>>()?),
            cwd: c_string(launch.cwd)?,
            uid: launch.identity.uid,
            gid: launch.identity.gid,
            groups: &launch.identity.groups,
            umask: launch.umask,
            session: launch.session,
            stdio: [0, 1, 2].map(|at| launch.stdio[at].as_raw_fd()),
            cgroup_procs: launch.cgroup_procs,
            not_found: message(": command not found\n"),
            not_executable: message(": permission denied\n"),
            failed_step: AtomicI32::new(0),
            failed_errno: AtomicI32::new(0),
        })
    }
}

fn c_string(text: &OsStr) -> Result<CString, LaunchError> {
    CString::new(text.as_bytes()).map_err(|_| LaunchError::Nul)
}

fn candidates(program: &OsStr, envs: &[(OsString, OsString)]) -> Result<Vec<CString>, LaunchError> {
    if program.as_bytes().contains(&b'/') || program.is_empty() {
        return Ok(vec![c_string(program)?]);
    }
    let path = envs.iter().rev().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_os_str());
    let path = path.unwrap_or(OsStr::new(FALLBACK_PATH)).as_bytes();
    path.split(|byte| *byte == b':')
        .map(|directory| {
            let directory = if directory.is_empty() { b"." } else { directory };
            c_string(&OsString::from_vec([directory, b"/", program.as_bytes()].concat()))
        })
        .collect()
}

extern "C" fn child_main(plan: *mut c_void) -> c_int {
    // SAFETY: `launch` passes a plan that lives until this process has executed or exited.
    let plan = unsafe { &*plan.cast::<Plan<'_>>() };
    // SAFETY: see `launch`; the calls below are plain system calls on memory laid out in `plan`.
    unsafe { run(plan) }
}

/// What the child does. Only returns by exiting.
///
/// # Safety
/// Must be called in a child that may execute and exit, on memory that nobody else changes.
unsafe fn run(plan: &Plan<'_>) -> c_int {
    // SAFETY: the caller's promise. The set-id calls go to the kernel directly: the library's versions would
    // change every thread of the agent, whose memory this still is.
    unsafe {
        default_signals();
        if let Some(procs) = plan.cgroup_procs {
            write_to(procs, b"0");
        }
        write_to(c"/proc/self/oom_score_adj", OOM_SCORE_ADJ);
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        libc::umask(plan.umask);
        match plan.session {
            Session::Inherited => {}
            Session::OwnGroup => drop(libc::setpgid(0, 0)),
            Session::Terminal => drop(libc::setsid()),
            Session::Foreground { terminal } => {
                libc::setpgid(0, 0);
                // All signals are blocked here, so this is allowed from the background.
                libc::tcsetpgrp(terminal, libc::getpid());
            }
        }
        for (at, fd) in plan.stdio.iter().enumerate() {
            if libc::dup2(*fd, at as c_int) < 0 {
                return fail(plan, STEP_STDIO);
            }
        }
        if plan.session == Session::Terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
            return fail(plan, STEP_TERMINAL);
        }
        if libc::syscall(libc::SYS_setgroups, plan.groups.len(), plan.groups.as_ptr()) < 0
            || libc::syscall(libc::SYS_setresgid, plan.gid, plan.gid, plan.gid) < 0
            || libc::syscall(libc::SYS_setresuid, plan.uid, plan.uid, plan.uid) < 0
        {
            return fail(plan, STEP_IDENTITY);
        }
        if libc::chdir(plan.cwd.as_ptr()) < 0 {
            return fail(plan, STEP_CHDIR);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        execute(plan)
    }
}

/// Tries the candidates; says on standard error what was wrong when none of them runs.
///
/// # Safety
/// As [`run`].
unsafe fn execute(plan: &Plan<'_>) -> c_int {
    let mut denied = false;
    for candidate in &plan.candidates {
        // SAFETY: null-terminated arrays of null-terminated strings.
        unsafe { libc::execve(candidate.as_ptr(), plan.argv.pointers.as_ptr(), plan.envp.pointers.as_ptr()) };
        match errno() {
            libc::ENOEXEC => {
                let shell_argv = plan.shell_argv.pointers.as_ptr().cast_mut();
                // SAFETY: the array has at least two entries; this process is the only one that uses it.
                unsafe {
                    *shell_argv.add(1) = candidate.as_ptr();
                    libc::execve(c"/bin/sh".as_ptr(), shell_argv, plan.envp.pointers.as_ptr());
                }
                denied = true;
            }
            libc::ENOENT | libc::ENOTDIR => {}
            _ => denied = true,
        }
    }
    let (message, code) = if denied { (&plan.not_executable, 126) } else { (&plan.not_found, 127) };
    // SAFETY: writes a whole buffer and ends this process.
    unsafe {
        libc::write(2, message.as_ptr().cast::<c_void>(), message.len());
        libc::_exit(code)
    }
}

/// # Safety
/// As [`run`].
unsafe fn fail(plan: &Plan<'_>, step: c_int) -> c_int {
    plan.failed_errno.store(errno(), Ordering::Relaxed);
    plan.failed_step.store(step, Ordering::Relaxed);
    // SAFETY: ends this process without running what the agent registered for its own exit.
    unsafe { libc::_exit(127) }
}

/// Ignored signals stay ignored in a new program, and the agent ignores SIGPIPE.
///
/// # Safety
/// As [`run`].
unsafe fn default_signals() {
    // The kernel's own structure, all zero: the default action, no flags, an empty mask. The library's call would leave
    // out the two signals it keeps for itself.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: handlers of this process only, `CLONE_SIGHAND` was not asked for; a structure of the kernel's size.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, 8) };
    }
}

/// Best effort: a guest without the file runs the program all the same.
///
/// # Safety
/// As [`run`].
unsafe fn write_to(path: &CStr, bytes: &[u8]) {
    // SAFETY: a null-terminated path and a buffer with its length.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, bytes.as_ptr().cast::<c_void>(), bytes.len());
            libc::close(fd);
        }
    }
}

fn errno() -> c_int {
    // SAFETY: the location is always valid.
    unsafe { *libc::__errno_location() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(program: &str, path: Option<&str>) -> Vec<String> {
        let envs: Vec<_> = path.map(|path| ("PATH".into(), path.into())).into_iter().collect();
        let found = candidates(OsStr::new(program), &envs).unwrap();
        found.into_iter().map(|path| path.into_string().unwrap()).collect()
    }

    #[test]
    fn programs_are_looked_up_in_the_childs_path() {
        assert_eq!(found("ls", Some("/a:/b")), ["/a/ls", "/b/ls"]);
        assert_eq!(found("ls", Some("")), ["./ls"]);
        assert_eq!(found("./ls", Some("/a")), ["./ls"]);
        assert_eq!(found("ls", None).last().unwrap(), "/bin/ls");
    }

    #[test]
    fn nul_bytes_are_refused() {
        assert!(matches!(c_string(OsStr::new("a\0b")), Err(LaunchError::Nul)));
    }
}
