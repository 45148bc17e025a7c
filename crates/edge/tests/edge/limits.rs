//! How much at once.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Barrier, mpsc};

use crate::support::{DOMAIN, Edge, Guest, empty, full, soon};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_share_one_connection() {
    const COUNT: usize = 200;
    let edge = Edge::start().await;
    let all_there = Arc::new(Barrier::new(COUNT));
    let guest = Guest::http(move |request: Request<hyper::body::Incoming>| {
        let all_there = all_there.clone();
        async move {
            // Nobody is answered before everybody has asked.
            all_there.wait().await;
            Response::new(full(request.uri().path().to_owned()))
        }
    })
    .await;
    edge.sandbox("iabc", guest.address);
    let mut client = edge.http2().await;
    assert_eq!(client.get("localhost", "/x", &[]).await.text, "api GET /x");
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..COUNT {
        let (mut sender, host) = (client.another(), guest.host("iabc"));
        requests.spawn(async move {
            let request = Request::get(format!("https://{host}/{number}")).body(empty()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            let text = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(text, format!("/{number}"));
        });
    }
    soon(requests.join_all()).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_sandbox_has_as_many_requests_as_it_may() {
    let edge = Edge::start_with(|config| config.connection_limit_per_sandbox = Some(2)).await;
    let (asked, mut began) = mpsc::channel(8);
    let guest = Guest::http(move |_| {
        let asked = asked.clone();
        async move {
            let (finish, finished) = tokio::sync::oneshot::channel::<()>();
            asked.send(finish).await.unwrap();
            let _ = finished.await;
            Response::new(full("done"))
        }
    })
    .await;
    edge.sandbox("iabc", guest.address);
    let host = guest.host("iabc");
    let mut waiting = Vec::new();
    for mut client in [edge.http1().await, edge.http2().await] {
        let host = host.clone();
        waiting.push(tokio::spawn(async move { client.get(&host, "/", &[]).await }));
    }
    let finish = [soon(began.recv()).await.unwrap(), soon(began.recv()).await.unwrap()];

    let refused = edge.http1().await.get(&host, "/", &[]).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("should-retry"), Some("true"));
    let body: serde_json::Value = serde_json::from_str(&refused.text).unwrap();
    assert_eq!(body["connectionLimit"], 2);
    assert_eq!(body["message"], "The sandbox has too many concurrent incoming connections (limit: 2)");

    drop(finish);
    for answer in waiting {
        assert_eq!(soon(answer).await.unwrap().text, "done");
    }
    let mut client = edge.http1().await;
    let again = tokio::spawn(async move { client.get(&host, "/", &[]).await });
    drop(soon(began.recv()).await.unwrap());
    assert_eq!(soon(again).await.unwrap().status, 200);
    edge.stop().await;
}

#[tokio::test]
async fn clients_beyond_the_limit_wait_for_a_place() {
    let edge = Edge::start_with(|config| config.connections_max = 1).await;
    let mut first = edge.http1().await;
    assert_eq!(first.get("localhost", "/1", &[]).await.text, "api GET /1");
    let mut second = edge.http1().await;
    let waiting = tokio::spawn(async move { second.get("localhost", "/2", &[]).await });
    assert_eq!(first.get("localhost", "/3", &[]).await.text, "api GET /3");
    assert!(!waiting.is_finished());
    drop(first);
    assert_eq!(soon(waiting).await.unwrap().text, "api GET /2");
    edge.stop().await;
}

#[tokio::test]
async fn a_head_without_measure_is_refused() {
    let edge = Edge::start().await;
    let mut stream = edge.connect().await;
    let head = format!("GET / HTTP/1.1\r\nhost: 80-iabc.{DOMAIN}\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    edge.stop().await;
}

#[tokio::test]
async fn bytes_that_are_neither_http_nor_tls_harm_nobody() {
    let edge = Edge::start().await;
    for bytes in
        [&b"\x16\x03\x01\xff\xff"[..], b"\x00\x00\x00\x00\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"\x80\x2e\x01"]
    {
        let mut stream = edge.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
    assert_eq!(edge.http1().await.get("localhost", "/x", &[]).await.text, "api GET /x");
    edge.stop().await;
}

#[tokio::test]
async fn without_a_certificate_tls_is_closed_at_once() {
    let edge = Edge::start_with(|config| config.tls = None).await;
    let mut stream = edge.connect().await;
    stream.write_all(b"\x16\x03\x01\x00\x05hello").await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    assert_eq!(edge.http1().await.get("localhost", "/x", &[]).await.text, "api GET /x");
    edge.stop().await;
}
