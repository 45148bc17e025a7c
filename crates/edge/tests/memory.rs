//! Large bodies pass through in little memory. A test binary of its own, since it looks at the whole process.

#![allow(missing_docs, dead_code)]

#[path = "edge/support.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;

use support::{Edge, Guest, channel, full};

const SIZE: usize = 256 << 20;
const PIECE: usize = 64 << 10;

/// What the edge, its client and its guest may hold together while a body passes.
const HELD_MAX: u64 = 48 << 20;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn large_body() -> support::Body {
    let (sender, body) = channel();
    tokio::spawn(async move {
        let piece = Bytes::from(vec![7; PIECE]);
        for _ in 0..SIZE / PIECE {
            if sender.send(piece.clone()).await.is_err() {
                return;
            }
        }
    });
    body
}

async fn count(mut body: hyper::body::Incoming) -> usize {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().map_or(0, |data| data.len());
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_in_constant_memory() {
    let edge = Edge::start().await;
    let guest = Guest::agent(|request: Request<hyper::body::Incoming>| async move {
        match request.method().as_str() {
            "GET" => Response::new(large_body()),
            _ => Response::new(full(count(request.into_body()).await.to_string())),
        }
    })
    .await;
    edge.sandbox("iabc", guest.address);
    let peak = Arc::new(AtomicU64::new(0));
    let highest = peak.clone();
    let watch = tokio::spawn(async move {
        loop {
            highest.fetch_max(resident_bytes(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    for mut client in edge.every_client().await {
        let before = resident_bytes();
        peak.store(before, Ordering::Relaxed);

        let request = Request::get("/files").body(support::empty()).unwrap();
        let response = client.send(&guest.host("iabc"), request).await.unwrap();
        assert_eq!(count(response.into_body()).await, SIZE);
        let answer = client.call(&guest.host("iabc"), "POST", "/files", &[], large_body()).await;
        assert_eq!(answer.text, SIZE.to_string());

        let grown = peak.load(Ordering::Relaxed) - before;
        assert!(grown < HELD_MAX, "grew by {} MiB", grown >> 20);
    }
    watch.abort();
    edge.stop().await;
}
