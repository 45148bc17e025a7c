//! Connections to agents are kept for the next request, those to user ports are not, and a kept connection
//! that was closed meanwhile is no error.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::{Edge, Guest, empty, full, listen, soon};

/// Reads one request, with its body when that is short.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen);
        let rest = if text.contains("content-length: 4") { "\r\n\r\nbody" } else { "\r\n\r\n" };
        if text.ends_with(rest) {
            return Some(text.into_owned());
        }
        if stream.read_buf(&mut seen).await.ok()? == 0 {
            return None;
        }
    }
}

async fn answer(stream: &mut TcpStream, text: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// Says which connection, of all so far, a request came on.
async fn counting(port: u16) -> Guest {
    let connections = Arc::new(AtomicUsize::new(0));
    Guest::connections(listen(port).await, move |mut stream| {
        let number = connections.fetch_add(1, Ordering::SeqCst);
        async move {
            while read_request(&mut stream).await.is_some() {
                answer(&mut stream, &number.to_string()).await;
            }
        }
    })
}

/// Asks until the answer is as wanted: a connection is kept a moment after the answer's end.
async fn wait_until_reused(client: &mut crate::support::Client, host: &str) {
    soon(async {
        let mut last = client.get(host, "/health", &[]).await.text;
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let next = client.get(host, "/health", &[]).await.text;
            if next == last {
                return;
            }
            last = next;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_to_the_agent_is_used_again_and_one_to_a_user_port_is_not() {
    let edge = Edge::start().await;
    let (agent, user) = (counting(49983).await, counting(0).await);
    edge.sandbox("iagent", agent.address);
    edge.sandbox("iuser", user.address);
    for mut client in edge.every_client().await {
        wait_until_reused(&mut client, &agent.host("iagent")).await;
    }
    let mut client = edge.http1().await;
    for number in 0..3 {
        assert_eq!(client.get(&user.host("iuser"), "/", &[]).await.text, number.to_string());
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_connection_is_never_used_for_another_run() {
    let edge = Edge::start().await;
    let agent = counting(49983).await;
    let host = agent.host("iabc");
    let ended = edge.sandbox("iabc", agent.address);
    let mut client = edge.http1().await;
    wait_until_reused(&mut client, &host).await;
    let before: usize = client.get(&host, "/", &[]).await.text.parse().unwrap();
    ended.cancel();
    edge.sandbox("iabc", agent.address);
    let after: usize = client.get(&host, "/", &[]).await.text.parse().unwrap();
    assert!(after > before, "{after} after {before}");
    edge.stop().await;
}

#[tokio::test]
async fn kept_connections_are_closed_when_the_run_ends() {
    let edge = Edge::start().await;
    let (told, mut closed) = mpsc::channel(8);
    let agent = Guest::connections(listen(49983).await, move |mut stream| {
        let told = told.clone();
        async move {
            while read_request(&mut stream).await.is_some() {
                answer(&mut stream, "x").await;
            }
            told.send(()).await.unwrap();
        }
    });
    let ended = edge.sandbox("iabc", agent.address);
    edge.http1().await.get(&agent.host("iabc"), "/", &[]).await;
    ended.cancel();
    soon(closed.recv()).await.unwrap();
    edge.stop().await;
}

/// The agent closes each connection when the second request comes on it, without an answer.
async fn closing_agent() -> Guest {
    Guest::connections(listen(49983).await, |mut stream| async move {
        if read_request(&mut stream).await.is_some() {
            answer(&mut stream, "fresh").await;
        }
        read_request(&mut stream).await;
    })
}

#[tokio::test]
async fn a_request_that_meets_a_closing_connection_is_sent_again_only_if_that_is_safe() {
    let edge = Edge::start().await;
    let agent = closing_agent().await;
    edge.sandbox("iabc", agent.address);
    let host = agent.host("iabc");
    for mut client in edge.every_client().await {
        for _ in 0..20 {
            assert_eq!(client.get(&host, "/health", &[]).await.text, "fresh");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Whether this one meets a kept connection is chance, and it may have been acted on then.
        let answer = client.call(&host, "POST", "/process.Process/SendInput", &[], full("body")).await;
        assert!(answer.text == "fresh" || answer.text.contains("port is not open"), "{answer:?}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn connections_that_the_agent_closed_are_not_used() {
    let edge = Edge::start().await;
    let (told, mut closed) = mpsc::channel(1);
    let agent = Guest::connections(listen(49983).await, move |mut stream| {
        let told = told.clone();
        async move {
            let request = read_request(&mut stream).await.unwrap();
            // Says nothing about closing, and closes.
            answer(&mut stream, if request.starts_with("POST") { "posted" } else { "got" }).await;
            drop(stream);
            told.send(()).await.unwrap();
        }
    });
    edge.sandbox("iabc", agent.address);
    let host = agent.host("iabc");
    let mut client = edge.http1().await;
    for _ in 0..20 {
        // Nothing but an established close: a POST is safe too.
        let answer = client.call(&host, "POST", "/x", &[], full("body")).await;
        assert_eq!(answer.text, "posted");
        soon(closed.recv()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_does_not_disturb_the_next() {
    let edge = Edge::start().await;
    let agent = Guest::agent(|request: Request<hyper::body::Incoming>| async move {
        let size = if request.uri().path() == "/large" { 8 << 20 } else { 1 };
        http::Response::new(full(vec![b'x'; size]))
    })
    .await;
    edge.sandbox("iabc", agent.address);
    let host = agent.host("iabc");
    let mut client = edge.http2().await;
    for _ in 0..10 {
        let large = client.send(&host, Request::get("/large").body(empty()).unwrap()).await.unwrap();
        drop(large);
        assert_eq!(client.get(&host, "/small", &[]).await.text, "x");
    }
    edge.stop().await;
}
