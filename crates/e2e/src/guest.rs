//! A sandbox's agent, spoken by hand: commands in its streaming protocol, and files.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::Answer;

const END_OF_STREAM: u8 = 2;
/// No test command takes longer.
const COMMAND_WITHIN: Duration = Duration::from_secs(90);

/// The way into one sandbox over plain HTTP, with its token.
#[derive(Clone, Debug)]
pub struct Guest {
    http: Client,
    base: String,
    /// The sandbox.
    pub id: String,
    /// The token of its agent, when it is secured.
    pub token: Option<String>,
}

/// What a command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The exit code; a signal's end gives −1.
    pub code: i64,
}

impl Guest {
    pub(crate) fn new(base: String, id: String, token: Option<String>) -> Self {
        let http = Client::builder().no_proxy().build().expect("the client needs nothing");
        Self { http, base, id, token }
    }

    /// The same without a token.
    pub fn without_token(&self) -> Self {
        self.with_token(None)
    }

    /// The same with another token.
    pub fn with_token(&self, token: Option<String>) -> Self {
        Self { token, ..self.clone() }
    }

    /// A request to a port of the sandbox.
    pub fn request(&self, method: Method, port: u16, path: &str) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .header("E2b-Sandbox-Id", &self.id)
            .header("E2b-Sandbox-Port", port);
        match &self.token {
            Some(token) => request.header("X-Access-Token", token),
            None => request,
        }
    }

    /// A request to the agent.
    pub fn agent(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, 49983, path)
    }

    /// One call of the agent with one answer.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn call(&self, method: &str, body: Value) -> Result<Answer> {
        Answer::of(self.agent(Method::POST, &format!("/{method}")).json(&body).timeout(COMMAND_WITHIN)).await
    }

    /// Whether its agent answers.
    ///
    /// # Errors
    /// When the edge does not answer.
    pub async fn is_running(&self) -> Result<bool> {
        Ok(Answer::of(self.agent(Method::GET, "/health").timeout(COMMAND_WITHIN)).await?.is_success())
    }

    /// Runs a shell command as the default user and waits for its end.
    ///
    /// # Errors
    /// When it cannot be started or its stream breaks; a non-zero exit code is none.
    pub async fn run(&self, command: &str) -> Result<Output> {
        self.run_as(None, command).await
    }

    /// [`Guest::run`] as another user.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub async fn run_as(&self, user: Option<&str>, command: &str) -> Result<Output> {
        let start = json!({ "process": shell(command), "stdin": false });
        let run = self.stream(user, "process.Process/Start", start, |_| true);
        tokio::time::timeout(COMMAND_WITHIN, run).await.with_context(|| format!("time of {command:?}"))?
    }

    /// Runs a shell command that must succeed; gives its output without white space at the ends.
    ///
    /// # Errors
    /// As [`Guest::run`], and when it exits with another code than 0.
    pub async fn out(&self, command: &str) -> Result<String> {
        let output = self.run(command).await?;
        ensure!(output.code == 0, "{command:?}: {output:?}");
        Ok(output.stdout.trim().to_owned())
    }

    /// Starts a shell command and leaves it running.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(&self, command: &str) -> Result<u64> {
        let mut pid = None;
        let start = json!({ "process": shell(command), "stdin": false });
        let run = self.stream(None, "process.Process/Start", start, |event| {
            pid = event["start"]["pid"].as_u64();
            false
        });
        tokio::time::timeout(COMMAND_WITHIN, run)
            .await
            .with_context(|| format!("start of {command:?}"))??;
        pid.with_context(|| format!("pid of {command:?}"))
    }

    /// Waits for the end of a command that runs already, with the output from now on.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub async fn connect(&self, pid: u64) -> Result<Output> {
        let run =
            self.stream(None, "process.Process/Connect", json!({ "process": { "pid": pid } }), |_| true);
        tokio::time::timeout(COMMAND_WITHIN, run).await.with_context(|| format!("time of process {pid}"))?
    }

    /// Follows a stream of process events to its end, or until `more` says that it was enough.
    async fn stream(
        &self,
        user: Option<&str>,
        method: &str,
        message: Value,
        mut more: impl FnMut(&Value) -> bool,
    ) -> Result<Output> {
        let mut request = self
            .agent(Method::POST, &format!("/{method}"))
            .header("Content-Type", "application/connect+json")
            .header("Connect-Protocol-Version", "1")
            .body(envelope(&message));
        if let Some(user) = user {
            request = request.basic_auth(user, Some(""));
        }
        let response = request.send().await?;
        let status = response.status();
        if !status.is_success() {
            bail!("{method}: {status} {}", response.text().await?);
        }
        let mut output = Output::default();
        let mut chunks = response.bytes_stream();
        let mut buffer = Vec::new();
        while let Some(chunk) = chunks.next().await {
            buffer.extend_from_slice(&chunk?);
            while let Some((flags, payload)) = take_envelope(&mut buffer) {
                let message: Value = serde_json::from_slice(&payload)?;
                if flags & END_OF_STREAM != 0 {
                    ensure!(message.get("error").is_none(), "{method}: {message}");
                    return Ok(output);
                }
                let event = &message["event"];
                output.stdout.push_str(&text(&event["data"]["stdout"])?);
                output.stderr.push_str(&text(&event["data"]["stderr"])?);
                if let Some(end) = event.get("end") {
                    output.code = end["exitCode"].as_i64().unwrap_or(0);
                }
                if !more(event) {
                    return Ok(output);
                }
            }
        }
        bail!("{method}: the stream broke off after {output:?}")
    }
}

fn shell(command: &str) -> Value {
    json!({ "cmd": "/bin/bash", "args": ["-l", "-c", command] })
}

fn envelope(message: &Value) -> Vec<u8> {
    let payload = message.to_string().into_bytes();
    let length = u32::try_from(payload.len()).expect("test messages are small");
    [&[0], length.to_be_bytes().as_slice(), &payload].concat()
}

/// Takes the first whole envelope out of the buffer: its flags and its payload.
fn take_envelope(buffer: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let head: [u8; 5] = buffer.get(..5)?.try_into().ok()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    let rest = buffer.split_off(5 + length);
    let payload = std::mem::replace(buffer, rest).split_off(5);
    Some((head[0], payload))
}

fn text(bytes: &Value) -> Result<String> {
    let Some(bytes) = bytes.as_str() else {
        return Ok(String::new());
    };
    Ok(String::from_utf8_lossy(&STANDARD.decode(bytes)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_are_taken_one_by_one_and_only_whole() {
        let mut buffer = [envelope(&json!({"a": 1})), envelope(&json!({"b": 2}))].concat();
        let last = buffer.pop().expect("there is one");
        assert_eq!(take_envelope(&mut buffer), Some((0, br#"{"a":1}"#.to_vec())));
        assert_eq!(take_envelope(&mut buffer), None);
        buffer.push(last);
        assert_eq!(take_envelope(&mut buffer), Some((0, br#"{"b":2}"#.to_vec())));
        assert_eq!(take_envelope(&mut buffer), None);
    }
}
