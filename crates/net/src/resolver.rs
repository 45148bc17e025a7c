//! The resolvers that are asked: those configured, or the host's as `/etc/resolv.conf` names them.
//!
//! A host that moves to another network gets other resolvers, so the file is read again when it has changed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// Source: RFC 1035 §4.2.
pub(crate) const PORT: u16 = 53;

/// The C library asks three. Source: resolv.conf(5), MAXNS; we are content with a few more.
const SERVERS_MAX: usize = 8;

/// How long a change of the file may go unnoticed.
const RECHECK: Duration = Duration::from_secs(1);

/// Resolvers, in the order in which they are asked.
#[derive(Debug)]
pub(crate) enum Resolvers {
    /// Always these.
    Fixed(Arc<[SocketAddr]>),
    /// Those a file names.
    File(ResolverFile),
}

/// A file in the form of `/etc/resolv.conf`, and what it said last.
#[derive(Debug)]
pub(crate) struct ResolverFile {
    path: PathBuf,
    last: Mutex<Reading>,
}

#[derive(Debug)]
struct Reading {
    checked: Instant,
    modified: Option<SystemTime>,
    servers: Arc<[SocketAddr]>,
}

impl Resolvers {
    /// These, or the host's own when there are none.
    pub(crate) fn new(configured: &[IpAddr]) -> Self {
        if configured.is_empty() {
            Self::File(ResolverFile::open("/etc/resolv.conf".into(), Instant::now()))
        } else {
            Self::Fixed(configured.iter().map(|server| (*server, PORT).into()).collect())
        }
    }

    /// The resolvers as of `now`.
    pub(crate) fn current(&self, now: Instant) -> Arc<[SocketAddr]> {
        match self {
            Self::Fixed(servers) => Arc::clone(servers),
            Self::File(file) => file.current(now),
        }
    }
}

impl ResolverFile {
    fn open(path: PathBuf, now: Instant) -> Self {
        let modified = modified(&path);
        let last = Mutex::new(Reading { checked: now, modified, servers: read(&path) });
        Self { path, last }
    }

    fn current(&self, now: Instant) -> Arc<[SocketAddr]> {
        let mut last = self.last.lock().expect("nobody panics holding it");
        if now.duration_since(last.checked) >= RECHECK {
            last.checked = now;
            let modified = modified(&self.path);
            if modified != last.modified {
                last.modified = modified;
                last.servers = read(&self.path);
            }
        }
        Arc::clone(&last.servers)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// The addresses of the `nameserver` lines; none when the file cannot be read.
fn read(path: &Path) -> Arc<[SocketAddr]> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text),
        Err(error) => {
            // While it is being replaced there may be none; it is read again when it is back.
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, path = %path.display(), "resolver configuration not read");
            }
            Arc::default()
        }
    }
}

fn parse(text: &str) -> Arc<[SocketAddr]> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        // An address with a zone (`fe80::1%eth0`) does not parse: nothing but the host's own library uses one.
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())?
    });
    servers.take(SERVERS_MAX).map(|server| (server, PORT).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_count_and_nothing_else() {
        let text = "# nameserver 9.9.9.9\nsearch example.com\nnameserver 10.0.0.53\n nameserver\t::1 # local\n\
                    nameserver fe80::1%eth0\nnameserver\noptions ndots:1\n";
        let want = ["10.0.0.53:53", "[::1]:53"].map(|text| text.parse::<SocketAddr>().expect("an address"));
        assert_eq!(*parse(text), want);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let path = dir.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 10.0.0.1\n").expect("write");
        let start = Instant::now();
        let file = ResolverFile::open(path.clone(), start);
        assert_eq!(file.current(start).len(), 1);

        std::fs::write(&path, "nameserver 10.0.0.1\nnameserver 10.0.0.2\n").expect("write");
        let later = SystemTime::now() + Duration::from_secs(60);
        let written = std::fs::File::options().append(true).open(&path).expect("open");
        written.set_modified(later).expect("set the time");
        assert_eq!(file.current(start).len(), 1, "not yet looked at");
        assert_eq!(file.current(start + RECHECK).len(), 2);
    }
}
