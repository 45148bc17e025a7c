//! One run of somebody else's program during a build: its output becomes news, its end a result.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::panic;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::Reporter;

/// Lines of output that an error carries.
const TAIL_LINES: usize = 30;
/// A longer line is cut into pieces of this size.
const LINE_BYTES: usize = 4096;
/// What a build needs to find its way out of a company's network.
const PROXY_VARIABLES: [&str; 6] =
    ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not installed.
    #[error("{program} is missing: install the package that provides it")]
    Missing {
        /// Its absolute path.
        program: Utf8PathBuf,
    },
    /// It could not be started.
    #[error("start {program}")]
    Start {
        /// Its absolute path.
        program: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its output or its end could not be read.
    #[error("follow {program}")]
    Follow {
        /// Its absolute path.
        program: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It said that it failed.
    #[error("{program} ended with {status}; its last lines:\n{tail}")]
    Failed {
        /// Its absolute path.
        program: Utf8PathBuf,
        /// Exit code or signal.
        status: ExitStatus,
        /// The last lines of its output.
        tail: String,
    },
    /// It took too long and was killed.
    #[error("{program} took longer than {} s and was killed; its last lines:\n{tail}", deadline.as_secs())]
    TookTooLong {
        /// Its absolute path.
        program: Utf8PathBuf,
        /// How long it was given.
        deadline: Duration,
        /// The last lines of its output.
        tail: String,
    },
}

/// A program about to be run: no input, output and error in one stream, none of our environment but the proxies.
pub(crate) struct Program {
    path: Utf8PathBuf,
    command: Command,
    deadline: Duration,
    contained: bool,
}

impl Program {
    /// `path` is absolute, because `PATH` is not ours.
    pub(crate) fn new(path: impl Into<Utf8PathBuf>, deadline: Duration) -> Self {
        let path = path.into();
        let mut command = Command::new(&path);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .envs(PROXY_VARIABLES.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))))
            .current_dir("/")
            .stdin(Stdio::null())
            .process_group(0);
        Self { path, command, deadline, contained: false }
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn current_dir(mut self, dir: &Utf8Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Makes `root` the program's root directory. The program's path is then one inside of it.
    pub(crate) fn chroot(mut self, root: &Utf8Path) -> Self {
        let root = std::ffi::CString::new(root.as_str()).expect("a path has no NUL byte");
        // SAFETY: runs between fork and exec and makes two system calls; nothing allocates or locks.
        unsafe {
            self.command.pre_exec(move || {
                rustix::process::chroot(root.as_c_str())?;
                rustix::process::chdir(c"/")?;
                Ok(())
            });
        }
        self
    }

    /// Gives the program process ids and mounts of its own, with a `/proc` that fits. When it ends, or we do, all
    /// that it has started is killed and all that it has mounted is gone.
    pub(crate) fn contained(mut self) -> Self {
        self.contained = true;
        // SAFETY: runs between fork and exec and makes system calls only; the child has one thread and shares nothing.
        unsafe {
            self.command.pre_exec(|| {
                unshare_unsafe(UnshareFlags::NEWNS)?;
                let hidden = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                mount(c"proc", c"/proc", c"proc", hidden, c"")?;
                Ok(())
            });
        }
        self
    }

    /// Runs it to its end, reports each line of its output under `step` and returns the last ones.
    ///
    /// Blocks. If the calling thread ends before the program, the kernel ends the program.
    pub(crate) fn run(self, step: &str, report: &Reporter) -> Result<String, ProgramError> {
        if !self.contained {
            return self.run_here(step, report);
        }
        // Which process ids the children of a thread have can be changed once, so it is a thread for this program.
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: changes nothing but where the next child of this thread is put.
                unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.map_err(|error| ProgramError::Start {
                    program: self.path.clone(),
                    source: error.into(),
                })?;
                self.run_here(step, report)
            });
            thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }

    fn run_here(mut self, step: &str, report: &Reporter) -> Result<String, ProgramError> {
        let follow = |path: &Utf8Path, source| ProgramError::Follow { program: path.to_owned(), source };
        let started = Instant::now();
        let (output, writer) = io::pipe().map_err(|source| follow(&self.path, source))?;
        let for_errors = writer.try_clone().map_err(|source| follow(&self.path, source))?;
        self.command.stdout(writer).stderr(for_errors);
        // A contained program is the first process of its namespace, and takes all others with it.
        let signal = if self.contained { Signal::KILL } else { Signal::TERM };
        // SAFETY: runs between fork and exec and makes one system call.
        unsafe {
            self.command.pre_exec(move || Ok(set_parent_process_death_signal(Some(signal))?));
        }
        let mut child = self.command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ProgramError::Missing { program: self.path.clone() },
            _ => ProgramError::Start { program: self.path.clone(), source },
        })?;
        // The command holds our copies of the pipe's writing end; while they live the pipe has no end.
        drop(self.command);

        let mut lines = Lines::new(step, report);
        let until = started + self.deadline;
        let ended = match read_to_end(output, until, &mut lines) {
            Ok(true) => wait(&mut child, until),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        let tail = lines.finish();
        let program = self.path;
        match ended {
            Ok(Some(status)) if status.success() => Ok(tail),
            Ok(Some(status)) => Err(ProgramError::Failed { program, status, tail }),
            Ok(None) => {
                kill(&mut child);
                Err(ProgramError::TookTooLong { program, deadline: self.deadline, tail })
            }
            Err(source) => {
                kill(&mut child);
                Err(ProgramError::Follow { program, source })
            }
        }
    }
}

/// Reads until the last writer is gone; `false` when the time is over first.
fn read_to_end(mut output: PipeReader, until: Instant, lines: &mut Lines<'_>) -> io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let Some(left) = until.checked_duration_since(Instant::now()) else {
            return Ok(false);
        };
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match output.read(&mut buffer)? {
            0 => return Ok(true),
            count => lines.push(&buffer[..count]),
        }
    }
}

/// Waits for the end of a child that has closed its output, which is all but immediate.
fn wait(child: &mut Child, until: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Ends the whole group and reaps its leader. An error means that it is gone already.
fn kill(child: &mut Child) {
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.wait();
}

/// Cuts output into lines, reports them and keeps the last ones.
struct Lines<'a> {
    step: &'a str,
    report: &'a Reporter,
    line: Vec<u8>,
    tail: VecDeque<String>,
}

impl<'a> Lines<'a> {
    fn new(step: &'a str, report: &'a Reporter) -> Self {
        Self { step, report, line: Vec::new(), tail: VecDeque::with_capacity(TAIL_LINES) }
    }

    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' || byte == b'\r' || self.line.len() == LINE_BYTES {
                self.end_line();
            }
            if byte != b'\n' && byte != b'\r' {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if line.is_empty() {
            return;
        }
        self.report.line(self.step, line.clone());
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    fn finish(mut self) -> String {
        self.end_line();
        Vec::from(self.tail).join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn shell(script: &str, deadline: Duration) -> Program {
        Program::new("/bin/sh", deadline).args(["-c", script])
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn output_and_errors_are_reported_line_by_line() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let report =
            Reporter::new(move |news| sink.lock().unwrap().push((news.step.clone(), news.line.clone())));
        shell("echo one; echo two >&2; printf three", SOON).run("test", &report).unwrap();
        let want = ["one", "two", "three"].map(|line| ("test".to_owned(), line.to_owned()));
        assert_eq!(*seen.lock().unwrap(), want);
    }

    #[test]
    fn a_failure_carries_the_last_lines() {
        let error = shell("seq 100; exit 3", SOON).run("test", &Reporter::silent()).unwrap_err();
        let ProgramError::Failed { status, tail, .. } = error else { panic!("{error}") };
        assert_eq!(status.code(), Some(3));
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.starts_with("71\n") && tail.ends_with("\n100"), "{tail}");
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed_with_its_children() {
        let started = Instant::now();
        let error = shell("sleep 600 & echo $!; wait", Duration::from_millis(300))
            .run("test", &Reporter::silent())
            .unwrap_err();
        let ProgramError::TookTooLong { tail, .. } = error else { panic!("{error}") };
        assert!(started.elapsed() < SOON);
        let stat = format!("/proc/{tail}/stat");
        let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            assert!(started.elapsed() < SOON, "the child of the killed program lives");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn as_root_a_contained_program_takes_all_it_started_with_it() {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        // The background process would keep the output open, and us waiting, for ten minutes.
        let script = "mount -t tmpfs none /mnt; setsid sleep 600 & echo $$ $(ls /proc | grep -c '^[0-9]')";
        let tail = shell(script, SOON).contained().run("test", &Reporter::silent()).unwrap();
        assert!(tail.starts_with("1 "), "{tail}");
        assert!(tail[2..].parse::<u32>().unwrap() < 10, "{tail}: processes of others are in its /proc");
        assert!(
            !mounts.is_empty()
                && !std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" /mnt ")
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Program::new("/nonexistent/tool", SOON).run("test", &Reporter::silent()).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/tool is missing: install the package that provides it");
    }
}
