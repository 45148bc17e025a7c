//! `POST /sandboxes`, `POST /v2/sandboxes`, and what is told about the sandbox then.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use sandbar_model::{EgressPolicy, StartError};
use serde_json::Value;

use crate::server::Server;

#[tokio::test(start_paused = true)]
async fn the_second_version_is_secured_and_lives_300_seconds() {
    let server = Server::new().await;
    let answer =
        server.call(r#"POST /v2/sandboxes {"templateID":"base","secure":false,"x":1,"mcp":null}"#).await;
    assert_eq!(answer.status, 201);
    let sandbox = answer.json();
    assert_eq!(sandbox["clientID"], "6532622b");
    assert_eq!(sandbox["envdVersion"], "0.6.13");
    assert_eq!(sandbox["alias"], "base");
    assert_eq!(sandbox["domain"], Value::Null);
    assert_eq!(sandbox["trafficAccessToken"], Value::Null);
    assert_eq!(sandbox["envdAccessToken"].as_str().unwrap().len(), 64);
    assert_eq!(server.lifetime(sandbox["sandboxID"].as_str().unwrap()).await, 300);
    let timing = answer.headers.get_all("server-timing");
    let timing: Vec<_> = timing.iter().map(|value| value.to_str().unwrap()).collect();
    assert!(timing[0].starts_with("engine;dur=7.0") && timing[1].starts_with("total;dur="), "{timing:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_version_is_secured_on_request_and_lives_15_seconds() {
    let server = Server::new().await;
    let plain = server.call(r#"POST /sandboxes {"templateID":"base"}"#).await;
    assert_eq!(plain.status, 201);
    let plain = plain.json();
    assert!(plain.get("envdAccessToken").is_none(), "{plain}");
    assert_eq!(server.lifetime(plain["sandboxID"].as_str().unwrap()).await, 15);

    let secured =
        server.call(r#"POST /sandboxes {"templateID":"base","secure":true,"timeout":300}"#).await.json();
    let newer = server.call(r#"POST /v2/sandboxes {"templateID":"base"}"#).await.json();
    let fields = |sandbox: &Value| sandbox.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&secured), fields(&newer));
    assert_ne!(secured["envdAccessToken"], newer["envdAccessToken"]);
}

#[tokio::test(start_paused = true)]
async fn bodies_as_old_clients_send_them() {
    let server = Server::new().await;
    for body in [
        r#"{"templateID":"base","envVars":{},"metadata":{},"timeout":300,"allow_internet_access":true,"autoPause":false,"secure":false}"#,
        r#"{"autoPause":false,"templateID":"base","timeout":300,"secure":true,"allow_internet_access":true,"autoResume":{"enabled":false}}"#,
        r#"{"templateID":"base","timeout":300,"secure":true,"network":{"allowPublicTraffic":true}}"#,
    ] {
        let answer = server.call(&format!("POST /sandboxes {body}")).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let secure = answer.json().get("envdAccessToken").is_some();
        assert_eq!(secure, body.contains(r#""secure":true"#));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_refused_with_its_name() {
    let server = Server::with(|config| config.run_max = Duration::from_secs(24 * 3600)).await;
    let template = |field: &str| format!(r#"POST /v2/sandboxes {{"templateID":"base",{field}}}"#);
    for (line, want) in [
        (template(r#""timeout":0"#), "400 Timeout must be greater than 0"),
        (template(r#""timeout":-1"#), "400 Timeout must be greater than 0"),
        (template(r#""timeout":86401"#), "400 Timeout cannot be greater than 24 hours"),
        (template(r#""timeout":300.0"#), "400 validation error: "),
        (template(r#""timeout":"60""#), "400 validation error: "),
        (template(r#""network":null"#), "400 validation error: "),
        (
            template(r#""autoPauseMemory":false"#),
            "400 autoPauseMemory=false only applies when autoPause is true.",
        ),
        (
            template(r#""autoPauseMemory":false,"autoPause":true,"autoResume":{"enabled":true}"#),
            "400 autoPauseMemory=false (filesystem-only auto-pause) cannot be combined with autoResume",
        ),
        (
            template(r#""autoPause":true"#),
            "400 The option 'autoPause' is not available in this version of Sandbar",
        ),
        (
            template(r#""network":{"denyOut":["1.1.1.1"]}"#),
            "400 The option 'network.denyOut' is not available",
        ),
        (
            r#"POST /sandboxes {"templateID":"base","timeout":0}"#.to_owned(),
            "400 Timeout must be greater than 0",
        ),
        (r#"POST /sandboxes {"templateID":"a/b/c"}"#.to_owned(), "400 Invalid template reference: "),
        (r#"POST /sandboxes {"templateID":""}"#.to_owned(), "400 Invalid template reference: "),
        (r#"POST /sandboxes {"templateID":"other"}"#.to_owned(), "404 template 'other' not found"),
        (
            r#"POST /sandboxes {"templateID":"base:v9"}"#.to_owned(),
            "404 tag 'v9' does not exist for template 'base'",
        ),
    ] {
        let error = server.call(&line).await.error();
        assert!(error.starts_with(want), "{line}\n got {error}\nwant {want}");
    }
    assert!(server.node.holds().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_is_not_ignored_where_it_matters() {
    let server = Server::new().await;
    let request = |path: &str| {
        Request::builder()
            .method("POST")
            .uri(path)
            .header("x-api-key", &server.key)
            .header("idempotency-key", "abc-1")
            .body(Body::from(r#"{"templateID":"base"}"#))
            .unwrap()
    };
    let answer = server.send(request("/v2/sandboxes")).await;
    assert!(answer.error().starts_with("400 The option 'Idempotency-Key'"), "{answer:?}");
    assert_eq!(server.send(request("/sandboxes")).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_reaches_the_node_and_comes_back() {
    let server = Server::new().await;
    let body = r#"{"templateID":"base","metadata":{"user":"a b"},"envVars":{"A":"1"},"allow_internet_access":false}"#;
    let created = server.call(&format!("POST /v2/sandboxes {body}")).await.json();
    let id = created["sandboxID"].as_str().unwrap();
    let spec = server.node.spec(&id.parse().unwrap()).unwrap();
    assert_eq!(spec.egress, EgressPolicy::Nothing);
    assert_eq!(spec.env["A"], "1");

    let detail = server.call(&format!("GET /sandboxes/{id}")).await;
    assert_eq!(detail.status, 200);
    let detail = detail.json();
    for name in ["sandboxID", "templateID", "clientID", "envdVersion", "alias", "envdAccessToken"] {
        assert_eq!(detail[name], created[name], "{name}");
    }
    assert_eq!(detail["state"], "running");
    assert_eq!(detail["metadata"]["user"], "a b");
    assert_eq!(detail["allowInternetAccess"], false);
    assert_eq!(
        (&detail["cpuCount"], &detail["memoryMB"], &detail["diskSizeMB"]),
        (&2.into(), &1024.into(), &10240.into())
    );
    assert_eq!(detail["lifecycle"], serde_json::json!({"onTimeout": "kill", "autoResume": false}));
    assert_eq!(detail["volumeMounts"], serde_json::json!([]));
    assert!(detail.get("network").is_none(), "objects are left out rather than null");
}

#[tokio::test(start_paused = true)]
async fn the_domain_is_told_to_those_who_came_by_it() {
    let server = Server::new().await;
    for (host, want) in [
        ("api.sbx.localhost:3000", Value::from("sbx.localhost:3000")),
        ("localhost:3000", Value::Null),
        ("127.0.0.1:3000", Value::Null),
    ] {
        let request = Request::builder()
            .method("POST")
            .uri("/v2/sandboxes")
            .header("host", host)
            .header("x-api-key", &server.key)
            .body(Body::from(r#"{"templateID":"base"}"#))
            .unwrap();
        assert_eq!(server.send(request).await.json()["domain"], want, "{host}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_says_whether_to_try_again() {
    let server = Server::new().await;
    let create = r#"POST /v2/sandboxes {"templateID":"base"}"#;

    server.node.fail_next_start(StartError::Full { node: "fake".parse().unwrap() });
    let answer = server.call(create).await;
    assert_eq!(answer.error(), "503 Failed to place sandbox: no room for another sandbox on fake");
    assert_eq!(answer.json()["error_code"], "sandbox_capacity_unavailable");
    assert_eq!((answer.header("should-retry"), answer.header("retry-after")), (Some("true"), Some("1")));

    let step = StartError::Step { id: "ix".parse().unwrap(), step: "boot", source: "secret path".into() };
    server.node.fail_next_start(step);
    let answer = server.call(create).await;
    assert_eq!(answer.error(), "500 Failed to create sandbox: start sandbox ix: boot");
    assert_eq!(answer.json()["error_code"], "sandbox_create_failed");
    assert_eq!((answer.header("should-retry"), answer.header("retry-after")), (Some("false"), None));
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_team_is_not_worth_repeating() {
    let server = Server::with(|config| config.concurrent_max = 1).await;
    server.create(300).await;
    let answer = server.call(r#"POST /v2/sandboxes {"templateID":"base"}"#).await;
    assert_eq!(
        answer.error(),
        "429 you have reached the maximum number of concurrent E2B sandboxes (1). If you need more, please visit 'https://e2b.dev/docs/billing'"
    );
    assert_eq!((answer.header("should-retry"), answer.header("retry-after")), (Some("false"), None));
}
