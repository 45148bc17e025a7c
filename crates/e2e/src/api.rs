//! The control plane, spoken by hand.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Guest;

/// Longer than a start may take; clients give up after 60 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A client of the control plane over plain HTTP.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    base: String,
    key: Option<String>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

/// The answer to a create or connect, as far as tests need it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// The sandbox.
    #[serde(rename = "sandboxID")]
    pub id: String,
    /// The token of its agent, when it is secured.
    pub envd_access_token: Option<String>,
}

impl Api {
    /// A client for the server at `address` with this API key.
    pub fn new(address: SocketAddr, key: &str) -> Self {
        let http =
            Client::builder().no_proxy().timeout(ANSWER_WITHIN).build().expect("the client needs nothing");
        Self { http, base: format!("http://{address}"), key: Some(key.to_owned()) }
    }

    /// The same without any credential.
    pub fn anonymous(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    /// The same with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// A request with the credential set, for tests that add to it.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.header("X-API-KEY", key),
            None => request,
        }
    }

    /// Asks without a body.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn send(&self, method: Method, path: &str) -> Result<Answer> {
        Answer::of(self.request(method, path)).await
    }

    /// `GET`.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path).await
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(Method::DELETE, path).await
    }

    /// `POST` with a JSON body.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn post(&self, path: &str, body: Value) -> Result<Answer> {
        Answer::of(self.request(Method::POST, path).json(&body)).await
    }

    /// Creates a secured sandbox of the stock template.
    ///
    /// # Errors
    /// When the answer is another one than 201.
    pub async fn create(&self, options: Value) -> Result<Guest> {
        let mut body = json!({ "templateID": "base", "timeout": 120 });
        for (name, value) in options.as_object().context("options are an object")? {
            body[name] = value.clone();
        }
        let created: Created = self.post("/v2/sandboxes", body).await?.expect(201)?.parse()?;
        Ok(self.guest(&created))
    }

    /// The guest of a sandbox.
    pub fn guest(&self, created: &Created) -> Guest {
        Guest::new(self.base.clone(), created.id.clone(), created.envd_access_token.clone())
    }

    /// Kills a sandbox.
    ///
    /// # Errors
    /// When the answer is another one than 204.
    pub async fn kill(&self, id: &str) -> Result<()> {
        self.delete(&format!("/sandboxes/{id}")).await?.expect(204)?;
        Ok(())
    }

    /// Ids of all sandboxes with this metadata pair, whose parts need no encoding.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub async fn ids_with(&self, key: &str, value: &str) -> Result<Vec<String>> {
        let list = self.get(&format!("/v2/sandboxes?metadata={key}%3D{value}")).await?.expect(200)?.json()?;
        let ids = list.as_array().context("a list")?.iter().filter_map(|entry| entry["sandboxID"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }
}

impl Answer {
    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn of(request: reqwest::RequestBuilder) -> Result<Self> {
        let response = request.send().await?;
        Ok(Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await?,
        })
    }

    /// Itself, if the status is the one that was expected.
    ///
    /// # Errors
    /// When it is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "want {status}, got {} {} {:?}", self.status, self.text, self.headers);
        Ok(self)
    }

    /// Checks the shape that every error has, and that its message contains `text`.
    ///
    /// # Errors
    /// When it is another answer.
    pub fn expect_error(self, status: u16, text: &str) -> Result<Self> {
        let answer = self.expect(status)?;
        let content = answer.header("content-type");
        ensure!(content.starts_with("application/json"), "content type {content:?} of {}", answer.text);
        let body = answer.json()?;
        ensure!(body["code"] == status, "code of {body}");
        let message = body["message"].as_str().with_context(|| format!("message of {body}"))?;
        ensure!(message.contains(text), "want {text:?} in {message:?}");
        Ok(answer)
    }

    /// A header's text, empty when it is not there.
    pub fn header(&self, name: &str) -> String {
        self.headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        self.parse()
    }

    /// The body as a value.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.text).with_context(|| format!("read {} {}", self.status, self.text))
    }

    /// Whether the status is a success.
    pub fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }
}
