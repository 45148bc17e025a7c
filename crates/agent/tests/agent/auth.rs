//! Token, signatures, users, browsers.

use sandbar_wire::envd::files::{Operation, Signed, signature};
use serde_json::json;

use crate::client::{self, basic};
use crate::guest::Guest;

const TOKEN: &str = "tok123";

fn guarded() -> Guest {
    let guest = Guest::fresh();
    assert_eq!(guest.init(&json!({"defaultUser": "user", "accessToken": TOKEN})).status, 204);
    guest
}

/// Case 13.
#[test]
fn preflights_need_no_token() {
    let guest = guarded();
    let headers = [
        ("origin", "http://page.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-access-token,content-type"),
    ];
    let answer = client::send(guest.port, "OPTIONS", "/files", &headers, b"");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-access-token,content-type"));
    assert_eq!(answer.header("access-control-max-age"), Some("7200"));
    let answer = guest.get("/health", &[("origin", "http://page.example")]);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("Grpc-Status"));
}

/// Cases 14 to 18.
#[test]
fn everything_but_four_routes_needs_the_token() {
    let guest = guarded();
    let refused = json!({
        "code": 401,
        "message": "unauthorized access, please provide a valid access token or method signing if supported",
    });
    let answer = guest.process("List", json!({}));
    assert_eq!((answer.status, answer.json()), (401, refused.clone()));
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    let stream = [("content-type", "application/connect+json")];
    let answer = guest.post("/process.Process/Start", &stream, b"");
    assert_eq!((answer.status, answer.json()), (401, refused));
    assert_eq!(guest.get("/health", &[]).status, 204);
    assert_eq!(guest.get("/envs", &[]).status, 401);
    assert_eq!(guest.get("/envs", &[("x-access-token", TOKEN)]).status, 200);
    let signed =
        signature(&Signed { path: "", operation: Operation::Write, username: "", expiration: None }, TOKEN);
    let signed = signed.replace('+', "%2B").replace('/', "%2F");
    assert_eq!(guest.post(&format!("/files/compose?signature={signed}"), &[], b"{}").status, 401);
}

/// Cases 19 to 25.
#[test]
fn a_signature_stands_in_for_the_token_in_transfers() {
    let guest = guarded();
    let token = [("x-access-token", TOKEN), ("content-type", "application/octet-stream")];
    assert_eq!(guest.post("/files?path=hello.txt", &token, b"hello").status, 200);
    const SIGNED: &str = "path=hello.txt&signature=v1_NusEeHeBFpLh24504GCcGLjsbZK6cTxcYG40tcX8qIw";
    let get = |query: &str, headers: &[(&str, &str)]| {
        let answer = guest.get(&format!("/files?{query}"), headers);
        (answer.status, answer.text())
    };
    let message = |text: &str| (401, format!("{{\"code\":401,\"message\":\"{text}\"}}\n"));
    assert_eq!(get(SIGNED, &[]), (200, "hello".into()));
    let posted =
        guest.post(&format!("/files?{SIGNED}"), &[("content-type", "application/octet-stream")], b"x");
    assert_eq!((posted.status, posted.text()), message("invalid signature"));
    assert_eq!(get(&format!("{SIGNED}&username=user"), &[]), message("invalid signature"));
    let expired = signature(
        &Signed { path: "hello.txt", operation: Operation::Read, username: "", expiration: Some(1) },
        TOKEN,
    );
    let expired = expired.replace('+', "%2B").replace('/', "%2F");
    let query = format!("path=hello.txt&signature={expired}&signature_expiration=1");
    assert_eq!(get(&query, &[]), message("signature is already expired"));
    assert_eq!(get(&format!("{SIGNED}&signature_expiration=1"), &[]), message("invalid signature"));
    let wrong = [("x-access-token", "wrong")];
    assert_eq!(get(SIGNED, &wrong), message("access token present in header but does not match"));
    assert_eq!(get("path=hello.txt", &[]), message("missing signature query parameter"));
    assert_eq!(guest.get("/files?path=x&signature_expiration=abc", &[]).status, 400);
}

/// Cases 26 to 28.
#[test]
fn a_named_user_must_exist_and_other_schemes_name_nobody() {
    let guest = Guest::start();
    let nobody = basic("nobody-x");
    let nobody = [("authorization", nobody.as_str())];
    let answer = guest.call_with(&nobody, "/filesystem.Filesystem/Stat", json!({"path": "/"}));
    assert_eq!(answer.error(), (401, "unauthenticated".into()));
    assert_eq!(answer.json()["message"], "invalid username: 'nobody-x'");
    let ran = guest.shell_as("nobody-x", "true").finish();
    assert_eq!(ran.error_code(), "unauthenticated");
    assert_eq!(guest.get("/health", &nobody).status, 401);
    let request = json!({"process": {"cmd": "whoami"}, "stdin": false});
    let ran = guest.start_with(&[("authorization", "Bearer abc")], request).finish();
    assert_eq!(ran.stdout(), "user\n");
}

#[test]
fn an_unknown_default_user_is_told_when_it_is_needed() {
    let guest = Guest::fresh();
    assert_eq!(guest.init(&json!({"defaultUser": "ghost"})).status, 204);
    let answer = guest.filesystem("Stat", json!({"path": "/"}));
    assert_eq!(answer.error(), (401, "unauthenticated".into()));
    let answer = guest.get("/files?path=/x", &[]);
    assert_eq!(answer.status, 401);
    assert_eq!(answer.json()["message"], "error looking up user 'ghost': user: unknown user ghost");
    // Users made while the guest runs are known at once.
    guest.run_root("echo 'ghost:x:1003:1003::/tmp:/bin/sh' >> /etc/passwd");
    assert_eq!(guest.filesystem("Stat", json!({"path": "/"})).status, 200);
}
