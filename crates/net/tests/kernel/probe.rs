//! Looking at the network from inside a namespace.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use sandbar_model::{GuestNetwork, Lease};

/// Longer than anything that works or is refused takes.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of an attempt to reach something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// A server answered; this is who it saw.
    Open(IpAddr),
    /// Refused at once.
    Refused,
    /// No answer.
    Silent,
}

/// Runs `work` on a thread in the namespace at this path.
pub(crate) fn within<T: Send + 'static>(
    netns: impl AsRef<str>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let file = std::fs::File::open(netns.as_ref()).expect("open the namespace");
    let thread = std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
        work()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Connects from the guest.
pub(crate) fn connect_from(lease: &Lease, to: SocketAddrV4) -> Reach {
    within(&lease.guest_netns, move || connect(to))
}

/// Connects from the calling thread's namespace.
pub(crate) fn connect(to: SocketAddrV4) -> Reach {
    let mut said = String::new();
    let answered = TcpStream::connect_timeout(&to.into(), PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_to_string(&mut said)
    });
    match answered {
        Ok(_) => Reach::Open(said.parse().expect("our servers say whom they see")),
        Err(error) if is_silence(&error) => Reach::Silent,
        Err(_) => Reach::Refused,
    }
}

/// Connects from the guest and fails the test unless that is refused at once.
#[track_caller]
pub(crate) fn check_refused(lease: &Lease, to: SocketAddrV4) {
    let started = Instant::now();
    assert_eq!(connect_from(lease, to), Reach::Refused, "{to}");
    assert!(started.elapsed() < PATIENCE / 2, "{to} took {:?}", started.elapsed());
}

/// Asks the gateway's resolver for a name from the guest; the answer's code.
pub(crate) fn resolve_from(lease: &Lease) -> Option<u8> {
    let GuestNetwork { gateway, .. } = lease.guest;
    within(&lease.guest_netns, move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
        socket.set_read_timeout(Some(PATIENCE)).expect("set the timeout");
        socket.connect((gateway, 53)).expect("connect");
        socket.send(QUERY).expect("send");
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).ok()?;
        assert!(length >= QUERY.len() && answer[..2] == QUERY[..2]);
        Some(answer[3] & 0x0f)
    })
}

/// The same over TCP.
pub(crate) fn resolve_by_tcp_from(lease: &Lease) -> Option<u8> {
    let GuestNetwork { gateway, .. } = lease.guest;
    within(&lease.guest_netns, move || {
        let to = SocketAddr::from((gateway, 53));
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("set the timeout");
        let length = u16::try_from(QUERY.len()).expect("short").to_be_bytes();
        stream.write_all(&[&length, QUERY].concat()).ok()?;
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).ok()?;
        Some(answer[5] & 0x0f)
    })
}

/// A query for the address of `a.test`.
const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01";

/// A server on a thread, until dropped.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Tells everybody who connects whom it sees.
    pub(crate) fn tcp(listener: TcpListener) -> Self {
        listener.set_nonblocking(true).expect("set non-blocking");
        Self::run(move || match listener.accept() {
            Ok((mut stream, from)) => {
                // Whoever connected may have gone.
                let _ = write!(stream, "{}", from.ip());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        })
    }

    /// The same in a guest, on this port.
    pub(crate) fn in_guest(lease: &Lease, port: u16) -> Self {
        let listener = within(&lease.guest_netns, move || {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("bind in the guest")
        });
        Self::tcp(listener)
    }

    /// Answers queries over UDP with the query and no error.
    pub(crate) fn dns(socket: UdpSocket) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("set the timeout");
        Self::run(move || {
            let mut message = [0; 512];
            if let Ok((length, from)) = socket.recv_from(&mut message) {
                message[2] |= 0x80;
                let _ = socket.send_to(&message[..length], from);
            }
        })
    }

    fn run(mut step: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                step();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock)
}
