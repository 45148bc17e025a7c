//! One running process and the task that follows it to its end.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::pty::Winsize;
use sandbar_wire::envd::process::{ProcessConfig, PtySize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fanout::{Event, Fanout};
use super::stdio::Terminal;
use super::window::tell_session;
use crate::reaper::Exit;

/// Most bytes of one data event from a pipe, and from a terminal. Source: e2b-dev/infra packages/envd.
const PIPE_PIECE_BYTES: usize = 32 * 1024;
const TERMINAL_PIECE_BYTES: usize = 16 * 1024;

/// What is still read from a stream after a process was ended by signal: what one pipe holds.
const LEFTOVER_PIECES_MAX: usize = 2;

/// How long a slow listener may delay the end of a process that was ended by signal.
const LEFTOVER_WAIT: Duration = Duration::from_secs(1);

/// A process from its start until its end event.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) config: ProcessConfig,
    pub(super) tag: Option<String>,
    pub(super) fanout: Fanout,
    pub(super) input: InputSide,
    /// Cancelled when the end of the process itself is enough: its output need not reach its end.
    pub(super) cut_short: CancellationToken,
    /// Cancelled when it is no longer among the live.
    pub(super) finished: CancellationToken,
}

/// Where input for a process goes.
#[derive(Debug)]
pub(super) enum InputSide {
    /// `None` inside: never opened, or closed.
    Pipe(Mutex<Option<pipe::Sender>>),
    Terminal(Arc<Terminal>),
}

/// Why input was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error("stdin not enabled or closed")]
    Closed,
    #[error("process has a terminal: its input is `pty`, not `stdin`")]
    HasTerminal,
    #[error("tty not assigned to process")]
    NoTerminal,
    #[error("write input")]
    Write(#[source] io::Error),
}

impl Process {
    /// Writes all of it to standard input; waits while the program does not read.
    pub(super) async fn write_stdin(&self, bytes: &[u8]) -> Result<(), InputError> {
        let InputSide::Pipe(pipe) = &self.input else {
            return Err(InputError::HasTerminal);
        };
        let mut pipe = pipe.lock().await;
        let pipe = pipe.as_mut().ok_or(InputError::Closed)?;
        pipe.write_all(bytes).await.map_err(InputError::Write)
    }

    /// Types all of it on the terminal.
    pub(super) async fn write_terminal(&self, bytes: &[u8]) -> Result<(), InputError> {
        self.terminal()?.write_all(bytes).await.map_err(InputError::Write)
    }

    /// Ends standard input. May be repeated; `false` for a terminal, which has no such end.
    pub(super) async fn close_stdin(&self) -> bool {
        match &self.input {
            InputSide::Pipe(pipe) => {
                drop(pipe.lock().await.take());
                true
            }
            InputSide::Terminal(_) => false,
        }
    }

    /// Changes the terminal's window, and tells the programs on it. Blocks shortly: it looks who is on it.
    pub(super) fn resize(&self, size: PtySize) -> Result<(), InputError> {
        self.terminal()?.resize(window(size)).map_err(InputError::Write)?;
        tell_session(self.pid);
        Ok(())
    }

    fn terminal(&self) -> Result<&Terminal, InputError> {
        match &self.input {
            InputSide::Pipe(_) => Err(InputError::NoTerminal),
            InputSide::Terminal(terminal) => Ok(terminal),
        }
    }
}

/// The kernel counts windows in 16 bits.
pub(super) fn window(size: PtySize) -> Winsize {
    Winsize { ws_row: size.rows as u16, ws_col: size.cols as u16, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Where output of a process comes from.
#[derive(Debug)]
pub(super) enum OutputSide {
    Pipes { stdout: pipe::Receiver, stderr: pipe::Receiver },
    Terminal(Arc<Terminal>),
}

/// Follows a process to its end and returns how it ended.
///
/// That is when it has exited and its output is at its end (a child in the background may hold that open), or just
/// when it has exited once it was cut short. At the deadline `kill` is called and the process is cut short.
pub(super) async fn follow(
    process: &Arc<Process>,
    output: OutputSide,
    mut exit: oneshot::Receiver<Exit>,
    deadline: Option<Instant>,
    kill: impl Fn(),
) -> Exit {
    let finish = CancellationToken::new();
    let mut readers = JoinSet::new();
    match output {
        OutputSide::Pipes { stdout, stderr } => {
            readers.spawn(forward(process.clone(), Source::Stdout(stdout), finish.clone()));
            readers.spawn(forward(process.clone(), Source::Stderr(stderr), finish.clone()));
        }
        OutputSide::Terminal(terminal) => {
            readers.spawn(forward(process.clone(), Source::Terminal(terminal), finish.clone()));
        }
    }
    let due = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
        process.cut_short.cancel();
        kill();
        std::future::pending::<()>().await
    };
    tokio::pin!(due);

    let exit = tokio::select! {
        // The reaper drops no owner before it has sent, unless the agent itself is ending.
        exit = &mut exit => exit.unwrap_or(Exit::Code(-1)),
        () = &mut due => unreachable!("`due` only ever acts"),
    };
    let at_end = async { while readers.join_next().await.is_some() {} };
    tokio::select! {
        () = at_end => return exit,
        () = process.cut_short.cancelled() => {}
        () = &mut due => unreachable!("`due` only ever acts"),
    }
    finish.cancel();
    let leftover = async { while readers.join_next().await.is_some() {} };
    drop(tokio::time::timeout(LEFTOVER_WAIT, leftover).await); // the rest goes with the readers
    exit
}

/// One stream of output.
enum Source {
    Stdout(pipe::Receiver),
    Stderr(pipe::Receiver),
    Terminal(Arc<Terminal>),
}

impl Source {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(pipe) | Self::Stderr(pipe) => pipe.read(buffer).await,
            Self::Terminal(terminal) => terminal.read(buffer).await,
        }
    }

    /// What is there already, asking the kernel itself: the runtime may not have heard of it yet.
    fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = match self {
            Self::Stdout(pipe) | Self::Stderr(pipe) => pipe.as_fd(),
            Self::Terminal(terminal) => terminal.as_fd(),
        };
        Ok(nix::unistd::read(fd, buffer)?)
    }

    fn event(&self, piece: Bytes) -> Event {
        match self {
            Self::Stdout(_) => Event::Stdout(piece),
            Self::Stderr(_) => Event::Stderr(piece),
            Self::Terminal(_) => Event::Pty(piece),
        }
    }

    fn piece_bytes(&self) -> usize {
        match self {
            Self::Stdout(_) | Self::Stderr(_) => PIPE_PIECE_BYTES,
            Self::Terminal(_) => TERMINAL_PIECE_BYTES,
        }
    }
}

/// Tells listeners what comes, until the end of output; after `finish` only what is there already, and little of it.
async fn forward(process: Arc<Process>, mut source: Source, finish: CancellationToken) {
    let mut buffer = vec![0; source.piece_bytes()];
    let mut leftover_pieces = 0;
    while leftover_pieces < LEFTOVER_PIECES_MAX {
        let read = tokio::select! {
            biased;
            read = source.read(&mut buffer) => read,
            () = finish.cancelled() => source.read_now(&mut buffer),
        };
        let Ok(count @ 1..) = read else {
            return; // end of output, or nothing there at the finish
        };
        process.fanout.tell(source.event(Bytes::copy_from_slice(&buffer[..count]))).await;
        leftover_pieces += usize::from(finish.is_cancelled());
    }
}
