//! Name files of the guest: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
//!
//! They belong to the user as much as to us: only our own lines are replaced, and a file that is already right is not
//! written.

use std::fs;
use std::io;
use std::net::IpAddr;

/// Name of the host's event service inside guests.
const EVENTS_NAME: &str = "events.e2b.local";

/// Makes the guest known to itself under this name.
pub(super) fn set_hostname(hostname: &str) -> io::Result<()> {
    if let Err(errno) = nix::unistd::sethostname(hostname) {
        tracing::debug!(%errno, "kernel kept its host name");
    }
    write_if_changed("/etc/hostname", |_| format!("{hostname}\n"))?;
    write_if_changed("/etc/hosts", |old| {
        let with_localhost = with_loopback(old);
        with_line(
            &with_localhost,
            |line| line.split_whitespace().next() == Some("127.0.1.1"),
            &format!("127.0.1.1\t{hostname}"),
        )
    })
}

/// Points the name of the event service at this address.
pub(super) fn set_events_address(address: IpAddr) -> io::Result<()> {
    write_if_changed("/etc/hosts", |old| {
        with_line(
            old,
            |line| line.split_whitespace().skip(1).any(|name| name == EVENTS_NAME),
            &format!("{address}\t{EVENTS_NAME}"),
        )
    })
}

/// Resolves names through this server alone.
pub(super) fn set_nameserver(address: IpAddr) -> io::Result<()> {
    const PATH: &str = "/etc/resolv.conf";
    // Images often have a link here, to a file of a service that does not run.
    if fs::symlink_metadata(PATH).is_ok_and(|found| found.is_symlink()) {
        fs::remove_file(PATH)?;
    }
    write_if_changed(PATH, |_| format!("nameserver {address}\n"))
}

fn write_if_changed(path: &str, change: impl FnOnce(&str) -> String) -> io::Result<()> {
    let old = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let new = change(&old);
    if new == old { Ok(()) } else { fs::write(path, new) }
}

/// The file with the two loopback lines, if it lacks them.
fn with_loopback(old: &str) -> String {
    let has = |address: &str| old.lines().any(|line| line.split_whitespace().next() == Some(address));
    let mut new = String::new();
    if !has("127.0.0.1") {
        new.push_str("127.0.0.1\tlocalhost\n");
    }
    if !has("::1") {
        new.push_str("::1\tlocalhost ip6-localhost ip6-loopback\n");
    }
    new + old
}

/// The file with `line` in place of the lines that are ours, or at its end.
fn with_line(old: &str, is_ours: impl Fn(&str) -> bool, line: &str) -> String {
    let mut new = String::new();
    for kept in old.lines().filter(|line| !is_ours(line)) {
        new.push_str(kept);
        new.push('\n');
    }
    new.push_str(line);
    new.push('\n');
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_line_is_replaced() {
        let is_events = |line: &str| line.contains(EVENTS_NAME);
        let once = with_line(
            "10.0.0.1 db # mine\n192.0.2.9 events.e2b.local\n",
            is_events,
            "192.0.2.1\tevents.e2b.local",
        );
        assert_eq!(once, "10.0.0.1 db # mine\n192.0.2.1\tevents.e2b.local\n");
        assert_eq!(with_line(&once, is_events, "192.0.2.1\tevents.e2b.local"), once);
    }

    #[test]
    fn loopback_is_added_once() {
        let once = with_loopback("10.0.0.1 db\n");
        assert!(once.starts_with("127.0.0.1\tlocalhost\n::1\t") && once.ends_with("10.0.0.1 db\n"));
        assert_eq!(with_loopback(&once), once);
    }
}
