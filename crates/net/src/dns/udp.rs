//! The forwarder over UDP.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Guest;
use super::message::{Code, QUERY_MAX, Query};

/// Queries of one guest under way at once. When there are as many, further ones wait in the socket's buffer, and
/// when that is full the kernel drops them.
const QUERIES_MAX: usize = 32;

/// Serves until dropped.
pub(super) async fn serve(socket: UdpSocket, guest: Guest) {
    let socket = Arc::new(socket);
    let room = Arc::new(Semaphore::new(QUERIES_MAX));
    let mut queries = JoinSet::new();
    // One byte more than the longest query, so that a longer one is not taken for its beginning.
    let mut buffer = [0; QUERY_MAX + 1];
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        while queries.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An answer that did not arrive comes back as an error of the next receive; that is the guest's
            // affair. Anything lasting would turn this loop hot, hence the yield.
            Err(error) => {
                tracing::debug!(%error, "DNS socket reported an error");
                tokio::task::yield_now().await;
                continue;
            }
        };
        if from.ip() != IpAddr::V4(guest.address) {
            continue;
        }
        let Some(query) = Query::parse(&buffer[..length]) else {
            continue;
        };
        if !guest.may_ask() {
            answer(&socket, &query.answer(Code::Refused), from).await;
            continue;
        }
        let (socket, upstream) = (Arc::clone(&socket), Arc::clone(&guest.upstream));
        queries.spawn(async move {
            answer(&socket, &upstream.ask_udp(&query).await, from).await;
            drop(permit);
        });
    }
}

async fn answer(socket: &UdpSocket, message: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(message, to).await {
        tracing::debug!(%error, "DNS answer not sent");
    }
}
