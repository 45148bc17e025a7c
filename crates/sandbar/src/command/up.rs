//! `sandbar up`: from a fresh host to a first sandbox and the settings for the SDKs, in one command.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Access, Client};
use crate::output::{line, note};
use crate::process::{self, Command};
use crate::server::{self, Server};
use crate::settings::{DataDir, ServeFlags, Settings};
use crate::setup::{Consent, prepare};
use crate::signals::Signals;

/// Prepare this host, run the server, and show a first sandbox.
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    data: DataDir,
    #[command(flatten)]
    flags: ServeFlags,
    /// Install without being asked.
    #[arg(long)]
    yes: bool,
}

impl UpArgs {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        server::start_logging(server::LIFE_EVENTS);
        let settings = Settings::read(&self.data.data_dir, self.flags)?;
        prepare(&settings.data_dir, if self.yes { Consent::Given } else { Consent::Ask }).await?;
        let mut signals = Signals::listen()?;
        let server = Server::start(settings, &mut signals).await?;
        let shown = hello(&server).await.context("run a first sandbox");
        if shown.is_ok() {
            print_settings(&server)?;
        }
        match shown {
            Ok(()) => server.run_until(&mut signals).await?,
            Err(error) => {
                server.stop().await?;
                return Err(error);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Creates a sandbox, runs a command in it and kills it, as any client would.
async fn hello(server: &Server) -> anyhow::Result<()> {
    let client = Client::new(server.ready().url()?, server.api_key()?)?;
    let began = Instant::now();
    let body = json!({ "templateID": "base", "timeout": 60 });
    let created: Value = client.call(Method::POST, "/v2/sandboxes", Some(&body)).await?;
    let sandbox = Access::of(&created);
    let created_in = began.elapsed();
    let said = say(&client, &sandbox).await;
    let took = began.elapsed();
    client.command(Method::DELETE, &format!("/sandboxes/{}", sandbox.id), None).await?;
    note(&format!(
        "A first sandbox was created in {} ms and said: {}",
        created_in.as_millis(),
        said?.trim_end()
    ));
    note(&format!("(create, first command and its output: {} ms)", took.as_millis()));
    Ok(())
}

async fn say(client: &Client, sandbox: &Access) -> anyhow::Result<String> {
    let command = Command::shell("echo hello from $(hostname), a $(uname -s) sandbox of user $(whoami)");
    let mut process = process::start(client, sandbox, command).await?;
    let mut said = Vec::new();
    while let Some(event) = process.next().await? {
        said.extend(event.data.and_then(|data| data.stdout).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn print_settings(server: &Server) -> anyhow::Result<()> {
    let (ready, tls) = (server.ready(), server.settings().data_dir.join("tls"));
    let addresses: Vec<String> = ready.listen.iter().map(ToString::to_string).collect();
    note(&format!("Listening on {} (TLS and plain HTTP). Ctrl-C stops the server.", addresses.join(" and ")));
    note("Settings for the SDKs and the E2B command line:\n");
    line(&format!("export E2B_DOMAIN={}", ready.domain))?;
    line(&format!("export E2B_API_KEY={}", server.api_key()?))?;
    line(&format!("export NODE_EXTRA_CA_CERTS={}", tls.join("ca.pem")))?;
    line(&format!("export SSL_CERT_FILE={}", tls.join("bundle.pem")))?;
    Ok(())
}
