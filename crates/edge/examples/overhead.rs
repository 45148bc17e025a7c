//! What the edge costs: the same requests to a guest, straight and through the edge.
//!
//! ```text
//! cargo run --release -p sandbar-edge --example overhead
//! ```
//!
//! Client, edge and guest share this process and its processors, so read the ratios, not the figures.

#![allow(missing_docs, dead_code, clippy::print_stdout)]

#[path = "../tests/edge/support.rs"]
mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;

use support::{Body, Client, Edge, Guest, channel, empty, full};

const CALLS: usize = 5000;
const LARGE: usize = 100 << 20;
const PIECE: usize = 64 << 10;

fn large_body() -> Body {
    let (sender, body) = channel();
    tokio::spawn(async move {
        let piece = Bytes::from(vec![7; PIECE]);
        for _ in 0..LARGE / PIECE {
            if sender.send(piece.clone()).await.is_err() {
                return;
            }
        }
    });
    body
}

async fn drain(mut body: hyper::body::Incoming) -> usize {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.expect("a body that does not break").into_data().map_or(0, |data| data.len());
    }
    bytes
}

async fn guest(request: Request<hyper::body::Incoming>) -> Response<Body> {
    match (request.method().as_str(), request.uri().path()) {
        ("GET", "/large") => Response::new(large_body()),
        _ => Response::new(full(drain(request.into_body()).await.to_string())),
    }
}

/// Median and 99th percentile of a short call, and the rates of large ones in MiB/s.
async fn measure(what: &str, mut client: Client, host: &str, base: Option<Duration>) -> Duration {
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let began = Instant::now();
        let answer = client.call(host, "POST", "/process.Process/SendInput", &[], full("hello")).await;
        times.push(began.elapsed());
        assert_eq!(answer.text, "5");
    }
    times.sort();
    let (median, p99) = (times[CALLS / 2], times[CALLS * 99 / 100]);

    let rate = |took: Duration| (LARGE >> 20) as f64 / took.as_secs_f64();
    let (mut down, mut up) = (0.0_f64, 0.0_f64);
    for _ in 0..3 {
        let began = Instant::now();
        let request = Request::get("/large").body(empty()).expect("a request");
        let response = client.send(host, request).await.expect("an answer");
        assert_eq!(drain(response.into_body()).await, LARGE);
        down = down.max(rate(began.elapsed()));
        let began = Instant::now();
        let answer = client.call(host, "POST", "/large", &[], large_body()).await;
        assert_eq!(answer.text, LARGE.to_string());
        up = up.max(rate(began.elapsed()));
    }
    let base = base.unwrap_or(median);
    println!(
        "{what:<34} call {median:>9.1?} p99 {p99:>9.1?} ({:.2} x)   100 MiB down {down:>6.0} MiB/s, up {up:>6.0} MiB/s",
        median.as_secs_f64() / base.as_secs_f64()
    );
    median
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let edge = Edge::start().await;
    let (agent, user) = (Guest::agent(guest).await, Guest::http(guest).await);
    edge.sandbox("iagent", agent.address);
    edge.sandbox("iuser", user.address);

    let direct =
        tokio::net::TcpStream::connect((agent.address, agent.port)).await.expect("the guest listens");
    direct.set_nodelay(true).expect("a socket option");
    let base = measure("direct, HTTP/1.1", Client::http1(direct).await, "guest", None).await;
    let host = agent.host("iagent");
    measure("agent port, HTTP/1.1", edge.http1().await, &host, Some(base)).await;
    measure("agent port, TLS, HTTP/1.1", edge.https1().await, &host, Some(base)).await;
    measure("agent port, TLS, HTTP/2", edge.http2().await, &host, Some(base)).await;
    let host = user.host("iuser");
    measure("user port, HTTP/1.1", edge.http1().await, &host, Some(base)).await;
    measure("user port, TLS, HTTP/2", edge.http2().await, &host, Some(base)).await;
    edge.stop().await;
}
