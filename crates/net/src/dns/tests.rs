//! The forwarder between a guest and resolvers, all on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::tests::query;
use super::upstream::send_message;
use super::*;
use crate::resolver::Resolvers;

const SOON: Duration = Duration::from_secs(10);

/// Both sockets on one free port. The port is free for UDP for sure, for TCP perhaps.
fn bind(address: Ipv4Addr) -> Sockets {
    (0..100).find_map(|_| Sockets::bind_port(address, 0).ok()).expect("one of a hundred ports is free")
}

/// A resolver that answers each query with the query, the response bit set and `code`.
struct Resolver {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Resolver {
    async fn start(code: u8) -> Self {
        let sockets = bind(Ipv4Addr::LOCALHOST);
        let udp = UdpSocket::from_std(sockets.udp).expect("udp");
        let tcp = TcpListener::from_std(sockets.tcp).expect("tcp");
        let address = udp.local_addr().expect("bound");
        let answer = move |mut message: Vec<u8>| {
            message[2] |= 0x80;
            message[3] |= code;
            message
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.expect("receive");
                udp.send_to(&answer(buffer[..length].to_vec()), from).await.expect("send");
            }
        });
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.expect("accept");
                let message = read(&mut stream).await;
                send_message(&mut stream, &answer(message)).await.expect("send");
            }
        });
        Self { address, _tasks: tasks }
    }
}

async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let length = stream.read_u16().await.expect("length");
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await.expect("message");
    message
}

fn forward(policy: EgressPolicy, servers: Vec<SocketAddr>) -> (Forwarder, SocketAddr) {
    let sockets = bind(Ipv4Addr::LOCALHOST);
    let address = sockets.udp.local_addr().expect("bound");
    let upstream = Arc::new(Upstream::new(Resolvers::Fixed(servers.into())));
    let forwarder =
        Forwarder::start(sockets, Ipv4Addr::LOCALHOST, policy, upstream).expect("start forwarder");
    (forwarder, address)
}

async fn ask_udp(forwarder: SocketAddr) -> u8 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.send_to(&query(77, "example.com"), forwarder).await.expect("send");
    let mut buffer = [0; 512];
    let length = timeout(SOON, socket.recv(&mut buffer)).await.expect("an answer").expect("receive");
    assert_eq!(buffer[..2], [0, 77]);
    assert!(length > 12);
    buffer[3] & 0x0f
}

async fn ask_tcp(forwarder: SocketAddr) -> u8 {
    let mut stream = TcpStream::connect(forwarder).await.expect("connect");
    send_message(&mut stream, &query(77, "example.com")).await.expect("send");
    timeout(SOON, read(&mut stream)).await.expect("an answer")[3] & 0x0f
}

#[tokio::test]
async fn a_query_is_relayed_and_the_answer_comes_back() {
    let resolver = Resolver::start(0).await;
    let (forwarder, address) = forward(EgressPolicy::Internet, vec![resolver.address]);
    assert_eq!(ask_udp(address).await, 0);
    assert_eq!(ask_tcp(address).await, 0);
    forwarder.stop().await;
}

#[tokio::test]
async fn a_resolver_that_fails_or_is_gone_is_passed_over() {
    let failing = Resolver::start(2).await;
    let gone = Resolver::start(0).await.address;
    let good = Resolver::start(0).await;
    let (forwarder, address) = forward(EgressPolicy::Internet, vec![failing.address, gone, good.address]);
    assert_eq!(ask_udp(address).await, 0);
    assert_eq!(ask_tcp(address).await, 0);
    forwarder.stop().await;
}

#[tokio::test]
async fn without_a_resolver_the_answer_is_a_failure() {
    let (forwarder, address) = forward(EgressPolicy::Internet, Vec::new());
    assert_eq!(ask_udp(address).await, 2);
    forwarder.stop().await;
}

#[tokio::test]
async fn a_guest_without_network_is_refused_and_nobody_is_asked() {
    let resolver = Resolver::start(0).await;
    let (forwarder, address) = forward(EgressPolicy::Nothing, vec![resolver.address]);
    assert_eq!(ask_udp(address).await, 5);
    assert_eq!(ask_tcp(address).await, 5);
    forwarder.set_policy(EgressPolicy::Internet);
    assert_eq!(ask_udp(address).await, 0);
    forwarder.stop().await;
}

#[tokio::test]
async fn nobody_but_the_guest_gets_an_answer() {
    let resolver = Resolver::start(0).await;
    let sockets = bind(Ipv4Addr::LOCALHOST);
    let address = sockets.udp.local_addr().expect("bound");
    let guest = Ipv4Addr::new(127, 0, 0, 9);
    let upstream = Arc::new(Upstream::new(Resolvers::Fixed([resolver.address].into())));
    let forwarder = Forwarder::start(sockets, guest, EgressPolicy::Internet, upstream).expect("start");

    let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    stranger.send_to(&query(1, "example.com"), address).await.expect("send");
    // Once the guest, who asked later, has its answer, the stranger's query has been passed over.
    let own = UdpSocket::bind((guest, 0)).await.expect("bind");
    own.send_to(&query(2, "example.com"), address).await.expect("send");
    let mut buffer = [0; 512];
    timeout(SOON, own.recv(&mut buffer)).await.expect("an answer").expect("receive");
    assert!(stranger.try_recv(&mut buffer).is_err());
    forwarder.stop().await;
}

#[tokio::test]
async fn the_port_is_free_once_stopped() {
    // An address of its own, so that no other test takes the port first.
    let address = Ipv4Addr::new(127, 0, 0, 53);
    let sockets = bind(address);
    let port = sockets.udp.local_addr().expect("bound").port();
    let upstream = Arc::new(Upstream::new(Resolvers::Fixed(Arc::default())));
    let forwarder = Forwarder::start(sockets, address, EgressPolicy::Internet, upstream).expect("start");
    forwarder.stop().await;
    Sockets::bind_port(address, port).expect("bind again");
}
