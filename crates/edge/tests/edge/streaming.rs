//! Bodies flow as they come, both ways, and nothing waits for an end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{Mutex, mpsc};

use crate::support::{Body, Edge, Guest, channel, empty, full, listen, soon};

/// The next piece of data in a body. Over HTTP/2 the end may come as an empty one.
async fn next(body: &mut hyper::body::Incoming) -> Option<Bytes> {
    let frame = soon(body.frame()).await?.unwrap();
    let data = frame.into_data().expect("data");
    (!(data.is_empty() && body.is_end_stream())).then_some(data)
}

#[tokio::test]
async fn an_event_arrives_before_the_next_is_made() {
    let edge = Edge::start().await;
    let events = Arc::new(Mutex::new(None::<mpsc::Sender<Bytes>>));
    let made = events.clone();
    let guest = Guest::http(move |_| {
        let made = made.clone();
        async move {
            let (sender, body) = channel();
            *made.lock().await = Some(sender);
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        }
    })
    .await;
    edge.sandbox("iabc", guest.address);
    for mut client in edge.every_client().await {
        let response = client.send(&guest.host("iabc"), Request::new(empty())).await.unwrap();
        let mut body = response.into_body();
        for number in 0..3 {
            let event = Bytes::from(format!("data: {number}\n\n"));
            events.lock().await.as_ref().unwrap().send(event.clone()).await.unwrap();
            assert_eq!(next(&mut body).await, Some(event));
        }
        events.lock().await.take();
        assert_eq!(next(&mut body).await, None);
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_request_is_answered_piece_by_piece_while_it_is_sent() {
    let edge = Edge::start().await;
    let guest = Guest::agent(|request: Request<hyper::body::Incoming>| async move {
        Response::new(Body::new(request.into_body().map_err(|error| panic!("{error}"))))
    })
    .await;
    edge.sandbox("iabc", guest.address);
    for mut client in edge.every_client().await {
        let (sender, body) = channel();
        let request = Request::post("/process.Process/StreamInput").body(body).unwrap();
        let mut echo = client.send(&guest.host("iabc"), request).await.unwrap().into_body();
        for number in 0..3 {
            let piece = Bytes::from(format!("piece {number}"));
            sender.send(piece.clone()).await.unwrap();
            assert_eq!(next(&mut echo).await, Some(piece));
        }
        drop(sender);
        assert_eq!(next(&mut echo).await, None);
    }
    edge.stop().await;
}

/// Reads the head of a request, byte by byte as it were.
async fn read_head<R: tokio::io::AsyncRead + Unpin>(stream: &mut BufReader<R>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).await.unwrap() > 0, "closed after {head:?}");
    }
    head
}

#[tokio::test]
async fn an_answer_that_comes_early_ends_the_request() {
    let edge = Edge::start().await;
    // Answers once it has the head, then closes without having read the body.
    let guest = Guest::connections(listen(0).await, |stream| async move {
        let mut stream = BufReader::new(stream);
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\nearly";
        stream.get_mut().write_all(answer).await.unwrap();
    });
    edge.sandbox("iabc", guest.address);
    for mut client in edge.every_client().await {
        let (sender, body) = channel();
        // As much as sockets take, and more.
        let upload =
            tokio::spawn(async move { while sender.send(Bytes::from(vec![0; 65536])).await.is_ok() {} });
        let request = Request::post("/").body(body).unwrap();
        let response = client.send(&guest.host("iabc"), request).await.unwrap();
        assert_eq!(response.status(), 400);
        assert_eq!(soon(response.into_body().collect()).await.unwrap().to_bytes(), "early");
        soon(upload).await.unwrap();
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_guest_that_answers_early_and_goes_on_reading_is_told_that_it_is_over() {
    let edge = Edge::start().await;
    let (told, mut over) = mpsc::channel(1);
    let guest = Guest::connections(listen(0).await, move |stream| {
        let told = told.clone();
        async move {
            let mut stream = BufReader::new(stream);
            read_head(&mut stream).await;
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            told.send(!rest.ends_with(b"0\r\n\r\n")).await.unwrap();
        }
    });
    edge.sandbox("iabc", guest.address);
    for mut client in edge.every_client().await {
        let (_endless, body) = channel();
        let request = Request::post("/").body(body).unwrap();
        let response = client.send(&guest.host("iabc"), request).await.unwrap();
        assert_eq!(soon(response.into_body().collect()).await.unwrap().to_bytes(), "ok");
        assert_eq!(soon(over.recv()).await, Some(true), "the request must not look complete");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_is_noticed_by_the_guest() {
    let edge = Edge::start().await;
    let (asked, mut began) = mpsc::channel(1);
    let (told, mut gone) = mpsc::channel(1);
    let guest = Guest::connections(listen(0).await, move |stream| {
        let (asked, told) = (asked.clone(), told.clone());
        async move {
            let mut stream = BufReader::new(stream);
            read_head(&mut stream).await;
            asked.send(()).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            told.send(()).await.unwrap();
        }
    });
    edge.sandbox("iabc", guest.address);
    for mut client in edge.every_client().await {
        let host = guest.host("iabc");
        let request = tokio::spawn(async move { client.send(&host, Request::new(empty())).await.map(drop) });
        soon(began.recv()).await.unwrap();
        request.abort();
        soon(gone.recv()).await.unwrap();
    }
    edge.stop().await;
}

#[tokio::test]
async fn trailers_arrive() {
    let edge = Edge::start().await;
    let guest = Guest::http(|_| async {
        let frames = tokio_stream::iter([
            Ok(Frame::data(Bytes::from_static(b"text"))),
            Ok(Frame::trailers(HeaderMap::from_iter([(
                "x-sum".parse().unwrap(),
                HeaderValue::from_static("7"),
            )]))),
        ]);
        Response::builder().header("trailer", "x-sum").body(Body::new(StreamBody::new(frames))).unwrap()
    })
    .await;
    edge.sandbox("iabc", guest.address);
    for mut client in edge.every_client().await {
        let answer = client.get(&guest.host("iabc"), "/", &[("te", "trailers")]).await;
        assert_eq!(answer.text, "text");
        assert_eq!(answer.trailers.unwrap()["x-sum"], "7");
    }
    edge.stop().await;
}

#[tokio::test]
async fn no_empty_frames_are_sent() {
    let edge = Edge::start().await;
    let guest = Guest::http(|_| async { Response::new(full(vec![1; 3 << 20])) }).await;
    edge.sandbox("iabc", guest.address);
    let response = edge.http2().await.send(&guest.host("iabc"), Request::new(empty())).await.unwrap();
    let mut body = response.into_body();
    let (mut frames, mut bytes) = (0, 0);
    while let Some(data) = next(&mut body).await {
        assert!(!data.is_empty(), "after {frames} frames");
        frames += 1;
        bytes += data.len();
    }
    assert_eq!(bytes, 3 << 20);
    edge.stop().await;
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_the_guest_wants_it() {
    let edge = Edge::start().await;
    // Refuses uploads by their head, and takes others after saying so.
    let guest = Guest::connections(listen(0).await, |stream| async move {
        let mut stream = BufReader::new(stream);
        let head = read_head(&mut stream).await;
        assert!(head.contains("expect: 100-continue"), "{head}");
        if head.starts_with("POST /no ") {
            let answer = b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n";
            stream.get_mut().write_all(answer).await.unwrap();
            return;
        }
        stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await.unwrap();
        stream.get_mut().write_all(&body).await.unwrap();
    });
    edge.sandbox("iabc", guest.address);

    for (path, want_first) in [("/yes", "HTTP/1.1 100 Continue"), ("/no", "HTTP/1.1 417 Expectation Failed")]
    {
        let mut stream = BufReader::new(edge.connect().await);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n",
            guest.host("iabc")
        );
        stream.get_mut().write_all(head.as_bytes()).await.unwrap();
        let first = soon(read_head(&mut stream)).await;
        assert!(first.starts_with(want_first), "{first}");
        if path == "/yes" {
            stream.get_mut().write_all(b"body").await.unwrap();
            let answer = soon(read_head(&mut stream)).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            let mut body = [0; 4];
            soon(stream.read_exact(&mut body)).await.unwrap();
            assert_eq!(&body, b"body");
        }
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_get_with_a_body_of_unknown_length_keeps_it() {
    let edge = Edge::start().await;
    let guest = Guest::http(|request: Request<hyper::body::Incoming>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(full(body))
    })
    .await;
    edge.sandbox("iabc", guest.address);
    for mut client in edge.every_client().await {
        for method in ["GET", "DELETE", "POST"] {
            let (sender, body) = channel();
            sender.send(Bytes::from_static(b"query")).await.unwrap();
            drop(sender);
            let chunked = [("transfer-encoding", "chunked")];
            let headers = if client.is_http2() { &[][..] } else { &chunked[..] };
            let answer = client.call(&guest.host("iabc"), method, "/", headers, body).await;
            assert_eq!(answer.text, "query", "{method}");
        }
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_guest_that_does_not_read_stops_the_client() {
    // Nothing tells the edge that a client is gone whose bytes it cannot take.
    let edge = Edge::start_with(|config| config.shutdown_grace = Duration::from_millis(50)).await;
    let guest = Guest::connections(listen(0).await, |stream| async move {
        let _held = stream;
        std::future::pending().await
    });
    edge.sandbox("iabc", guest.address);
    for mut client in edge.every_client().await {
        let (sender, body) = channel();
        let host = guest.host("iabc");
        let request = tokio::spawn(async move {
            client.send(&host, Request::post("/").body(body).unwrap()).await.map(drop)
        });
        let piece = Bytes::from(vec![0; 1 << 20]);
        let mut sent = 0;
        // Far more than all windows and socket buffers together is never taken.
        while let Ok(result) = tokio::time::timeout(Duration::from_secs(1), sender.send(piece.clone())).await
        {
            result.unwrap();
            sent += 1;
            assert!(sent < 64, "the edge holds {sent} MiB");
        }
        request.abort();
    }
    edge.stop().await;
}
