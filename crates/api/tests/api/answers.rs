//! What holds for every call: keys, errors, browsers, bodies.

use axum::body::Body;
use http::Request;
use sandbar_api::later::LATER;

use crate::server::Server;

fn request(line: &str) -> http::request::Builder {
    let (method, path) = line.split_once(' ').unwrap();
    Request::builder().method(method).uri(path).header("host", "localhost:3000")
}

#[tokio::test(start_paused = true)]
async fn the_key_decides_and_nothing_beside_it() {
    let server = Server::new().await;
    let long = "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.\n";
    let unknown = format!("e2b_{}", "0".repeat(40));
    for (key, want) in [
        (None, "401 authorization header is missing".to_owned()),
        (Some("nonsense"), "401 authorization header is malformed".to_owned()),
        (Some("e2b_xyz"), format!("401 {long}The key is not hexadecimal.")),
        (Some(unknown.as_str()), format!("401 {long}The key is not known here.")),
    ] {
        let mut request = request("GET /sandboxes").header("authorization", "Bearer sk_e2b_00");
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        assert_eq!(server.send(request.body(Body::empty()).unwrap()).await.error(), want);
    }
    for _ in 0..2 {
        let request = request("GET /sandboxes")
            .header("X-API-KEY", &server.key)
            .header("authorization", "Bearer whatever")
            .body(Body::empty())
            .unwrap();
        assert_eq!(server.send(request).await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_made_once_and_passes_the_check_of_clients() {
    let server = Server::new().await;
    assert_eq!(server.key, format!("e2b_{}", "ab".repeat(20)));
    let never = |_: &sandbar_model::Secret| -> Result<(), std::io::Error> { panic!("there is a key") };
    assert!(!sandbar_api::ensure_first_key(&server.control, [1; 20], never).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_named() {
    let server = Server::new().await;
    assert_eq!(server.call("GET /nothing/here").await.error(), "404 There is no route GET /nothing/here");
    let wrong = server.call("PUT /sandboxes").await;
    assert_eq!(wrong.error(), "405 Method PUT is not allowed for /sandboxes");
    assert!(wrong.header("allow").unwrap().contains("POST"), "{wrong:?}");
}

#[tokio::test(start_paused = true)]
async fn operations_of_later_versions_say_so() {
    let server = Server::new().await;
    for (method, path) in LATER {
        // A value for each parameter; static paths must win over them.
        let filled: Vec<&str> =
            path.split('/').map(|part| if part.starts_with('{') { "x1" } else { part }).collect();
        let answer = server.call(&format!("{method} {}", filled.join("/"))).await;
        assert_eq!(
            answer.error(),
            format!("501 {method} {path} is not available in this version of Sandbar")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn health_needs_no_key_and_ends_with_the_server() {
    let server = Server::new().await;
    let health = || request("GET /health").body(Body::empty()).unwrap();
    let answer = server.send(health()).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "Health check successful"));
    server.control.shutdown().await;
    let answer = server.send(health()).await;
    assert_eq!(answer.error(), "503 The server is shutting down");
    let create = server.call(r#"POST /v2/sandboxes {"templateID":"base"}"#).await;
    assert_eq!(create.error(), "503 The server is shutting down");
    assert_eq!((create.header("should-retry"), create.header("retry-after")), (Some("true"), Some("1")));
}

#[tokio::test(start_paused = true)]
async fn browsers_may_ask_before_and_read_the_answer() {
    let server = Server::new().await;
    let preflight = request("OPTIONS /v2/sandboxes")
        .header("origin", "https://example.com")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "idempotency-key,x-api-key")
        .body(Body::empty())
        .unwrap();
    let answer = server.send(preflight).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert!(answer.header("access-control-allow-methods").unwrap().contains("DELETE"));
    let allowed = answer.header("access-control-allow-headers").unwrap();
    for name in ["Idempotency-Key", "X-API-Key", "E2b-Sandbox-Id", "Connect-Protocol-Version", "sdk_runtime"]
    {
        assert!(allowed.split(", ").any(|allowed| allowed == name), "{name} in {allowed}");
    }

    let answer = server.call("GET /nothing").await;
    let exposed = answer.header("access-control-expose-headers").unwrap();
    for name in ["X-Next-Token", "Retry-After", "Should-Retry", "X-E2B-Trace-ID"] {
        assert!(exposed.split(", ").any(|exposed| exposed == name), "{name} in {exposed}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_is_named_and_timed() {
    let server = Server::new().await;
    let (one, two) = (server.call("GET /sandboxes").await, server.call("GET /nothing").await);
    assert_ne!(one.header("x-e2b-trace-id").unwrap(), two.header("x-e2b-trace-id").unwrap());
    assert!(one.header("server-timing").unwrap().starts_with("total;dur="), "{one:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_or_malformed_is_refused() {
    let server = Server::new().await;
    let body = " ".repeat(16 * 1024 * 1024 + 1);
    let answer = server.call(&format!("POST /sandboxes {body}")).await;
    assert_eq!(answer.error(), "413 The request body is larger than 16777216 bytes");
    for (line, want) in [
        ("POST /sandboxes {", "400 Error when parsing request: "),
        ("POST /v2/sandboxes", "400 Error when parsing request: "),
        ("POST /v2/sandboxes {}", "400 validation error: missing field `templateID`"),
        ("GET /sandboxes/%FF", "400 validation error: the path is not UTF-8"),
        ("GET /sandboxes?metadata=%FF", "400 validation error: the query is not UTF-8"),
        ("POST /v2/sandboxes 7", "400 validation error: "),
    ] {
        let error = server.call(line).await.error();
        assert!(error.starts_with(want), "{line}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_may_come_in_chunks_with_every_method() {
    let server = Server::new().await;
    let id = server.create(300).await;
    let chunks = |parts: [&'static str; 2]| {
        Body::from_stream(futures::stream::iter(parts.map(Ok::<_, std::io::Error>)))
    };
    let send =
        |line: String, parts| request(&line).header("x-api-key", &server.key).body(chunks(parts)).unwrap();
    let connect = send(format!("POST /v2/sandboxes/{id}/connect"), ["{\"timeout\":", "400}"]);
    assert_eq!(server.send(connect).await.status, 200);
    assert_eq!(server.lifetime(&id).await, 400);
    assert_eq!(server.send(send(format!("DELETE /sandboxes/{id}"), ["{", "}"])).await.status, 204);
}
