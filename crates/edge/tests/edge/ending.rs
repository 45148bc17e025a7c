//! When sandboxes, guests or the server end, streams break off; they never seem complete.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::{Answer, DOMAIN, Edge, Guest, channel, empty, full, listen, soon};

#[track_caller]
fn is_gone(answer: &Answer) {
    assert_eq!(answer.status, 502);
    assert_eq!(answer.text, r#"{"sandboxId":"iabc","message":"The sandbox was not found","code":502}"#);
}

/// Sends a first piece of an answer that has no end. The sender must be kept.
async fn endless(started: mpsc::Sender<mpsc::Sender<Bytes>>) -> Response<crate::support::Body> {
    let (sender, body) = channel();
    sender.send(Bytes::from_static(b"first")).await.unwrap();
    started.send(sender).await.unwrap();
    Response::new(body)
}

#[tokio::test]
async fn an_answer_breaks_off_when_the_sandbox_ends() {
    let edge = Edge::start().await;
    for mut client in edge.every_client().await {
        let (started, mut begun) = mpsc::channel(1);
        let guest = Guest::http(move |_| endless(started.clone())).await;
        let ended = edge.sandbox("iabc", guest.address);
        let host = guest.host("iabc");
        let response = client.send(&host, Request::new(empty())).await.unwrap();
        let mut body = response.into_body();
        let _guest_goes_on = soon(begun.recv()).await.unwrap();
        assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "first");
        ended.cancel();
        assert!(
            soon(body.frame()).await.is_some_and(|frame| frame.is_err()),
            "a clean end looks like success"
        );
        if client.is_http2() {
            // Only the stream is gone.
            is_gone(&client.get(&host, "/", &[]).await);
        }
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_answer_with_a_length_breaks_off_too() {
    let edge = Edge::start().await;
    for mut client in edge.every_client().await {
        let guest = Guest::connections(listen(0).await, |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").await.unwrap();
            std::future::pending().await
        });
        let ended = edge.sandbox("iabc", guest.address);
        let response = client.send(&guest.host("iabc"), Request::new(empty())).await.unwrap();
        let mut body = response.into_body();
        assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "first");
        ended.cancel();
        assert!(soon(body.collect()).await.is_err());
    }
    edge.stop().await;
}

#[tokio::test]
async fn on_the_wire_the_last_chunk_is_missing() {
    let edge = Edge::start().await;
    let (started, mut begun) = mpsc::channel(1);
    let guest = Guest::http(move |_| endless(started.clone())).await;
    let ended = edge.sandbox("iabc", guest.address);
    let mut stream = edge.connect().await;
    let head = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", guest.host("iabc"));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"5\r\nfirst\r\n") {
        assert!(soon(stream.read_buf(&mut seen)).await.unwrap() > 0);
    }
    let _guest_goes_on = soon(begun.recv()).await.unwrap();
    ended.cancel();
    let _ = soon(stream.read_to_end(&mut seen)).await;
    assert!(seen.ends_with(b"5\r\nfirst\r\n"), "{}", String::from_utf8_lossy(&seen));
    edge.stop().await;
}

#[tokio::test]
async fn an_answer_breaks_off_when_the_guest_does() {
    let edge = Edge::start().await;
    let guest = Guest::connections(listen(0).await, |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .await
            .unwrap();
    });
    edge.sandbox("iabc", guest.address);
    for mut client in edge.every_client().await {
        let response = client.send(&guest.host("iabc"), Request::new(empty())).await.unwrap();
        assert!(soon(response.into_body().collect()).await.is_err(), "a clean end looks like success");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_request_that_waits_when_the_sandbox_ends_is_told_so() {
    let edge = Edge::start().await;
    for mut client in edge.every_client().await {
        let (asked, mut began) = mpsc::channel(1);
        let guest = Guest::http(move |_| {
            let asked = asked.clone();
            async move {
                asked.send(()).await.unwrap();
                std::future::pending().await
            }
        })
        .await;
        let ended = edge.sandbox("iabc", guest.address);
        let host = guest.host("iabc");
        let waiting = tokio::spawn(async move { client.get(&host, "/", &[]).await });
        soon(began.recv()).await.unwrap();
        ended.cancel();
        is_gone(&soon(waiting).await.unwrap());
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_closed_port_is_told_from_a_missing_sandbox() {
    let edge = Edge::start().await;
    let listener = listen(0).await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let std::net::IpAddr::V4(ip) = address.ip() else { panic!("IPv4") };
    edge.sandbox("iabc", ip);
    let host = format!("{}-iabc.{DOMAIN}", address.port());
    for mut client in edge.every_client().await {
        let answer = client.get(&host, "/", &[]).await;
        assert_eq!(answer.status, 502);
        let want = format!(
            r#"{{"sandboxId":"iabc","message":"The sandbox is running but port is not open","code":502,"port":{}}}"#,
            address.port()
        );
        assert_eq!(answer.text, want);
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_port_that_opens_within_the_second_is_reached() {
    let edge = Edge::start().await;
    let listener = listen(0).await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let std::net::IpAddr::V4(ip) = address.ip() else { panic!("IPv4") };
    edge.sandbox("iabc", ip);
    let host = format!("{}-iabc.{DOMAIN}", address.port());
    let mut client = edge.http1().await;
    let waiting = tokio::spawn(async move { client.get(&host, "/", &[]).await });
    // After the first attempt, which comes at once, and before the last one.
    tokio::time::sleep(Duration::from_millis(250)).await;
    let _guest = Guest::connections(TcpListener::bind(address).await.unwrap(), |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await.unwrap();
    });
    assert_eq!(soon(waiting).await.unwrap().text, "late");
    edge.stop().await;
}

#[tokio::test]
async fn a_guest_that_does_not_speak_http_is_a_closed_port() {
    let edge = Edge::start().await;
    for answer in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n"] {
        let guest = Guest::connections(listen(0).await, move |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        edge.sandbox("iabc", guest.address);
        let got = edge.http1().await.get(&guest.host("iabc"), "/", &[]).await;
        assert_eq!(got.status, 502, "{answer:?}");
        assert!(got.text.contains("port is not open"), "{got:?}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_sandbox_that_ends_while_its_guest_breaks_off_was_not_found() {
    let edge = Edge::start().await;
    let (broke, mut broken) = mpsc::channel(1);
    let guest = Guest::connections(listen(0).await, move |mut stream| {
        let broke = broke.clone();
        async move {
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            broke.send(()).await.unwrap();
            std::future::pending().await
        }
    });
    let ended = edge.sandbox("iabc", guest.address);
    let (mut client, host) = (edge.http1().await, guest.host("iabc"));
    let waiting = tokio::spawn(async move { client.get(&host, "/", &[]).await });
    soon(broken.recv()).await.unwrap();
    // A new run under the same name does not make the old request a success.
    edge.sandbox("iabc", Ipv4Addr::LOCALHOST);
    drop(guest);
    is_gone(&soon(waiting).await.unwrap());
    ended.cancel();
    edge.stop().await;
}

#[tokio::test]
async fn stopping_lets_short_requests_finish_and_cuts_the_rest() {
    let edge = Edge::start_with(|config| config.shutdown_grace = Duration::from_millis(500)).await;
    let (asked, mut began) = mpsc::channel(1);
    let short = Guest::http(move |_| {
        let asked = asked.clone();
        async move {
            let (finish, finished) = tokio::sync::oneshot::channel();
            asked.send(finish).await.unwrap();
            finished.await.unwrap();
            Response::new(full("done"))
        }
    })
    .await;
    let (started, mut begun) = mpsc::channel(1);
    let long = Guest::http(move |_| endless(started.clone())).await;
    edge.sandbox("ishort", short.address);
    edge.sandbox("ilong", long.address);

    let (mut first, mut second, mut idle) = (edge.http1().await, edge.http2().await, edge.https1().await);
    assert_eq!(idle.get("localhost", "/x", &[]).await.text, "api GET /x");
    let short_host = short.host("ishort");
    let waiting = tokio::spawn(async move { first.get(&short_host, "/", &[]).await });
    let finish: tokio::sync::oneshot::Sender<()> = soon(began.recv()).await.unwrap();
    let cut = second.send(&long.host("ilong"), Request::new(empty())).await.unwrap();
    let _guest_goes_on = soon(begun.recv()).await.unwrap();

    edge.stop.cancel();
    soon(idle.connection).await.unwrap().unwrap();
    assert!(!edge.serving.is_finished());
    finish.send(()).unwrap();
    assert_eq!(soon(waiting).await.unwrap().text, "done");
    soon(edge.serving).await.unwrap();
    assert!(soon(cut.into_body().collect()).await.is_err());
    assert!(tokio::net::TcpStream::connect(edge.addresses[0]).await.is_err());
}
