//! The Connect protocol as clients of all ages speak it.

use sandbar_wire::envd::envelope::{END_OF_STREAM, frame};
use sandbar_wire::envd::process::{ProcessConfig, StartRequest, StartResponse};
use sandbar_wire::envd::{Codec, EndOfStream};
use serde_json::json;

use crate::client::{self, Events, Exchange};
use crate::guest::Guest;

fn shell_request(script: &str) -> serde_json::Value {
    json!({"process": {"cmd": "/bin/bash", "args": ["-l", "-c", script]}, "stdin": false})
}

/// Case 1.
#[test]
fn health_is_an_empty_204() {
    let guest = Guest::start();
    let answer = guest.get("/health", &[]);
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

/// Cases 2 and 3.
#[test]
fn a_stream_is_start_data_end_and_is_never_compressed() {
    let guest = Guest::start();
    let mut events = guest.start_with(&[("accept-encoding", "zstd,gzip,br")], shell_request("echo hi"));
    assert_eq!(events.status, 200);
    assert_eq!(events.header("content-type"), Some("application/connect+json"));
    assert_eq!(events.header("content-encoding"), None);
    assert!(events.pid() > 0);
    assert_eq!(events.next(), json!({"event": {"data": {"stdout": "aGkK"}}}));
    assert_eq!(events.next(), json!({"event": {"end": {"exited": true, "status": "exit status 0"}}}));
    let last = events.next_envelope().unwrap();
    assert_eq!((last.flags, last.payload.as_slice()), (END_OF_STREAM, &b"{}"[..]));
    assert_eq!(events.next_envelope(), None);
}

#[test]
fn each_piece_of_output_arrives_when_it_is_written() {
    let guest = Guest::start();
    let mut events = guest
        .start_with(&[], json!({"process": {"cmd": "/bin/bash", "args": ["-c", "echo a; read x; echo b"]}}));
    let pid = events.pid();
    events.wait_output("a\n");
    // The process waits for us: had its first line been held back, this would never come to an end.
    assert_eq!(
        guest.process("SendInput", json!({"process": {"pid": pid}, "input": {"stdin": "Cg=="}})).status,
        200
    );
    events.wait_output("b\n");
}

/// Case 4.
#[test]
fn requests_may_be_chunked_and_say_that_they_are_not_compressed() {
    let guest = Guest::start();
    let headers = [("content-type", "application/connect+json"), ("connect-content-encoding", "identity")];
    let mut exchange = Exchange::begin(guest.port, "POST", "/process.Process/Start", &headers, None);
    let body = frame(0, shell_request("echo hi").to_string().as_bytes());
    let (first, second) = body.split_at(3);
    exchange.send_chunk(first);
    exchange.send_chunk(second);
    exchange.send_chunk(b"");
    assert_eq!(Events::of(exchange).finish().stdout(), "hi\n");
}

/// Cases 5 and 8.
#[test]
fn unary_calls_tolerate_harmless_headers_and_unknown_fields() {
    let guest = Guest::start();
    let headers = [("content-encoding", "identity"), ("connect-timeout-ms", "60000")];
    let answer = guest.call_with(
        &headers,
        "/filesystem.Filesystem/Stat",
        json!({"path": "/tmp", "fromTheFuture": {"x": 1}}),
    );
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

/// Cases 6 and 7.
#[test]
fn wrong_methods_and_content_types_are_named() {
    let guest = Guest::start();
    let answer =
        guest.post("/filesystem.Filesystem/Stat", &[("content-type", "application/connect+json")], b"{}");
    assert_eq!(answer.status, 415);
    assert!(answer.header("accept-post").unwrap().contains("application/json"));
    let answer = guest.get("/process.Process/List", &[]);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(guest.get("/nowhere", &[]).status, 404);
    assert_eq!(guest.post("/process.Process/Nothing", &[], b"").status, 404);
    assert_eq!(client::send(guest.port, "HEAD", "/files", &[], b"").status, 405);
}

/// Case 9.
#[test]
fn an_empty_body_is_no_message() {
    let guest = Guest::start();
    let answer = guest.post("/filesystem.Filesystem/Stat", &[("content-type", "application/json")], b"");
    assert_eq!(answer.error(), (400, "invalid_argument".into()));
}

/// Case 10, and what old Python clients send.
#[test]
fn timeouts_are_checked_and_may_have_a_fraction() {
    let guest = Guest::start();
    let stat = |timeout: &str| {
        guest.call_with(
            &[("connect-timeout-ms", timeout)],
            "/filesystem.Filesystem/Stat",
            json!({"path": "/tmp"}),
        )
    };
    assert_eq!(stat("12345678901").error(), (400, "invalid_argument".into()));
    assert_eq!(stat("2500.0").status, 200);
    let ran = guest.start_with(&[("connect-timeout-ms", "12345678901")], shell_request("true")).finish();
    assert_eq!(ran.error_code(), "invalid_argument");
}

/// Case 11.
#[test]
fn binary_messages_have_a_json_end() {
    let guest = Guest::start();
    let request = StartRequest {
        process: Some(ProcessConfig {
            cmd: "sh".into(),
            args: vec!["-c".into(), "exit 3".into()],
            ..Default::default()
        }),
        ..StartRequest::default()
    };
    let body = frame(0, &Codec::Proto.encode(&request));
    let headers = [("content-type", "application/connect+proto")];
    let exchange = Exchange::begin(guest.port, "POST", "/process.Process/Start", &headers, Some(&body));
    let mut events = Events::of(exchange);
    assert_eq!(events.header("content-type"), Some("application/connect+proto"));
    let mut messages = Vec::new();
    let end = loop {
        let envelope = events.next_envelope().unwrap();
        if envelope.flags == END_OF_STREAM {
            break envelope;
        }
        messages.push(Codec::Proto.decode::<StartResponse>(&envelope.payload).unwrap().event.unwrap());
    };
    assert_eq!(messages.last().unwrap().end.as_ref().unwrap().exit_code, 3);
    assert_eq!(serde_json::from_slice::<EndOfStream>(&end.payload).unwrap(), EndOfStream::default());
}

/// Case 12.
#[test]
fn requests_are_decompressed_if_gzipped_and_refused_if_otherwise() {
    let guest = Guest::start();
    let ran = guest.start_with(&[("connect-content-encoding", "br")], shell_request("true")).finish();
    assert_eq!(ran.error_code(), "unimplemented");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, shell_request("echo hi").to_string().as_bytes()).unwrap();
    let body = frame(1, &encoder.finish().unwrap());
    let headers = [("content-type", "application/connect+json"), ("connect-content-encoding", "gzip")];
    let exchange = Exchange::begin(guest.port, "POST", "/process.Process/Start", &headers, Some(&body));
    assert_eq!(Events::of(exchange).finish().stdout(), "hi\n");
}

#[test]
fn the_first_python_client_gets_the_fields_it_knows() {
    let guest = Guest::start();
    let stat = |agent: &str| {
        guest.call_with(&[("user-agent", agent)], "/filesystem.Filesystem/Stat", json!({"path": "/tmp"}))
    };
    let answer = stat("connect-python");
    assert_eq!(
        answer.json(),
        json!({"entry": {"name": "tmp", "type": "FILE_TYPE_DIRECTORY", "path": "/tmp"}})
    );
    assert_eq!(answer.header("x-e2b-legacy-sdk"), Some("true"));
    let answer = stat("connect-python/2");
    assert!(answer.json()["entry"]["permissions"].is_string());
    assert_eq!(answer.header("x-e2b-legacy-sdk"), None);
}

#[test]
fn ten_thousand_bytes_of_nonsense_do_no_harm() {
    let guest = Guest::start();
    for body in [vec![0xff; 10_000], b"\0\0\0\0\x05{\"a\"".to_vec(), frame(0, b"null"), frame(2, b"{}")] {
        let exchange = Exchange::begin(
            guest.port,
            "POST",
            "/process.Process/Start",
            &[("content-type", "application/connect+json")],
            Some(&body),
        );
        let ended = Events::of(exchange).finish();
        assert!(!ended.error_code().is_empty() || ended.messages.len() >= 2, "{ended:?}");
    }
    assert_eq!(guest.get("/health", &[]).status, 204);
}
