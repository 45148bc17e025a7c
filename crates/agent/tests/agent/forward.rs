//! Servers on loopback, from outside.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;

use crate::guest::{Guest, wait_for};

/// Stands for the guest's own address: not the loopback address that servers bind.
const OUTSIDE: &str = "127.0.0.2";

fn answer_at(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((OUTSIDE, port)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.0 200").then_some(answer)
}

/// Case 118.
#[test]
fn servers_on_loopback_are_reachable_while_they_listen() {
    let guest = Guest::networked(&["--forward-address", OUTSIDE]);
    for (address, port) in [("127.0.0.1", 3210), ("::1", 3211)] {
        for _ in 0..2 {
            let mut server = guest.start_with(
                &[],
                json!({
                    "process": {"cmd": "python3", "args": ["-m", "http.server", "--bind", address, port.to_string()]},
                    "stdin": false,
                }),
            );
            let pid = server.pid();
            wait_for("the relay", || answer_at(port));
            let signal = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
            assert_eq!(guest.process("SendSignal", signal).status, 200);
            wait_for("the relay to end", || TcpStream::connect((OUTSIDE, port)).is_err().then_some(()));
        }
    }
    assert!(TcpStream::connect((OUTSIDE, guest.port)).is_err());
}
