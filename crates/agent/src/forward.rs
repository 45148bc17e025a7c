//! Makes servers that listen on loopback only reachable from outside the guest.
//!
//! People start development servers on `localhost` and expect them at the sandbox's address. Once a second the
//! listening sockets are looked at; each port that is bound to loopback gets a relay on the guest's own address, for
//! as long as its server listens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How often listening sockets are looked at. Source: e2b-dev/infra packages/envd.
const PERIOD: Duration = Duration::from_secs(1);

/// A connection to a server in the same guest is there at once or not at all.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Pause after an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Relays what arrives at `outside` to loopback, as long as the agent runs. Never for the agent's own port.
pub(crate) async fn forward(outside: IpAddr, own_port: u16) {
    let mut relays: BTreeMap<u16, (IpAddr, DropGuard)> = BTreeMap::new();
    let tasks = TaskTracker::new();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let wanted = tokio::task::spawn_blocking(loopback_listeners).await.unwrap_or_default();
        relays.retain(|port, (inside, _)| wanted.contains(&(*port, *inside)));
        for (port, inside) in wanted {
            if port == own_port || relays.contains_key(&port) {
                continue;
            }
            // Taken by a server of its own, or an address that this guest does not have: there is nothing to do.
            let Ok(listener) = TcpListener::bind((outside, port)).await else {
                continue;
            };
            tracing::debug!(port, "port is relayed");
            let stop = CancellationToken::new();
            tasks.spawn(relay(listener, SocketAddr::new(inside, port), stop.clone(), tasks.clone()));
            relays.insert(port, (inside, stop.drop_guard()));
        }
    }
}

async fn relay(listener: TcpListener, inside: SocketAddr, stop: CancellationToken, tasks: TaskTracker) {
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((outer, _)) => drop(tasks.spawn(join(outer, inside))),
                Err(error) => {
                    tracing::debug!(%error, "relayed connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    let _: Option<()> = stop.run_until_cancelled(accepting).await;
}

/// Carries one connection until both sides have ended it. A server that refuses ends it at once.
async fn join(mut outer: TcpStream, inside: SocketAddr) {
    let connected = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(inside)).await;
    if let Ok(Ok(mut inner)) = connected {
        let _ = outer.set_nodelay(true).and(inner.set_nodelay(true)); // slower at worst
        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await; // either side may break off
    }
}

/// Ports that are bound to loopback, and on which of its addresses. IPv4 comes first where a port has both.
fn loopback_listeners() -> BTreeSet<(u16, IpAddr)> {
    let mut found = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        found.extend(text.lines().filter_map(loopback_listener));
    }
    found
}

/// The socket in a line of `/proc/net/tcp` or `tcp6`, if it listens on loopback. Source: proc_net_tcp(5).
fn loopback_listener(line: &str) -> Option<(u16, IpAddr)> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let _remote = fields.next()?;
    if fields.next()? != LISTEN {
        return None;
    }
    // Words of four bytes, each in the byte order of the machine.
    let inside: IpAddr = match address {
        "0100007F" => Ipv4Addr::LOCALHOST.into(),
        "00000000000000000000000001000000" => Ipv6Addr::LOCALHOST.into(),
        _ => return None,
    };
    Some((u16::from_str_radix(port, 16).ok()?, inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listeners_on_loopback_are_found() {
        let line = |local: &str, state: &str| {
            format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000")
        };
        assert_eq!(loopback_listener(&line("0100007F:0C8A", "0A")), Some((3210, Ipv4Addr::LOCALHOST.into())));
        assert_eq!(
            loopback_listener(&line("00000000000000000000000001000000:0C8B", "0A")),
            Some((3211, Ipv6Addr::LOCALHOST.into()))
        );
        assert_eq!(loopback_listener(&line("00000000:0C8A", "0A")), None);
        assert_eq!(loopback_listener(&line("0100007F:0C8A", "01")), None);
        assert_eq!(loopback_listener("  sl  local_address rem_address   st"), None);
    }
}
