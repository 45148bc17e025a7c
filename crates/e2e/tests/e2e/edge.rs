//! What stands in front of the sandboxes: one listener, routing, and its own answers.
//!
//! Source: contract/network.md §8, §9 and §11; contract/client-versions.md §2.2 and §5.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use libtest_mimic::Trial;
use reqwest::{Certificate, Client, Method, Version};
use sandbar_e2e::{Answer, Guest, Server, until};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::suite::shared;

const CHROME: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("edge::one_port_speaks_plain_http_and_tls_in_both_versions", async |server| {
            let url = format!("https://api.{}/health", server.domain());
            for (client, version) in
                [(tls(server)?.http1_only(), Version::HTTP_11), (tls(server)?, Version::HTTP_2)]
            {
                let response = client.build()?.get(&url).send().await?;
                ensure!(response.status() == 200 && response.version() == version, "{response:?}");
            }
            server.api().get("/health").await?.expect(200)?;
            Ok(())
        }),
        shared("edge::http2_allows_at_least_100_streams", async |server| {
            // Clients of 2.21 to 2.34 use one stream at a time when nothing is said (case 49).
            let settings = http2_settings(server).await?;
            let streams = settings.iter().find(|(name, _)| *name == 3).map(|(_, value)| *value);
            ensure!(streams.is_some_and(|streams| streams >= 100), "{settings:?}");
            Ok(())
        }),
        shared("edge::reserved_paths_of_the_agent_are_refused_however_they_are_written", async |server| {
            let guest = server.api().create(json!({})).await?;
            for path in [
                "/init",
                "//init",
                "/init/",
                "/files/../init",
                "/./init",
                "/%69nit",
                "/%2e%2e/init",
                "/init?x=1",
                "/freeze",
                "/unfreeze",
                "/collapse",
                "/fsfreeze",
                "/fsthaw",
                "/upgrade",
            ] {
                for method in ["POST", "GET"] {
                    let answer = raw(server, &guest, method, path).await?;
                    let (head, body) = answer.split_once("\r\n\r\n").context("a whole answer")?;
                    ensure!(head.starts_with("HTTP/1.1 404"), "{method} {path}: {answer}");
                    ensure!(body.contains("reserved for the E2B control plane"), "{method} {path}: {answer}");
                }
            }
            server.api().kill(&guest.id).await
        }),
        shared("edge::a_missing_sandbox_and_a_closed_port_are_told_apart", async |server| {
            let guest = server.api().create(json!({})).await?;
            let closed = Answer::of(guest.request(Method::GET, 4321, "/")).await?;
            let closed = closed.expect_error(502, "The sandbox is running but port is not open")?.json()?;
            ensure!(closed["port"] == 4321 && closed["sandboxId"] == guest.id.as_str(), "{closed}");
            let html = Answer::of(guest.request(Method::GET, 4321, "/").header("User-Agent", CHROME)).await?;
            ensure!(html.header("content-type").starts_with("text/html"), "{html:?}");
            ensure!(html.expect(502)?.text.to_lowercase().contains("no service running on port"));
            let cors = guest.request(Method::GET, 4321, "/").header("User-Agent", CHROME);
            Answer::of(cors.header("Sec-Fetch-Mode", "cors")).await?.expect_error(502, "port is not open")?;
            let json = guest.request(Method::GET, 4321, "/").header("User-Agent", CHROME);
            Answer::of(json.header("Accept", "application/json"))
                .await?
                .expect_error(502, "port is not open")?;
            server.api().kill(&guest.id).await?;
            for port in [4321, 49983] {
                let gone = Answer::of(guest.request(Method::GET, port, "/health")).await?;
                let gone = gone.expect_error(502, "The sandbox was not found")?.json()?;
                ensure!(gone["sandboxId"] == guest.id.as_str() && gone.get("port").is_none(), "{gone}");
            }
            let html = Answer::of(guest.request(Method::GET, 80, "/").header("User-Agent", CHROME)).await?;
            ensure!(html.expect(502)?.text.contains("Sandbox Not Found"));
            Ok(())
        }),
        shared("edge::routes_by_headers_by_name_and_by_token", async |server| {
            // Cases 28 and 46 to 48.
            let guest = server.api().create(json!({})).await?;
            let port = server.address().port();
            let token = guest.token.clone().context("a token")?;
            let http = Client::builder().no_proxy().build()?;
            let list = |host: &str| {
                let url = format!("http://{}/process.Process/List", server.address());
                http.post(url).header("Host", host).json(&json!({}))
            };
            for host in [
                format!("49983-{}.sbx.localhost:{port}", guest.id),
                format!("49983-{}-6532622b.sbx.localhost:{port}", guest.id),
            ] {
                Answer::of(list(&host).header("X-Access-Token", &token)).await?.expect(200)?;
                Answer::of(list(&host)).await?.expect_error(401, "unauthorized access")?;
            }
            let local = format!("localhost:{port}");
            Answer::of(list(&local).header("X-Access-Token", &token)).await?.expect(200)?;
            // Nobody is meant: the control plane answers, and no sandbox is asked.
            let nobody = Answer::of(list(&local)).await?;
            ensure!((400..500).contains(&nobody.status), "{nobody:?}");
            let status = nobody.status;
            nobody.expect_error(status, "")?;
            let half = Answer::of(list(&local).header("E2b-Sandbox-Id", &guest.id)).await?.expect(400)?;
            ensure!(half.text.contains("missing header"), "{half:?}");
            let unknown = format!("49983-inosuchsandbox0000000.sbx.localhost:{port}");
            Answer::of(list(&unknown)).await?.expect_error(502, "The sandbox was not found")?;
            let bad = format!("49983-UP_PER.sbx.localhost:{port}");
            ensure!([400, 502].contains(&Answer::of(list(&bad)).await?.status));
            server.api().kill(&guest.id).await
        }),
        shared("edge::answers_stream_and_nothing_is_held_back", async |server| {
            let guest = server.api().create(json!({})).await?;
            serve(&guest, 8080, STREAMING_SERVER).await?;
            let started = Instant::now();
            let mut chunks = guest.request(Method::GET, 8080, "/slow").send().await?.bytes_stream();
            let first = chunks.next().await.context("a chunk")??;
            ensure!(
                first.as_ref() == b"first" && started.elapsed() < Duration::from_millis(900),
                "{first:?}"
            );
            let rest = chunks.next().await.context("a second chunk")??;
            ensure!(rest.as_ref() == b"second" && started.elapsed() > Duration::from_millis(900), "{rest:?}");
            // The other way: the server answers to the first piece before it gets the second.
            let (send, receive) = futures::channel::mpsc::unbounded::<Result<Vec<u8>, std::io::Error>>();
            send.unbounded_send(Ok(b"piece".to_vec()))?;
            let body = reqwest::Body::wrap_stream(receive);
            let response = guest.request(Method::POST, 8080, "/echo").body(body).send().await?;
            let mut chunks = response.bytes_stream();
            ensure!(chunks.next().await.context("an echo")??.as_ref() == b"piece");
            send.unbounded_send(Ok(b"another".to_vec()))?;
            ensure!(chunks.next().await.context("an echo")??.as_ref() == b"another");
            drop(send);
            ensure!(chunks.next().await.is_none());
            server.api().kill(&guest.id).await
        }),
        shared("edge::upgraded_connections_carry_both_directions", async |server| {
            let guest = server.api().create(json!({})).await?;
            serve(&guest, 8081, UPGRADE_SERVER).await?;
            let mut socket = TcpStream::connect(server.address()).await?;
            let host = format!("8081-{}.{}", guest.id, server.domain());
            let head = format!(
                "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).await?;
            let answer = read_until(&mut socket, b"\r\n\r\n").await?;
            ensure!(answer.starts_with("HTTP/1.1 101"), "{answer}");
            for word in ["one.", "two."] {
                socket.write_all(word.as_bytes()).await?;
                ensure!(read_until(&mut socket, b".").await? == word.to_uppercase());
            }
            // A kill cuts what is open.
            server.api().kill(&guest.id).await?;
            let end = tokio::time::timeout(Duration::from_secs(5), socket.read(&mut [0; 16])).await;
            ensure!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
            Ok(())
        }),
        shared("edge::a_host_name_is_passed_on_unchanged", async |server| {
            let guest = server.api().create(json!({})).await?;
            serve(&guest, 8082, STREAMING_SERVER).await?;
            let host = format!("8082-{}.{}", guest.id, server.domain());
            let url = format!("https://{host}/headers");
            let answer =
                Answer::of(tls(server)?.build()?.get(url).header("X-Own", "1")).await?.expect(200)?;
            let seen = answer.text.to_lowercase();
            ensure!(seen.contains(&format!("host: {host}")) && seen.contains("x-own: 1"), "{seen}");
            ensure!(!seen.contains("x-forwarded"), "{seen}");
            server.api().kill(&guest.id).await
        }),
        shared("edge::a_large_file_goes_both_ways_over_http2", async |server| {
            // Case 53, and the name of the sandbox in the host.
            let guest = server.api().create(json!({})).await?;
            let client = tls(server)?.build()?;
            let url = format!("https://49983-{}.{}/files?path=/tmp/large", guest.id, server.domain());
            let token = guest.token.clone().context("a token")?;
            let data: Vec<u8> = (0..64 * 1024 * 1024_u32)
                .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect();
            let upload = client.post(&url).header("X-Access-Token", &token);
            let upload = upload.header("Content-Type", "application/octet-stream").body(data.clone());
            Answer::of(upload).await?.expect(200)?;
            let response = client.get(&url).header("X-Access-Token", &token).send().await?;
            ensure!(response.status() == 200 && response.version() == Version::HTTP_2, "{response:?}");
            ensure!(response.bytes().await?.as_ref() == data.as_slice(), "the file came back changed");
            server.api().kill(&guest.id).await
        }),
        shared("edge::many_requests_share_one_connection", async |server| {
            let guest = server.api().create(json!({})).await?;
            let client = tls(server)?.build()?;
            let url = format!("https://49983-{}.{}/health", guest.id, server.domain());
            let asks = (0..100).map(|_| Answer::of(client.get(&url)));
            for answer in futures::future::try_join_all(asks).await? {
                answer.expect(204)?;
            }
            server.api().kill(&guest.id).await
        }),
        shared("edge::a_service_on_the_loopback_of_the_guest_is_reachable", async |server| {
            // Row 118 of envd.md §19; guests have no IPv6 yet.
            let guest = server.api().create(json!({})).await?;
            guest.start("cd /etc && python3 -m http.server 3210 --bind 127.0.0.1").await?;
            answers(&guest, 3210, "/hostname").await?;
            server.api().kill(&guest.id).await
        }),
    ]
}

/// Answers `/slow` in two chunks a second apart, `/echo` piece by piece, `/headers` with what it was sent.
const STREAMING_SERVER: &str = r#"
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def head(self):
        self.send_response(200); self.send_header("Transfer-Encoding", "chunked"); self.end_headers()
    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data)); self.wfile.flush()
    def do_GET(self):
        self.head()
        if self.path == "/slow":
            self.chunk(b"first"); time.sleep(1); self.chunk(b"second")
        elif self.path == "/headers":
            self.chunk(str(self.headers).encode())
        self.chunk(b"")
    def do_POST(self):
        self.head()
        while size := int(self.rfile.readline(), 16):
            self.chunk(self.rfile.read(size)); self.rfile.readline()
        self.rfile.readline(); self.chunk(b"")
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
"#;

/// Accepts an upgrade and answers every piece in upper case.
const UPGRADE_SERVER: &str = r#"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("Upgrade") != "websocket":
            self.send_response(204); self.end_headers(); return
        self.send_response(101); self.send_header("Upgrade", "websocket"); self.send_header("Connection", "Upgrade")
        self.end_headers(); self.wfile.flush()
        while data := self.connection.recv(1024):
            self.connection.sendall(data.upper())
        self.close_connection = True
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
"#;

/// Starts a program that serves a port, and waits for it.
async fn serve(guest: &Guest, port: u16, program: &str) -> Result<()> {
    let upload = guest.agent(Method::POST, &format!("/files?path=/tmp/server-{port}.py"));
    Answer::of(upload.header("Content-Type", "application/octet-stream").body(program.to_owned()))
        .await?
        .expect(200)?;
    guest.start(&format!("python3 /tmp/server-{port}.py {port}")).await?;
    answers(guest, port, "/").await
}

async fn answers(guest: &Guest, port: u16, path: &str) -> Result<()> {
    until("an answer of the port", Duration::from_secs(10), async || {
        Ok(Answer::of(guest.request(Method::GET, port, path)).await?.is_success().then_some(()))
    })
    .await
}

fn tls(server: &Server) -> Result<reqwest::ClientBuilder> {
    let ca = Certificate::from_pem(&std::fs::read(server.ca())?)?;
    Ok(Client::builder().no_proxy().tls_certs_only([ca]).timeout(Duration::from_secs(60)))
}

/// A request whose path no client library touches; the whole answer.
async fn raw(server: &Server, guest: &Guest, method: &str, path: &str) -> Result<String> {
    let mut socket = TcpStream::connect(server.address()).await?;
    let host = format!("49983-{}.{}", guest.id, server.domain());
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.context("time of the answer")??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn read_until(socket: &mut TcpStream, end: &[u8]) -> Result<String> {
    let mut text = Vec::new();
    let read = async {
        while !text.ends_with(end) {
            text.push(socket.read_u8().await?);
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(Duration::from_secs(10), read).await {
        Ok(done) => done?,
        Err(_) => bail!("no end after {:?}", String::from_utf8_lossy(&text)),
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The settings that the server sends first on a connection, as pairs of name and value (RFC 9113 §6.5).
async fn http2_settings(server: &Server) -> Result<Vec<(u16, u32)>> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, ServerName};

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.ca())?)?;
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = format!("api.{}", server.domain().split(':').next().context("a domain")?);
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let socket = TcpStream::connect(server.address()).await?;
    let mut socket = connector.connect(ServerName::try_from(name)?, socket).await?;
    // The preface and empty settings of our own.
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await?;
    let mut head = [0; 9];
    socket.read_exact(&mut head).await?;
    ensure!(head[3] == 4, "the first frame is not of settings: {head:?}");
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    socket.read_exact(&mut payload).await?;
    let pairs = payload.chunks_exact(6).map(|pair| {
        (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
    });
    Ok(pairs.collect())
}
