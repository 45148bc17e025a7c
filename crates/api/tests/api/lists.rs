//! Lists of sandboxes: filters, order, pages.

use serde_json::Value;

use crate::server::{Answer, Server, pass};

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let list = answer.json();
    list.as_array().unwrap().iter().map(|entry| entry["sandboxID"].as_str().unwrap().to_owned()).collect()
}

/// Three sandboxes, started one second after the other.
async fn three(server: &Server) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(server.create(300).await);
        pass(1).await;
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn newest_first_unless_asked_otherwise() {
    let server = Server::new().await;
    let mut want = three(&server).await;
    assert_eq!(ids(&server.call("GET /v2/sandboxes?order=asc").await), want);
    want.reverse();
    let answer = server.call("GET /v2/sandboxes").await;
    assert_eq!(ids(&answer), want);
    assert_eq!((answer.header("x-total-running"), answer.header("x-next-token")), (Some("3"), None));
    assert_eq!(ids(&server.call("GET /sandboxes").await), want);

    let entry = &answer.json()[0];
    for name in
        ["templateID", "clientID", "startedAt", "endAt", "cpuCount", "memoryMB", "diskSizeMB", "envdVersion"]
    {
        assert!(!entry[name].is_null(), "{name}");
    }
    assert_eq!(entry["state"], Value::from("running"));
    assert!(entry.get("metadata").is_none());
}

#[tokio::test(start_paused = true)]
async fn pages_follow_each_other() {
    let server = Server::new().await;
    let want = three(&server).await;
    for order in ["asc", "desc"] {
        let (mut seen, mut path) = (Vec::new(), format!("/v2/sandboxes?limit=2&order={order}"));
        loop {
            let answer = server.call(&format!("GET {path}")).await;
            assert_eq!(answer.header("x-total-running"), Some("3"));
            seen.extend(ids(&answer));
            let Some(token) = answer.header("x-next-token") else { break };
            path = format!("/v2/sandboxes?limit=2&order={order}&nextToken={token}");
        }
        if order == "desc" {
            seen.reverse();
        }
        assert_eq!(seen, want, "{order}");
    }
    let token = server.call("GET /v2/sandboxes?limit=1").await.header("x-next-token").unwrap().to_owned();
    for bad in ["nonsense", &format!("{token}&order=asc")] {
        let answer = server.call(&format!("GET /v2/sandboxes?nextToken={bad}")).await;
        assert_eq!(answer.error(), "400 Invalid next token");
    }
    for bad in ["0", "101", "x"] {
        assert_eq!(server.call(&format!("GET /v2/sandboxes?limit={bad}")).await.status, 400);
    }
}

#[tokio::test(start_paused = true)]
async fn states_are_written_in_two_ways() {
    let server = Server::new().await;
    server.create(300).await;
    for query in ["", "state=running", "state=running,paused", "state=running%2Cpaused"] {
        let answer = server.call(&format!("GET /v2/sandboxes?{query}")).await;
        assert_eq!((ids(&answer).len(), answer.header("x-total-running")), (1, Some("1")), "{query}");
    }
    let paused = server.call("GET /v2/sandboxes?state=paused").await;
    assert_eq!((ids(&paused).len(), paused.header("x-total-running")), (0, None));
    assert_eq!(server.call("GET /v2/sandboxes?state=frozen").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn metadata_matches_exactly_through_three_layers() {
    let server = Server::new().await;
    let metadata = r#"{"metadata":{"a key":"50% = ü & more","app":"prod"},"templateID":"base"}"#;
    let wanted = server.call(&format!("POST /v2/sandboxes {metadata}")).await.json();
    server.create(300).await;
    // As the SDKs encode the pair: value, form, query.
    let filter =
        "a%252520key%3D50%252525%252520%25253D%252520%2525C3%2525BC%252520%252526%252520more%26app%3Dprod";
    for path in ["/sandboxes", "/v2/sandboxes"] {
        let answer = server.call(&format!("GET {path}?metadata={filter}")).await;
        assert_eq!(ids(&answer), [wanted["sandboxID"].as_str().unwrap()], "{path}");
        assert_eq!(answer.json()[0]["metadata"]["a key"], "50% = ü & more");
        assert!(ids(&server.call(&format!("GET {path}?metadata=app%3Dpro")).await).is_empty());
        assert_eq!(
            server.call(&format!("GET {path}?metadata=app")).await.error(),
            "400 Error parsing metadata"
        );
    }
    let total = server.call("GET /v2/sandboxes?metadata=app%3Dprod").await;
    assert_eq!(total.header("x-total-running"), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn lists_can_begin_at_a_start() {
    let server = Server::new().await;
    let want = three(&server).await;
    let second = server.call(&format!("GET /sandboxes/{}", want[1])).await.json();
    let at = second["startedAt"].as_str().unwrap().replace(':', "%3A");
    let answer = server.call(&format!("GET /v2/sandboxes?order=asc&startedAfter={at}")).await;
    assert_eq!(ids(&answer), want[1..]);
    assert_eq!(server.call("GET /v2/sandboxes?startedAfter=yesterday").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn lists_can_be_of_one_template() {
    let server = Server::new().await;
    let id = server.create(300).await;
    let template = server.call(&format!("GET /sandboxes/{id}")).await.json()["templateID"].clone();
    for reference in ["base", "base:default", template.as_str().unwrap()] {
        let answer = server.call(&format!("GET /v2/sandboxes?template={reference}")).await;
        assert_eq!(ids(&answer).len(), 1, "{reference}");
    }
    assert!(ids(&server.call("GET /v2/sandboxes?template=other").await).is_empty());
    assert_eq!(
        server.call("GET /v2/sandboxes?template=base:v1").await.error(),
        "400 Invalid template: tags are not supported here because sandboxes are not tag-scoped"
    );
}
