//! The forwarder over TCP: for answers that are too long for UDP.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Guest;
use super::message::{Code, QUERY_MAX, Query};
use super::upstream::send_message;

/// Connections of one guest at once. Further ones wait in the listener's queue.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may be silent, or take for one message.
const IDLE: Duration = Duration::from_secs(5);

/// Between two attempts to accept when the host has no descriptors left.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Serves until dropped.
pub(super) async fn serve(listener: TcpListener, guest: Guest) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) if from.ip() == IpAddr::V4(guest.address) => {
                let guest = guest.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &guest).await {
                        tracing::debug!(%error, "DNS connection ended");
                    }
                    drop(permit);
                });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "DNS connection not accepted");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// One query after the other until the guest closes, is silent for too long, or sends what is no query.
async fn converse(mut stream: TcpStream, guest: &Guest) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let message = timeout(IDLE, read_message(&mut stream)).await??;
        let query = Query::parse(&message).ok_or(io::ErrorKind::InvalidData)?;
        let answer =
            if guest.may_ask() { guest.upstream.ask_tcp(&query).await } else { query.answer(Code::Refused) };
        timeout(IDLE, send_message(&mut stream, &answer)).await??;
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > QUERY_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
