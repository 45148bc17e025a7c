//! An edge, guests to put behind it, and clients to put before it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use sandbar_edge::{Config, api_service, bind, certs};
use sandbar_model::{Refusal, Route, Routes, RunId, SandboxId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const LATE: Duration = Duration::from_secs(20);

pub(crate) const DOMAIN: &str = "sbx.localhost";

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) fn empty() -> Body {
    Body::new(Empty::new())
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Body::new(Full::new(text.into()))
}

/// A body of unknown length that its sender makes up as it goes; it ends when the sender is dropped.
pub(crate) fn channel() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = tokio_stream::StreamExt::map(ReceiverStream::new(receiver), |chunk| {
        Ok::<_, Infallible>(Frame::data(chunk))
    });
    (sender, Body::new(StreamBody::new(frames)))
}

/// Fails the test when `work` hangs.
#[track_caller]
pub(crate) fn soon<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(LATE, work).await {
            Ok(output) => output,
            Err(_) => panic!("hangs: {caller}"),
        }
    }
}

/// Where sandboxes are, in memory.
#[derive(Default)]
pub(crate) struct FakeRoutes {
    by_id: Mutex<HashMap<SandboxId, Route>>,
    by_token: Mutex<HashMap<String, SandboxId>>,
}

#[async_trait]
impl Routes for FakeRoutes {
    async fn find(&self, id: &SandboxId) -> Result<Route, Refusal> {
        let route = self.by_id.lock().unwrap().get(id).cloned();
        route.filter(|route| !route.ended.is_cancelled()).ok_or(Refusal::NotFound)
    }

    async fn find_by_token(&self, token: &str) -> Option<SandboxId> {
        self.by_token.lock().unwrap().get(token).cloned()
    }
}

/// A running edge with an authority of its own.
pub(crate) struct Edge {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) tls: sandbar_edge::TlsFiles,
    pub(crate) routes: Arc<FakeRoutes>,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(configure: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(dir.path().join("tls")).unwrap();
        let tls = certs::ensure(&path, DOMAIN, None).unwrap();
        let any = |text: &str| text.parse().unwrap();
        let mut config = Config::new(vec![any("127.0.0.1:0"), any("[::1]:0")], DOMAIN);
        config.tls = Some(tls.clone());
        configure(&mut config);
        let bound = bind(config).await.unwrap();
        let addresses = bound.addresses().to_vec();
        let (routes, stop) = (Arc::new(FakeRoutes::default()), CancellationToken::new());
        let api = api_service(tower::service_fn(api));
        let serving = tokio::spawn(bound.serve(api, routes.clone(), stop.clone()));
        Self { addresses, tls, routes, stop, serving, _dir: dir }
    }

    /// Makes a sandbox known, with a run of its own. Cancel the token to end it.
    pub(crate) fn sandbox(&self, id: &str, address: Ipv4Addr) -> CancellationToken {
        let ended = CancellationToken::new();
        let route = Route { run: RunId(uuid::Uuid::new_v4()), address, ended: ended.clone() };
        self.routes.by_id.lock().unwrap().insert(id.parse().unwrap(), route);
        ended
    }

    pub(crate) fn token(&self, token: &str, id: &str) {
        self.routes.by_token.lock().unwrap().insert(token.to_owned(), id.parse().unwrap());
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        let stream = soon(TcpStream::connect(self.addresses[0])).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    pub(crate) async fn connect_tls(
        &self,
        name: &str,
        alpn: &[&str],
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.tls.ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        soon(connector.connect(name, self.connect().await)).await.unwrap()
    }

    /// An HTTP/1.1 connection without TLS.
    pub(crate) async fn http1(&self) -> Client {
        Client::http1(self.connect().await).await
    }

    /// An HTTP/1.1 connection with TLS.
    pub(crate) async fn https1(&self) -> Client {
        Client::http1(self.connect_tls(DOMAIN, &["http/1.1"]).await).await
    }

    /// An HTTP/2 connection.
    pub(crate) async fn http2(&self) -> Client {
        let stream = self.connect_tls(DOMAIN, &["h2", "http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) =
            soon(http2::handshake(TokioExecutor::new(), TokioIo::new(stream))).await.unwrap();
        Client {
            sender: Sender::Http2(sender),
            connection: tokio::spawn(async move { connection.await.map_err(drop) }),
        }
    }

    /// One of each kind.
    pub(crate) async fn every_client(&self) -> [Client; 3] {
        [self.http1().await, self.https1().await, self.http2().await]
    }

    /// Stops the edge and waits until nothing of it runs.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon(self.serving).await.unwrap();
    }
}

/// The API says that it was asked.
async fn api(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let text = format!("api {} {}", request.method(), request.uri().path());
    let mut response = Response::new(if request.uri().path() == "/empty" { empty() } else { full(text) });
    if request.uri().path() == "/empty" {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    Ok(response)
}

/// A client's connection.
pub(crate) struct Client {
    sender: Sender,
    pub(crate) connection: JoinHandle<Result<(), ()>>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    pub(crate) async fn http1<S>(stream: S) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = soon(http1::handshake(TokioIo::new(stream))).await.unwrap();
        let connection = tokio::spawn(async move { connection.with_upgrades().await.map_err(drop) });
        Self { sender: Sender::Http1(sender), connection }
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Sends a request; `to` is the host, and over HTTP/2 it becomes the authority.
    pub(crate) async fn send(
        &mut self,
        to: &str,
        mut request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                request.headers_mut().insert("host", to.parse().unwrap());
                soon(sender.ready()).await?;
                soon(sender.send_request(request)).await
            }
            Sender::Http2(sender) => {
                let path = request.uri().path_and_query().unwrap().clone();
                *request.uri_mut() = format!("https://{to}{path}").parse().unwrap();
                soon(sender.ready()).await?;
                soon(sender.send_request(request)).await
            }
        }
    }

    /// A second handle to the same HTTP/2 connection.
    pub(crate) fn another(&self) -> http2::SendRequest<Body> {
        match &self.sender {
            Sender::Http2(sender) => sender.clone(),
            Sender::Http1(_) => panic!("HTTP/1.1 has one request at a time"),
        }
    }

    pub(crate) async fn get(&mut self, to: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.call(to, "GET", path, headers, empty()).await
    }

    pub(crate) async fn call(
        &mut self,
        to: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(to, request.body(body).unwrap()).await.unwrap();
        Answer::read(response).await
    }
}

/// An answer with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
    pub(crate) trailers: Option<http::HeaderMap>,
}

impl Answer {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let collected = soon(body.collect()).await.unwrap();
        let trailers = collected.trailers().cloned();
        let text = String::from_utf8(collected.to_bytes().to_vec()).unwrap();
        Self { status: head.status.as_u16(), headers: head.headers, text, trailers }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Something that listens in place of a guest; ends with the test.
pub(crate) struct Guest {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    _tasks: JoinSet<()>,
}

impl Guest {
    /// An HTTP server on some port.
    pub(crate) async fn http<H, F>(handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::serve(listen(0).await, handler)
    }

    /// An HTTP server on the port of the agent.
    pub(crate) async fn agent<H, F>(handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::serve(listen(49983).await, handler)
    }

    fn serve<H, F>(listener: TcpListener, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::connections(listener, move |stream| {
            let handler = handler.clone();
            async move {
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            }
        })
    }

    /// Something that speaks as the test says, for each connection.
    pub(crate) fn connections<H, F>(listener: TcpListener, handler: H) -> Self
    where
        H: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let local = listener.local_addr().unwrap();
        let SocketAddr::V4(local) = local else { panic!("guests have IPv4") };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                connections.spawn(handler(stream));
            }
        });
        Self { address: *local.ip(), port: local.port(), _tasks: tasks }
    }

    /// The host name that leads here, for a sandbox of this name.
    pub(crate) fn host(&self, id: &str) -> String {
        format!("{}-{id}.{DOMAIN}", self.port)
    }
}

/// Listens on a loopback address of its own, so that every test can have the agent's port.
pub(crate) async fn listen(port: u16) -> TcpListener {
    loop {
        let random = uuid::Uuid::new_v4().into_bytes();
        let address = Ipv4Addr::new(127, 1 + random[0] % 250, random[1], 1 + random[2] % 250);
        match TcpListener::bind((address, port)).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => panic!("listen on {address}:{port}: {error}"),
        }
    }
}
