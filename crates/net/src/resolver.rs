//! The host's resolvers, as `/etc/resolv.conf` names them.

use std::net::IpAddr;
use std::path::Path;

/// The C library's own limit. Source: resolv.conf(5), MAXNS; we are content with a few more.
const SERVERS_MAX: usize = 8;

/// The addresses of the `nameserver` lines; none when the file cannot be read.
pub(crate) fn of_host(path: &Path) -> Vec<IpAddr> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "resolver configuration not read");
            Vec::new()
        }
    }
}

fn parse(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        // An address with a zone (`fe80::1%eth0`) does not parse: nothing but the host's own library uses one.
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    });
    servers.take(SERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_count_and_nothing_else() {
        let text = "# nameserver 9.9.9.9\nsearch example.com\nnameserver 10.0.0.53\n nameserver\t::1 # local\n\
                    nameserver fe80::1%eth0\nnameserver\noptions ndots:1\n";
        let want: Vec<IpAddr> = ["10.0.0.53", "::1"].map(|text| text.parse().expect("an address")).into();
        assert_eq!(parse(text), want);
    }
}
