//! `process.Process` as clients call it.

use std::sync::Arc;
use std::time::Duration;

use crate::question::Question;
use futures::stream;
use http::Request;
use nix::errno::Errno;
use nix::sys::signal;
use sandbar_wire::envd::process::{
    CLOSE_STDIN, CONNECT, CloseStdinRequest, CloseStdinResponse, ConnectRequest, ConnectResponse, DataEvent,
    EndEvent, Input, KeepAlive, LIST, ListRequest, ListResponse, ProcessEvent, ProcessInfo, ProcessInput,
    SEND_INPUT, SEND_SIGNAL, START, STREAM_INPUT, SendInputRequest, SendInputResponse, SendSignalRequest,
    SendSignalResponse, Signal, StartEvent, StartRequest, StartResponse, StreamInputRequest,
    StreamInputResponse, UPDATE, UpdateRequest, UpdateResponse,
};
use sandbar_wire::envd::{Code, Message, RpcError};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::fanout::Event;
use super::live::{InputError, Process};
use super::start::{Plan, start};
use super::table::{Attached, Table};
use crate::accounts::Accounts;
use crate::auth;
use crate::body::Answer;
use crate::connect::{Context, Inbound, Messages, client_stream, server_stream, unary};
use crate::guest::Guest;
use crate::reaper::Children;

/// How long the answer to a kill waits for the end of the process.
const KILLED_WAIT: Duration = Duration::from_secs(2);

/// All methods of the service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    guest: Arc<Guest>,
    children: Children,
    table: Arc<Table>,
    /// Owns the task of every process.
    lives: TaskTracker,
}

impl Service {
    pub(crate) fn new(guest: Arc<Guest>, children: Children) -> Self {
        Self { guest, children, table: Arc::default(), lives: TaskTracker::new() }
    }

    /// Answers a call to one of the service's paths, `None` for any other path.
    pub(crate) async fn answer(&self, request: Request<Question>) -> Option<Answer> {
        Some(match request.uri().path() {
            START => server_stream(request, |context, message| self.start(context, message)).await,
            CONNECT => server_stream(request, |context, message| self.connect(context, message)).await,
            LIST => unary(request, |_, ListRequest {}| self.list()).await,
            UPDATE => unary(request, |_, message| self.update(message)).await,
            SEND_INPUT => unary(request, |_, message| self.send_input(message)).await,
            STREAM_INPUT => client_stream(request, |inbound| self.stream_input(inbound)).await,
            SEND_SIGNAL => unary(request, |_, message| self.send_signal(message)).await,
            CLOSE_STDIN => unary(request, |_, message| self.close_stdin(message)).await,
            _ => return None,
        })
    }

    /// The start itself runs in its own task: a caller that hangs up leaves a whole process or none.
    async fn start(
        &self,
        context: Context,
        request: StartRequest,
    ) -> Result<Messages<StartResponse>, RpcError> {
        let this = self.clone();
        let deadline = context.deadline;
        let started = self.lives.spawn_blocking(move || {
            let accounts = Accounts::load();
            let settings = this.guest.settings().clone();
            let user = auth::caller(context.user.as_deref(), &settings, &accounts)?;
            let plan = Plan::new(request, user, &accounts, &settings)?;
            let started = start(plan, &this.children)?;
            let (pid, events, life) = started.into_life(this.table, this.children, deadline);
            this.lives.spawn(life);
            Ok::<_, RpcError>((pid, events))
        });
        let (pid, events) =
            started.await.map_err(|_| RpcError::new(Code::Internal, "start task ended early"))??;
        tracing::debug!(pid, "process started");
        Ok(messages(pid, Source::Live(events), context.keepalive))
    }

    async fn connect(
        &self,
        context: Context,
        request: ConnectRequest,
    ) -> Result<Messages<ConnectResponse>, RpcError> {
        let (pid, source) = match self.table.attach(request.process.as_ref())? {
            Attached::Live { pid, events } => (pid, Source::Live(events)),
            Attached::Ended { pid, end } => (pid, Source::Ended(end)),
        };
        Ok(messages(pid, source, context.keepalive))
    }

    async fn list(&self) -> Result<ListResponse, RpcError> {
        let info = |process: Arc<Process>| ProcessInfo {
            config: Some(process.config.clone()),
            pid: process.pid,
            tag: process.tag.clone(),
        };
        Ok(ListResponse { processes: self.table.all().into_iter().map(info).collect() })
    }

    async fn update(&self, request: UpdateRequest) -> Result<UpdateResponse, RpcError> {
        let process = self.table.find(request.process.as_ref())?;
        if let Some(pty) = request.pty {
            let resized = tokio::task::spawn_blocking(move || process.resize(pty.size.unwrap_or_default()));
            let resized =
                resized.await.map_err(|_| RpcError::new(Code::Internal, "resize task ended early"))?;
            resized.map_err(internal)?;
        }
        Ok(UpdateResponse {})
    }

    async fn send_input(&self, request: SendInputRequest) -> Result<SendInputResponse, RpcError> {
        let process = self.table.find(request.process.as_ref())?;
        write(&process, request.input.as_ref()).await?;
        Ok(SendInputResponse {})
    }

    async fn stream_input(
        &self,
        mut inbound: Inbound<StreamInputRequest>,
    ) -> Result<StreamInputResponse, RpcError> {
        let mut process = None;
        while let Some(message) = inbound.next().await? {
            if let Some(start) = &message.start {
                process = Some(self.table.find(start.process.as_ref())?);
            }
            if let Some(data) = &message.data {
                let process = process.as_ref().ok_or_else(|| {
                    RpcError::new(
                        Code::InvalidArgument,
                        "the first message of an input stream must be `start`",
                    )
                })?;
                write(process, data.input.as_ref()).await?;
            }
        }
        Ok(StreamInputResponse {})
    }

    async fn send_signal(&self, request: SendSignalRequest) -> Result<SendSignalResponse, RpcError> {
        let process = self.table.find(request.process.as_ref())?;
        let signal = match Signal::try_from(request.signal) {
            Ok(Signal::Sigkill) => signal::Signal::SIGKILL,
            Ok(Signal::Sigterm) => signal::Signal::SIGTERM,
            Ok(Signal::Unspecified) | Err(_) => {
                let message = format!("invalid signal: {}", request.signal);
                return Err(RpcError::new(Code::Unimplemented, message));
            }
        };
        // Also when the program has ended and only a child of it holds the output open: then this lets go of it.
        process.cut_short.cancel();
        match self.children.signal(process.pid, signal) {
            Ok(_) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                return Err(RpcError::new(Code::Internal, format!("error sending signal: {errno}")));
            }
        }
        if signal == signal::Signal::SIGKILL {
            // Whoever lists processes next must not find it any more. It may take longer; then so be it.
            let _ = tokio::time::timeout(KILLED_WAIT, process.finished.cancelled()).await;
        }
        Ok(SendSignalResponse {})
    }

    async fn close_stdin(&self, request: CloseStdinRequest) -> Result<CloseStdinResponse, RpcError> {
        let process = self.table.find(request.process.as_ref())?;
        if process.close_stdin().await {
            return Ok(CloseStdinResponse {});
        }
        let message = "cannot close stdin for PTY process: send Ctrl+D (0x04) instead";
        Err(RpcError::new(Code::Unknown, message))
    }
}

async fn write(process: &Process, input: Option<&ProcessInput>) -> Result<(), RpcError> {
    match input.and_then(ProcessInput::channel) {
        Some(Input::Stdin(bytes)) => process.write_stdin(bytes).await.map_err(internal),
        Some(Input::Pty(bytes)) => process.write_terminal(bytes).await.map_err(internal),
        None => Err(RpcError::new(Code::Unimplemented, "invalid input type: neither stdin nor pty")),
    }
}

fn internal(error: InputError) -> RpcError {
    let message = match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    RpcError::new(Code::Internal, message)
}

/// Where the events after the first come from.
enum Source {
    Live(mpsc::Receiver<Event>),
    Ended(EndEvent),
    /// The end was told.
    Over,
}

/// `start`, then what happens, then `end`, with a keepalive after each silence.
fn messages<A: Message + From<ProcessEvent> + 'static>(
    pid: u32,
    source: Source,
    keepalive: Duration,
) -> Messages<A> {
    let start = ProcessEvent { start: Some(StartEvent { pid }), ..ProcessEvent::default() };
    let rest = stream::unfold(source, move |source| async move {
        let mut events = match source {
            Source::Over => return None,
            Source::Ended(end) => return Some((ended(end), Source::Over)),
            Source::Live(events) => events,
        };
        match tokio::time::timeout(keepalive, events.recv()).await {
            Err(_silence) => {
                let event = ProcessEvent { keepalive: Some(KeepAlive {}), ..ProcessEvent::default() };
                Some((event, Source::Live(events)))
            }
            Ok(Some(Event::End(end))) => Some((ended(end), Source::Over)),
            Ok(Some(output)) => Some((data(output), Source::Live(events))),
            Ok(None) => None,
        }
    });
    let all = futures::StreamExt::chain(stream::once(async { start }), rest);
    Box::pin(futures::StreamExt::map(all, |event| Ok(A::from(event))))
}

fn ended(end: EndEvent) -> ProcessEvent {
    ProcessEvent { end: Some(end), ..ProcessEvent::default() }
}

fn data(output: Event) -> ProcessEvent {
    let data = match output {
        Event::Stdout(piece) => DataEvent { stdout: Some(piece.into()), ..DataEvent::default() },
        Event::Stderr(piece) => DataEvent { stderr: Some(piece.into()), ..DataEvent::default() },
        Event::Pty(piece) => DataEvent { pty: Some(piece.into()), ..DataEvent::default() },
        Event::End(end) => return ended(end),
    };
    ProcessEvent { data: Some(data), ..ProcessEvent::default() }
}
