//! Connecting to a port of a guest.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::socket_options;

/// Pauses between attempts: together a second, in which a service bound to the guest's loopback address gets
/// its forwarder. Source: contract network.md §11.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(400),
];

/// For all attempts together.
const DEADLINE: Duration = Duration::from_secs(30);

/// Connects, with up to five attempts.
pub(crate) async fn dial(address: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let deadline = Instant::now() + DEADLINE;
    let mut pauses = PAUSES.iter();
    loop {
        let attempt = timeout_at(deadline, TcpStream::connect((address, port))).await;
        let error = match attempt.unwrap_or_else(|late| Err(late.into())) {
            Ok(stream) => {
                socket_options::apply(&stream)?;
                return Ok(stream);
            }
            Err(error) => error,
        };
        match pauses.next() {
            Some(pause) if Instant::now() + *pause < deadline => sleep(*pause).await,
            _ => return Err(error),
        }
    }
}
