//! WebSocket and any other protocol that begins as HTTP/1.1.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::support::{Edge, Guest, listen, soon};

/// Agrees to an upgrade, then says everything twice, and `bye` when the client has said all.
async fn stutter() -> Guest {
    Guest::connections(listen(0).await, |mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap() == 0 {
                return;
            }
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains("upgrade: websocket"), "{head}");
        assert!(head.contains("sec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw=="), "{head}");
        let agreement = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\nhello";
        stream.write_all(agreement.as_bytes()).await.unwrap();
        let mut said = [0; 4096];
        loop {
            match stream.read(&mut said).await {
                Ok(0) => break,
                Ok(count) => {
                    stream.write_all(&said[..count]).await.unwrap();
                    stream.write_all(&said[..count]).await.unwrap();
                }
                Err(_) => return,
            }
        }
        stream.write_all(b"bye").await.unwrap();
    })
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, host: &str) -> String {
    let head = format!(
        "GET /socket HTTP/1.1\r\nhost: {host}\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(answer).unwrap()
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, want: &str) {
    let mut got = vec![0; want.len()];
    soon(stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), want);
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, host: &str) {
    let answer = upgrade(&mut stream, host).await;
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    for line in
        ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk="]
    {
        assert!(answer.contains(line), "{line:?} is not in {answer}");
    }
    // What the guest says first needs no word from the client.
    read(&mut stream, "hello").await;
    for word in ["one", "two"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        read(&mut stream, &word.repeat(2)).await;
    }
    // The end of one direction is passed on and does not end the other.
    stream.shutdown().await.unwrap();
    read(&mut stream, "bye").await;
    assert_eq!(soon(stream.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_web_socket_is_passed_through() {
    let edge = Edge::start().await;
    let guest = stutter().await;
    edge.sandbox("iabc", guest.address);
    talk(edge.connect().await, &guest.host("iabc")).await;
    talk(edge.connect_tls("localhost", &["http/1.1"]).await, &guest.host("iabc")).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_web_socket_is_cut_when_the_sandbox_ends() {
    let edge = Edge::start().await;
    let guest = stutter().await;
    let ended = edge.sandbox("iabc", guest.address);
    let mut plain = edge.connect().await;
    let mut secure = edge.connect_tls("localhost", &["http/1.1"]).await;
    upgrade(&mut plain, &guest.host("iabc")).await;
    upgrade(&mut secure, &guest.host("iabc")).await;
    read(&mut plain, "hello").await;
    read(&mut secure, "hello").await;
    ended.cancel();
    assert!(matches!(soon(plain.read(&mut [0; 1])).await, Ok(0) | Err(_)));
    // Without the word by which TLS ends.
    let error = soon(secure.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    edge.stop().await;
}

#[tokio::test]
async fn a_guest_may_decline() {
    let edge = Edge::start().await;
    let guest = Guest::http(|_| async { http::Response::new(crate::support::full("no")) }).await;
    edge.sandbox("iabc", guest.address);
    let mut stream = edge.connect().await;
    let answer = upgrade(&mut stream, &guest.host("iabc")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    read(&mut stream, "no").await;
    edge.stop().await;
}

#[tokio::test]
async fn no_tunnel_leads_to_the_agent() {
    let edge = Edge::start().await;
    let agent = Guest::agent(|request: http::Request<hyper::body::Incoming>| async move {
        let asked = request.headers().contains_key("upgrade") || request.headers().contains_key("connection");
        http::Response::new(crate::support::full(if asked { "asked" } else { "not asked" }))
    })
    .await;
    edge.sandbox("iabc", agent.address);
    let mut stream = edge.connect().await;
    upgrade(&mut stream, &agent.host("iabc")).await;
    read(&mut stream, "not asked").await;
    edge.stop().await;
}

#[tokio::test]
async fn stopping_cuts_tunnels() {
    let edge = Edge::start_with(|config| config.shutdown_grace = std::time::Duration::from_millis(50)).await;
    let guest = stutter().await;
    edge.sandbox("iabc", guest.address);
    let mut stream = edge.connect().await;
    upgrade(&mut stream, &guest.host("iabc")).await;
    read(&mut stream, "hello").await;
    edge.stop().await;
    assert!(matches!(soon(stream.read(&mut [0; 1])).await, Ok(0) | Err(_)));
}
