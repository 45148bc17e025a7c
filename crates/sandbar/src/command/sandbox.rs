//! `sandbar sandbox …`: create, look at, use and kill sandboxes of a server.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use sandbar_wire::envd::process::{EndEvent, ProcessEvent};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::{Access, Client, ServerFlags};
use crate::output::{self, Format};
use crate::process::{self, Command, Input, Process};
use crate::terminal;

/// Work with the sandboxes of a server.
#[derive(Args, Debug)]
pub(crate) struct SandboxArgs {
    #[command(flatten)]
    server: ServerFlags,
    /// How results are shown: a table on a terminal, JSON otherwise.
    #[arg(long, value_enum, global = true)]
    output: Option<Format>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Create a sandbox and print its id.
    Create {
        /// Template to start from.
        #[arg(default_value = "base")]
        template: String,
        /// Seconds until it ends.
        #[arg(long, default_value_t = 300)]
        timeout: u32,
        /// Variable of every process, as NAME=VALUE; may be repeated.
        #[arg(long, value_parser = pair)]
        env: Vec<(String, String)>,
        /// Label to find it by, as NAME=VALUE; may be repeated.
        #[arg(long, value_parser = pair)]
        metadata: Vec<(String, String)>,
        /// Let it reach nothing outside.
        #[arg(long)]
        no_internet: bool,
    },
    /// List sandboxes.
    List {
        /// Only those with this label, as NAME=VALUE; may be repeated.
        #[arg(long, value_parser = pair)]
        metadata: Vec<(String, String)>,
    },
    /// Show one sandbox.
    Info {
        /// Its id.
        id: String,
    },
    /// Run a command and exit with its exit code. Input is handed on when it is not a terminal.
    Exec {
        /// Id of the sandbox.
        id: String,
        /// User to run as.
        #[arg(long, short)]
        user: Option<String>,
        /// Directory to run in.
        #[arg(long, short)]
        cwd: Option<String>,
        /// Variable, as NAME=VALUE; may be repeated.
        #[arg(long, value_parser = pair)]
        env: Vec<(String, String)>,
        /// The command. One word is a line for the shell, several are a program and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Open a terminal in a sandbox.
    Connect {
        /// Its id.
        id: String,
        /// User to log in as.
        #[arg(long, short)]
        user: Option<String>,
    },
    /// End sandboxes.
    Kill {
        /// Their ids.
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// All of them.
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Show what a sandbox's agent logged.
    Logs {
        /// Its id.
        id: String,
    },
}

impl SandboxArgs {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = Client::connect(&self.server)?;
        let format = Format::choose(self.output);
        match self.verb {
            Verb::Create { template, timeout, env, metadata, no_internet } => {
                let body = json!({
                    "templateID": template,
                    "timeout": timeout,
                    "envVars": object(env),
                    "metadata": object(metadata),
                    "allow_internet_access": !no_internet,
                });
                let created: Value = client.call(Method::POST, "/v2/sandboxes", Some(&body)).await?;
                match format {
                    Format::Json => output::json(&without_token(created))?,
                    Format::Table => output::line(&text(&created, "sandboxID"))?,
                }
            }
            Verb::List { metadata } => show_list(format, list(&client, &metadata).await?)?,
            Verb::Info { id } => {
                let detail: Value = client.call(Method::GET, &format!("/sandboxes/{id}"), None).await?;
                show_info(format, without_token(detail))?;
            }
            Verb::Exec { id, user, cwd, env, command } => {
                let sandbox = client.access(&id).await?;
                return exec(&client, &sandbox, user.as_deref(), cwd, env, command).await;
            }
            Verb::Connect { id, user } => {
                let sandbox = client.access(&id).await?;
                return connect(&client, &sandbox, user.as_deref()).await;
            }
            Verb::Kill { ids, all } => {
                let ids = if all {
                    list(&client, &[]).await?.iter().map(|sandbox| text(sandbox, "sandboxID")).collect()
                } else {
                    ids
                };
                for id in ids {
                    client
                        .command(Method::DELETE, &format!("/sandboxes/{id}"), None)
                        .await
                        .context(id.clone())?;
                    output::line(&id)?;
                }
            }
            Verb::Logs { id } => show_logs(format, &client, &id).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// All running sandboxes, page by page.
async fn list(client: &Client, metadata: &[(String, String)]) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut request = client.request(Method::GET, "/v2/sandboxes").query(&[("limit", "100")]);
        if !metadata.is_empty() {
            request = request.query(&[("metadata", metadata_filter(metadata))]);
        }
        if let Some(token) = &next {
            request = request.query(&[("nextToken", token)]);
        }
        let answer = crate::client::success(request.send().await.context("reach the server")?).await?;
        next = answer
            .headers()
            .get("x-next-token")
            .and_then(|token| token.to_str().ok())
            .filter(|token| !token.is_empty())
            .map(str::to_owned);
        all.extend(answer.json::<Vec<Value>>().await.context("read list")?);
        if next.is_none() {
            return Ok(all);
        }
    }
}

/// Pairs as the SDKs write them: every name and value is percent-encoded, and the pairs again as a form
/// (contract/control-api.md §5.11).
fn metadata_filter(pairs: &[(String, String)]) -> String {
    let twice = |text: &str| {
        let once = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        utf8_percent_encode(&once, NON_ALPHANUMERIC).to_string()
    };
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", twice(name), twice(value))).collect();
    pairs.join("&")
}

fn show_list(format: Format, sandboxes: Vec<Value>) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(&sandboxes);
    }
    let rows: Vec<[String; 6]> = sandboxes
        .iter()
        .map(|sandbox| {
            let template = sandbox["alias"].as_str().filter(|alias| !alias.is_empty());
            [
                text(sandbox, "sandboxID"),
                template.map_or_else(|| text(sandbox, "templateID"), str::to_owned),
                text(sandbox, "state"),
                text(sandbox, "startedAt"),
                text(sandbox, "endAt"),
                sandbox.get("metadata").map(ToString::to_string).unwrap_or_default(),
            ]
        })
        .collect();
    output::table(["ID", "TEMPLATE", "STATE", "STARTED", "ENDS", "METADATA"], &rows)?;
    Ok(())
}

fn show_info(format: Format, detail: Value) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(&detail);
    }
    let members = detail.as_object().context("the answer is no object")?;
    let rows: Vec<[String; 2]> = members
        .iter()
        .map(|(name, value)| [name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)])
        .collect();
    output::table(["FIELD", "VALUE"], &rows)?;
    Ok(())
}

async fn show_logs(format: Format, client: &Client, id: &str) -> anyhow::Result<()> {
    let logs: Value = client.call(Method::GET, &format!("/sandboxes/{id}/logs"), None).await?;
    if format == Format::Json {
        return output::json(&logs["logEntries"]);
    }
    for entry in logs["logEntries"].as_array().into_iter().flatten() {
        output::line(&format!(
            "{}  {:<5}  {}",
            text(entry, "timestamp"),
            text(entry, "level"),
            text(entry, "message")
        ))?;
    }
    Ok(())
}

async fn exec(
    client: &Client,
    sandbox: &Access,
    user: Option<&str>,
    cwd: Option<String>,
    env: Vec<(String, String)>,
    words: Vec<String>,
) -> anyhow::Result<ExitCode> {
    let line = match words.as_slice() {
        [line] => line.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    };
    let handed_on = !std::io::stdin().is_terminal();
    let mut command = Command::shell(&line);
    command.envs = env.into_iter().collect();
    command.cwd = cwd;
    command.user = user;
    command.stdin = handed_on;
    let process = process::start(client, sandbox, command).await?;
    let feeder = handed_on.then(|| tokio::spawn(feed(process.input.clone())));
    let end = show(process).await;
    if let Some(feeder) = feeder {
        // The process has ended; what is left of the input is for nobody.
        feeder.abort();
    }
    Ok(exit_code(&end?))
}

/// Hands our input on until it ends. Errors mean that the process does not want it any more.
async fn feed(input: Input) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if input.send(buffer[..count].to_vec()).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = input.close().await;
}

/// Prints what a process prints, until it ends.
async fn show(mut process: Process) -> anyhow::Result<EndEvent> {
    let mut end = None;
    while let Some(event) = process.next().await? {
        print(&event)?;
        end = event.end.or(end);
    }
    end.context("the agent did not say how the process ended")
}

fn print(event: &ProcessEvent) -> std::io::Result<()> {
    let Some(data) = &event.data else { return Ok(()) };
    if let Some(bytes) = data.stdout.as_ref().or(data.pty.as_ref()) {
        let mut out = std::io::stdout();
        out.write_all(bytes)?;
        out.flush()?;
    }
    if let Some(bytes) = &data.stderr {
        std::io::stderr().write_all(bytes)?;
    }
    Ok(())
}

async fn connect(client: &Client, sandbox: &Access, user: Option<&str>) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(terminal::is_interactive(), "connect needs a terminal; use exec for a single command");
    let mut command = Command::shell("");
    command.arguments = vec!["-i".into(), "-l".into()];
    command.envs = [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    command.user = user;
    command.terminal = Some(terminal::size());
    let process = process::start(client, sandbox, command).await?;
    let raw = terminal::Raw::enter()?;
    let feeder = tokio::spawn(feed_keys(process.input.clone()));
    let sizer = tokio::spawn(follow_size(process.input.clone()));
    let end = show(process).await;
    feeder.abort();
    sizer.abort();
    drop(raw);
    Ok(exit_code(&end?))
}

async fn feed_keys(input: Input) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 4096];
    while let Ok(count @ 1..) = stdin.read(&mut buffer).await {
        if input.send(buffer[..count].to_vec()).await.is_err() {
            return;
        }
    }
}

async fn follow_size(input: Input) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        if input.resize(terminal::size()).await.is_err() {
            return;
        }
    }
}

/// The command's own exit code, as a shell would report it; 128 and more when a signal ended it.
fn exit_code(end: &EndEvent) -> ExitCode {
    match u8::try_from(end.exit_code) {
        Ok(code) => ExitCode::from(code),
        Err(_) => {
            output::note(&end.status);
            ExitCode::from(137)
        }
    }
}

/// A word that the shell reads as just that word.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn object(pairs: Vec<(String, String)>) -> Value {
    pairs
        .into_iter()
        .map(|(name, value)| (name, Value::String(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

/// Tokens are for programs that use them, not for terminals and their histories.
fn without_token(mut answer: Value) -> Value {
    if let Some(members) = answer.as_object_mut() {
        members.remove("envdAccessToken");
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("a-b=c"), "a-b=c");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_pair_splits_at_the_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("a").is_err());
    }
}
