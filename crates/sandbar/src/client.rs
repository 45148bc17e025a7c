//! The command line as a client of a server: the control plane's REST calls.

use anyhow::{Context, bail};
use camino::Utf8Path;
use clap::Args;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ready::Ready;
use crate::settings::DataDir;

/// Which server to talk to.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerFlags {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// URL of the server; the one that runs on the data directory by default.
    #[arg(long, env = "SANDBAR_URL", global = true)]
    url: Option<String>,
    /// API key; the one in the data directory by default.
    #[arg(long, env = "E2B_API_KEY", hide_env_values = true, global = true)]
    api_key: Option<String>,
}

/// A server and the right to use it.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    api_key: String,
}

impl Client {
    /// Finds the server: flags and environment first, then the data directory.
    pub(crate) fn connect(flags: &ServerFlags) -> anyhow::Result<Self> {
        let data_dir = &flags.data.data_dir;
        let url = match &flags.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => Ready::read(data_dir)?.url()?,
        };
        let api_key = match &flags.api_key {
            Some(key) => key.clone(),
            None => read_api_key(data_dir)?,
        };
        Self::new(url, api_key)
    }

    /// A client of the server at `url`, without a path.
    pub(crate) fn new(url: String, api_key: String) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy() // the server is ours, often on loopback; a proxy of the environment is for the outside
            .tcp_nodelay(true)
            .build()
            .context("make HTTP client")?;
        Ok(Self { http, url, api_key })
    }

    /// A request to the control plane.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).header("x-api-key", &self.api_key)
    }

    /// A request to a port of a sandbox.
    pub(crate) fn sandbox_request(&self, method: Method, sandbox: &Access, path: &str) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .header("e2b-sandbox-id", &sandbox.id)
            .header("e2b-sandbox-port", sandbar_wire::envd::PORT.to_string());
        match &sandbox.token {
            Some(token) => request.header(sandbar_wire::envd::ACCESS_TOKEN_HEADER, token),
            None => request,
        }
    }

    /// Sends a request to the control plane; the answer's JSON.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<T> {
        let answer = self.send(method, path, body).await?;
        answer.json().await.with_context(|| format!("read answer of {path}"))
    }

    /// Sends a request to the control plane and wants no answer but success.
    pub(crate) async fn command(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<()> {
        self.send(method, path, body).await.map(drop)
    }

    /// Sends a request to the control plane; its answer, which is a success.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Response> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("reach the server at {}", self.url))?;
        success(answer).await
    }

    /// How to reach the agent of a sandbox.
    pub(crate) async fn access(&self, id: &str) -> anyhow::Result<Access> {
        let detail: Value = self.call(Method::GET, &format!("/sandboxes/{id}"), None).await?;
        Ok(Access::of(&detail))
    }
}

/// How to reach the agent of a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) id: String,
    pub(crate) token: Option<String>,
}

impl Access {
    /// As a create, connect or detail answer says it.
    pub(crate) fn of(answer: &Value) -> Self {
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        Self { id: text("sandboxID").unwrap_or_default(), token: text("envdAccessToken") }
    }
}

/// The answer if it is a success, else what it says.
pub(crate) async fn success(answer: Response) -> anyhow::Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    let message = serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|body| body["message"].as_str().map(str::to_owned))
        .unwrap_or(text);
    match status {
        StatusCode::UNAUTHORIZED => bail!("{message} (set E2B_API_KEY or name the server's --data-dir)"),
        _ => bail!("{message} ({})", status.as_u16()),
    }
}

/// The first API key, which the server wrote at its first start.
pub(crate) fn read_api_key(data_dir: &Utf8Path) -> anyhow::Result<String> {
    let path = data_dir.join("api-key");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("read {path}; without it, set E2B_API_KEY"))?;
    Ok(text.trim().to_owned())
}
