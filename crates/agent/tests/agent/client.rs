//! An HTTP/1.1 client that hides nothing: what the agent sends is what a test sees, piece by piece.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbar_wire::envd::envelope::{Decoder, END_OF_STREAM, Envelope, frame};
use serde_json::Value;

use crate::guest::PATIENCE;

/// An `Authorization` that names this user.
pub(crate) fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:")))
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and `code` of an RPC error.
    #[track_caller]
    pub(crate) fn error(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned())
    }
}

fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Sends a request and reads the whole answer.
pub(crate) fn send(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut exchange = Exchange::begin(port, method, path, headers, Some(body));
    let (status, headers) = exchange.read_head();
    let mut whole = Vec::new();
    while let Some(piece) = exchange.read_piece() {
        whole.extend_from_slice(&piece);
    }
    Answer { status, headers, body: whole }
}

/// One request on one connection.
pub(crate) struct Exchange {
    reader: BufReader<TcpStream>,
    length: Length,
    /// Whether the answer will only say what its body would be.
    head_only: bool,
}

enum Length {
    Unknown,
    Left(usize),
    Chunked,
    Over,
}

impl Exchange {
    /// Sends the head, and the body if it is known already; else the body is chunked and follows by
    /// [`Exchange::send_chunk`].
    pub(crate) fn begin(
        port: u16,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: guest\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match body {
            Some(body) => head.push_str(&format!("content-length: {}\r\nconnection: close\r\n", body.len())),
            None => head.push_str("transfer-encoding: chunked\r\nconnection: close\r\n"),
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // The agent may answer, and close, before it has read everything.
        let _ = stream.write_all(body.unwrap_or_default());
        Self { reader: BufReader::new(stream), length: Length::Unknown, head_only: method == "HEAD" }
    }

    /// An empty chunk is the end of the body.
    pub(crate) fn send_chunk(&mut self, chunk: &[u8]) {
        let mut bytes = format!("{:x}\r\n", chunk.len()).into_bytes();
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        self.reader.get_mut().write_all(&bytes).unwrap();
    }

    pub(crate) fn read_head(&mut self) -> (u16, Vec<(String, String)>) {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let status: u16 =
            line.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {line:?}")).parse().unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if status == 100 {
            return self.read_head();
        }
        self.length = if self.head_only {
            Length::Over
        } else if find_header(&headers, "transfer-encoding") == Some("chunked") {
            Length::Chunked
        } else {
            let length = find_header(&headers, "content-length").map_or(0, |length| length.parse().unwrap());
            Length::Left(length)
        };
        (status, headers)
    }

    /// What comes next of the body, `None` at its end.
    pub(crate) fn read_piece(&mut self) -> Option<Vec<u8>> {
        let wanted = match self.length {
            Length::Unknown => panic!("the head must be read first"),
            Length::Over | Length::Left(0) => return None,
            Length::Left(left) => left,
            Length::Chunked => {
                let mut line = String::new();
                let read = self.reader.read_line(&mut line);
                read.unwrap_or_else(|error| panic!("nothing more came within {PATIENCE:?}: {error}"));
                usize::from_str_radix(line.trim(), 16)
                    .unwrap_or_else(|_| panic!("answer broke off: {line:?}"))
            }
        };
        let mut piece = vec![0; wanted];
        let read = self.reader.read_exact(&mut piece);
        read.unwrap_or_else(|error| panic!("nothing more came within {PATIENCE:?}: {error}"));
        match self.length {
            Length::Chunked => {
                self.reader.read_exact(&mut [0; 2]).unwrap();
                if wanted == 0 {
                    self.length = Length::Over;
                    return None;
                }
            }
            _ => self.length = Length::Over,
        }
        Some(piece)
    }
}

/// A streaming call in JSON, read event by event. Dropping it hangs up.
pub(crate) struct Events {
    exchange: Exchange,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    decoder: Decoder,
    envelopes: VecDeque<Envelope>,
    /// Output that came after what was waited for.
    unread: String,
}

impl Events {
    pub(crate) fn open(port: u16, path: &str, headers: &[(&str, &str)], request: &Value) -> Self {
        let mut all = vec![("content-type", "application/connect+json"), ("connect-protocol-version", "1")];
        all.extend_from_slice(headers);
        let body = frame(0, request.to_string().as_bytes());
        Self::of(Exchange::begin(port, "POST", path, &all, Some(&body)))
    }

    pub(crate) fn of(mut exchange: Exchange) -> Self {
        let (status, headers) = exchange.read_head();
        Self {
            exchange,
            status,
            headers,
            decoder: Decoder::new(1 << 30),
            envelopes: VecDeque::new(),
            unread: String::new(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// The next envelope, `None` after the last.
    pub(crate) fn next_envelope(&mut self) -> Option<Envelope> {
        loop {
            if let Some(envelope) = self.envelopes.pop_front() {
                return Some(envelope);
            }
            self.decoder.push(&self.exchange.read_piece()?);
            while let Some(envelope) = self.decoder.next_envelope().unwrap() {
                self.envelopes.push_back(envelope);
            }
        }
    }

    /// The next message as JSON; the end of the stream as `{"endOfStream": …}`.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Value {
        let envelope = self.next_envelope().expect("the stream ended without saying so");
        let payload: Value = serde_json::from_slice(&envelope.payload).unwrap();
        if envelope.flags & END_OF_STREAM != 0 {
            serde_json::json!({ "endOfStream": payload })
        } else {
            payload
        }
    }

    /// Process id from the first event.
    #[track_caller]
    pub(crate) fn pid(&mut self) -> u64 {
        let first = self.next();
        first["event"]["start"]["pid"].as_u64().unwrap_or_else(|| panic!("{first}"))
    }

    /// Reads until this text has appeared in the output, and gives back what came before it.
    #[track_caller]
    pub(crate) fn wait_output(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.unread.find(text) {
                let rest = self.unread.split_off(at + text.len());
                let mut seen = std::mem::replace(&mut self.unread, rest);
                seen.truncate(at);
                return seen;
            }
            let message = self.next();
            assert!(message.get("endOfStream").is_none(), "no {text:?} in {:?}", self.unread);
            for stream in ["stdout", "stderr", "pty"] {
                if let Some(piece) = message["event"]["data"][stream].as_str() {
                    self.unread.push_str(&String::from_utf8_lossy(&STANDARD.decode(piece).unwrap()));
                }
            }
        }
    }

    /// Reads everything up to the end of the stream.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let mut messages = Vec::new();
        loop {
            let mut message = self.next();
            if let Some(end) = message.get_mut("endOfStream") {
                return Finished { messages, end_of_stream: end.take() };
            }
            messages.push(message);
        }
    }
}

/// All that a stream brought.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) messages: Vec<Value>,
    pub(crate) end_of_stream: Value,
}

impl Finished {
    pub(crate) fn output(&self, stream: &str) -> Vec<u8> {
        let pieces = self.messages.iter().filter_map(|message| message["event"]["data"][stream].as_str());
        pieces.flat_map(|piece| STANDARD.decode(piece).unwrap()).collect()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.output("stdout")).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.output("stderr")).unwrap()
    }

    #[track_caller]
    pub(crate) fn end(&self) -> &Value {
        let last = self.messages.last().unwrap_or_else(|| panic!("{self:?}"));
        let end = &last["event"]["end"];
        assert!(end.is_object(), "{self:?}");
        end
    }

    #[track_caller]
    pub(crate) fn exit_code(&self) -> i64 {
        self.end()["exitCode"].as_i64().unwrap_or(0)
    }

    /// Code in the end of the stream, empty on success.
    pub(crate) fn error_code(&self) -> &str {
        self.end_of_stream["error"]["code"].as_str().unwrap_or("")
    }

    pub(crate) fn error_message(&self) -> &str {
        self.end_of_stream["error"]["message"].as_str().unwrap_or("")
    }
}
