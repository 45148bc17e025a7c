//! A server under test and a client of it.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use sandbar_api::{ApiState, ensure_first_key, router};
use sandbar_control::testing::{FakeNode, RuntimeClock, Still};
use sandbar_control::{Config, Control, StockTemplate, TokenSeed};
use sandbar_db::open;
use sandbar_model::{Mib, Resources, WorkloadDefaults};
use serde_json::Value;
use tower::ServiceExt;

pub(crate) struct Server {
    pub(crate) node: Arc<FakeNode>,
    pub(crate) control: Arc<Control>,
    pub(crate) key: String,
    pub(crate) team: String,
    router: Router,
    _still: Still,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Checks that this is an error as every client can read it, and gives `status message`.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        let body = self.json();
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        assert_eq!(body["code"], Value::from(self.status), "{self:?}");
        format!("{} {}", self.status, body["message"].as_str().unwrap())
    }
}

impl Server {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let still = Still::new();
        let db = open("sqlite::memory:").await.unwrap();
        let node = Arc::new(FakeNode::new());
        let mut config = Config::new(TokenSeed::new([7; 32]));
        configure(&mut config);
        let control =
            Control::open(db.clone(), node.clone(), Arc::new(RuntimeClock::new()), config).await.unwrap();
        control.publish(base()).await.unwrap();
        let key = Mutex::new(String::new());
        let keep = |text: &sandbar_model::Secret| {
            *key.lock().unwrap() = text.expose().to_owned();
            Ok::<(), std::io::Error>(())
        };
        assert!(ensure_first_key(&control, [0xab; 20], keep).await.unwrap());
        let team = db.default_team().await.unwrap().unwrap().id.to_string();
        let router = router(ApiState::new(control.clone(), Some("sbx.localhost:3000".to_owned())));
        Self { node, control, key: key.into_inner().unwrap(), team, router, _still: still }
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    /// Calls with the key: `POST /sandboxes {"templateID":"base"}`, the body being optional.
    pub(crate) async fn call(&self, line: &str) -> Answer {
        let mut parts = line.splitn(3, ' ');
        let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost:3000")
            .header("x-api-key", &self.key)
            .header("content-type", "application/json")
            .body(Body::from(parts.next().unwrap_or_default().to_owned()))
            .unwrap();
        self.send(request).await
    }

    /// Makes a sandbox; its id.
    pub(crate) async fn create(&self, timeout: u32) -> String {
        let body = format!(r#"{{"templateID":"base","timeout":{timeout}}}"#);
        let answer = self.call(&format!("POST /v2/sandboxes {body}")).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["sandboxID"].as_str().unwrap().to_owned()
    }

    /// Seconds from start to end, as the detail says.
    pub(crate) async fn lifetime(&self, id: &str) -> i64 {
        let detail = self.call(&format!("GET /sandboxes/{id}")).await.json();
        let time = |name: &str| detail[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        time("endAt").duration_since(time("startedAt")).as_secs()
    }
}

fn base() -> StockTemplate {
    StockTemplate {
        name: "base".to_owned(),
        layers: vec!["a".repeat(64).parse().unwrap()],
        resources: Resources {
            vcpus: NonZeroU32::new(2).unwrap(),
            memory: Mib(1024),
            disk: Mib(10240),
            pids: 4096,
        },
        agent_version: "0.6.13".to_owned(),
        defaults: WorkloadDefaults { user: "user".to_owned(), workdir: None },
    }
}

/// Lets time pass, and everybody who waited for it act on it.
pub(crate) async fn pass(secs: u64) {
    tokio::time::advance(Duration::from_secs(secs)).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}
