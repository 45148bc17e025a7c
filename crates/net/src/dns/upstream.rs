//! Asking the host's resolvers: one after the other until one answers or the time is up.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use super::message::{Code, Query, has_code};
use crate::resolver::Resolvers;

/// For all attempts together. The C library in the guest gives up on us after 5 s. Source: resolv.conf(5).
const DEADLINE: Duration = Duration::from_millis(4500);

/// For one attempt, then the next server is asked.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// Longest answer over UDP, in bytes; longer ones are fetched over TCP. More than any sane server sends.
const UDP_ANSWER_MAX: usize = 4096;

/// Asks the resolvers.
#[derive(Debug)]
pub(crate) struct Upstream {
    resolvers: Resolvers,
}

#[derive(Clone, Copy)]
enum Transport {
    Udp,
    Tcp,
}

impl Upstream {
    pub(crate) fn new(resolvers: Resolvers) -> Self {
        Self { resolvers }
    }

    /// The answer to a query that came over UDP; "server failure" when nobody gave one.
    pub(super) async fn ask_udp(&self, query: &Query) -> Vec<u8> {
        self.ask(query, Transport::Udp).await
    }

    /// The same over TCP.
    pub(super) async fn ask_tcp(&self, query: &Query) -> Vec<u8> {
        self.ask(query, Transport::Tcp).await
    }

    async fn ask(&self, query: &Query, transport: Transport) -> Vec<u8> {
        let now = Instant::now();
        let deadline = now + DEADLINE;
        let servers = self.resolvers.current(now.into_std());
        let failure = query.answer(Code::ServerFailure);
        // A second round, since over UDP a lost packet is no news about the server.
        for server in servers.iter().chain(&*servers) {
            let until = deadline.min(Instant::now() + ATTEMPT);
            let attempt = async {
                match transport {
                    Transport::Udp => attempt_udp(*server, query).await,
                    Transport::Tcp => attempt_tcp(*server, query).await,
                }
            };
            match timeout_at(until, attempt).await {
                Ok(Ok(answer)) if !has_code(&answer, Code::ServerFailure) => return answer,
                Ok(Ok(_)) => tracing::debug!(%server, "resolver has failed"),
                Ok(Err(error)) => tracing::debug!(%server, %error, "resolver not reached"),
                Err(_) => tracing::debug!(%server, "resolver did not answer in time"),
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        failure
    }
}

async fn attempt_udp(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    // A socket of its own for each query: a random port that nobody can guess, and the kernel takes packets from
    // the server only.
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query.as_bytes()).await?;
    // One byte more than the longest, to tell which was longer.
    let mut buffer = vec![0; UDP_ANSWER_MAX + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if query.is_answered_by(&buffer[..length]) {
            if length > UDP_ANSWER_MAX {
                return Ok(query.truncated());
            }
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn attempt_tcp(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    send_message(&mut stream, query.as_bytes()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if query.is_answered_by(&answer) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Sends one message over TCP, in one write. Source: RFC 1035 §4.2.2.
pub(super) async fn send_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}
