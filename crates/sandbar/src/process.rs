//! Processes in a sandbox, as a client of its agent.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::Method;
use sandbar_wire::envd::envelope::{self, END_OF_STREAM};
use sandbar_wire::envd::process::{
    CloseStdinRequest, ProcessConfig, ProcessEvent, ProcessInput, ProcessSelector, Pty, PtySize,
    SendInputRequest, StartRequest, StartResponse, UpdateRequest,
};
use sandbar_wire::envd::{Codec, EndOfStream, KEEPALIVE_HEADER, Message};

use crate::client::{Access, Client, success};

/// The agent sends output in pieces of 32 KiB; ten times that after encoding is far more than it ever sends.
const MESSAGE_BYTES_MAX: u32 = 1024 * 1024;

/// Seconds of silence after which the agent shows that it is still there.
const KEEPALIVE_SECS: &str = "50";

/// What to run.
pub(crate) struct Command<'a> {
    pub(crate) program: &'a str,
    pub(crate) arguments: Vec<String>,
    pub(crate) envs: BTreeMap<String, String>,
    pub(crate) cwd: Option<String>,
    pub(crate) user: Option<&'a str>,
    /// Whether input will be sent.
    pub(crate) stdin: bool,
    /// A terminal of this size instead of pipes.
    pub(crate) terminal: Option<PtySize>,
}

impl<'a> Command<'a> {
    /// A line for the login shell, as the SDKs run commands.
    pub(crate) fn shell(line: &str) -> Self {
        Self {
            program: "/bin/bash",
            arguments: vec!["-l".into(), "-c".into(), line.into()],
            envs: BTreeMap::new(),
            cwd: None,
            user: None,
            stdin: false,
            terminal: None,
        }
    }
}

/// A running process and the stream of its events.
pub(crate) struct Process {
    pub(crate) input: Input,
    events: Events,
}

/// The way to a process's input.
#[derive(Clone)]
pub(crate) struct Input {
    client: Client,
    sandbox: Access,
    pid: u32,
    terminal: bool,
}

/// Starts a process and waits until it runs.
pub(crate) async fn start(
    client: &Client,
    sandbox: &Access,
    command: Command<'_>,
) -> anyhow::Result<Process> {
    let terminal = command.terminal.is_some();
    let message = StartRequest {
        process: Some(ProcessConfig {
            cmd: command.program.to_owned(),
            args: command.arguments,
            envs: command.envs,
            cwd: command.cwd,
        }),
        pty: command.terminal.map(|size| Pty { size: Some(size) }),
        tag: None,
        stdin: Some(command.stdin),
    };
    let mut request = client
        .sandbox_request(Method::POST, sandbox, "/process.Process/Start")
        .header("content-type", Codec::Json.stream_content_type())
        .header("connect-protocol-version", "1")
        .header(KEEPALIVE_HEADER, KEEPALIVE_SECS)
        .body(envelope::frame(0, &Codec::Json.encode(&message)));
    if let Some(user) = command.user {
        request = request.basic_auth(user, Some(""));
    }
    let answer = success(request.send().await.context("reach the sandbox")?).await?;
    let mut events = Events::new(answer);
    let pid = match events.next().await? {
        Some(ProcessEvent { start: Some(start), .. }) => start.pid,
        _ => bail!("the agent did not say that the process was started"),
    };
    let input = Input { client: client.clone(), sandbox: sandbox.clone(), pid, terminal };
    Ok(Process { input, events })
}

impl Process {
    /// The next event; `None` after the last. Keepalives are skipped.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<ProcessEvent>> {
        loop {
            match self.events.next().await? {
                Some(event) if event.keepalive.is_some() => {}
                other => return Ok(other),
            }
        }
    }
}

impl Input {
    /// Hands bytes to the process.
    pub(crate) async fn send(&self, bytes: Vec<u8>) -> anyhow::Result<()> {
        let input = if self.terminal {
            ProcessInput { pty: Some(bytes), ..ProcessInput::default() }
        } else {
            ProcessInput { stdin: Some(bytes), ..ProcessInput::default() }
        };
        self.call("SendInput", &SendInputRequest { process: self.selector(), input: Some(input) }).await
    }

    /// Ends the input.
    pub(crate) async fn close(&self) -> anyhow::Result<()> {
        self.call("CloseStdin", &CloseStdinRequest { process: self.selector() }).await
    }

    /// Tells the terminal its new size.
    pub(crate) async fn resize(&self, size: PtySize) -> anyhow::Result<()> {
        let pty = Some(Pty { size: Some(size) });
        self.call("Update", &UpdateRequest { process: self.selector(), pty }).await
    }

    fn selector(&self) -> Option<ProcessSelector> {
        Some(ProcessSelector::of_pid(self.pid))
    }

    async fn call(&self, method: &str, message: &impl Message) -> anyhow::Result<()> {
        let path = format!("/process.Process/{method}");
        let request = self
            .client
            .sandbox_request(Method::POST, &self.sandbox, &path)
            .header("content-type", Codec::Json.unary_content_type())
            .header("connect-protocol-version", "1")
            .body(Codec::Json.encode(message));
        success(request.send().await.context("reach the sandbox")?).await.map(drop)
    }
}

/// The messages of a streaming answer.
struct Events {
    chunks: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    decoder: envelope::Decoder,
    ended: bool,
}

impl Events {
    fn new(answer: reqwest::Response) -> Self {
        let chunks = answer.bytes_stream().boxed();
        Self { chunks, decoder: envelope::Decoder::new(MESSAGE_BYTES_MAX), ended: false }
    }

    async fn next(&mut self) -> anyhow::Result<Option<ProcessEvent>> {
        while !self.ended {
            if let Some(envelope) = self.decoder.next_envelope()? {
                if envelope.flags & END_OF_STREAM == 0 {
                    let message: StartResponse = Codec::Json.decode(&envelope.payload)?;
                    return Ok(message.event);
                }
                self.ended = true;
                let end: EndOfStream =
                    serde_json::from_slice(&envelope.payload).context("read end of stream")?;
                if let Some(error) = end.error {
                    bail!("{}: {}", error.code.as_str(), error.message);
                }
                return Ok(None);
            }
            match self.chunks.next().await {
                Some(chunk) => self.decoder.push(&chunk.context("the connection to the sandbox broke")?),
                None => bail!("the sandbox ended before the process did"),
            }
        }
        Ok(None)
    }
}
