//! Messages of `process.Process`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::json::{bytes, enum_field, is_default};

/// Path of `Start`, a server stream.
pub const START: &str = "/process.Process/Start";
/// Path of `Connect`, a server stream.
pub const CONNECT: &str = "/process.Process/Connect";
/// Path of `List`.
pub const LIST: &str = "/process.Process/List";
/// Path of `Update`.
pub const UPDATE: &str = "/process.Process/Update";
/// Path of `SendInput`.
pub const SEND_INPUT: &str = "/process.Process/SendInput";
/// Path of `StreamInput`, a client stream.
pub const STREAM_INPUT: &str = "/process.Process/StreamInput";
/// Path of `SendSignal`.
pub const SEND_SIGNAL: &str = "/process.Process/SendSignal";
/// Path of `CloseStdin`.
pub const CLOSE_STDIN: &str = "/process.Process/CloseStdin";

/// Window of a terminal, in characters.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PtySize {
    /// Columns.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub cols: u32,
    /// Rows.
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub rows: u32,
}

/// Asks for a terminal, or changes it.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pty {
    /// The window.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<PtySize>,
}

/// What to execute. No shell is added.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessConfig {
    /// Program, looked up in the child's `PATH`.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub cmd: String,
    /// Arguments after the program's name.
    #[prost(string, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables that win over all others.
    #[prost(btree_map = "string, string", tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    pub envs: BTreeMap<String, String>,
    /// Working directory.
    #[prost(string, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// Starts a process and streams its output.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StartRequest {
    /// What to execute.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessConfig>,
    /// Present: with a terminal.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pty: Option<Pty>,
    /// A name to find the process by.
    #[prost(string, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whether input will be sent; absent is yes. Meaningless with a terminal.
    #[prost(bool, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<bool>,
}

/// First event of a stream.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StartEvent {
    /// The command's process id.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub pid: u32,
}

/// Output. Exactly one field is present.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DataEvent {
    /// From standard output.
    #[prost(bytes = "vec", optional, tag = "1")]
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Vec<u8>>,
    /// From standard error.
    #[prost(bytes = "vec", optional, tag = "2")]
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Vec<u8>>,
    /// From the terminal.
    #[prost(bytes = "vec", optional, tag = "3")]
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub pty: Option<Vec<u8>>,
}

/// Last event of a stream.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndEvent {
    /// −1 when a signal ended the process.
    #[prost(sint32, tag = "1")]
    #[serde(alias = "exit_code", skip_serializing_if = "is_default")]
    pub exit_code: i32,
    /// Whether the process ended by itself.
    #[prost(bool, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub exited: bool,
    /// `exit status 3`, `signal: killed`.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    pub status: String,
    /// The status again, unless it is success.
    #[prost(string, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

macro_rules! empty {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
        pub struct $name {}
    };
}

empty!(
    /// Nothing happened for a while.
    KeepAlive
);

/// One event of a process. Exactly one field is present.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessEvent {
    /// First.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<StartEvent>,
    /// Output.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataEvent>,
    /// Last.
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<EndEvent>,
    /// Silence.
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<KeepAlive>,
}

macro_rules! event_response {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            /// Always present in an answer.
            #[prost(message, optional, tag = "1")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub event: Option<ProcessEvent>,
        }

        impl From<ProcessEvent> for $name {
            fn from(event: ProcessEvent) -> Self {
                Self { event: Some(event) }
            }
        }
    };
}

event_response!(
    /// One message of `Start`.
    StartResponse
);
event_response!(
    /// One message of `Connect`.
    ConnectResponse
);

/// Which process a call is about. At most one field is present.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessSelector {
    /// By process id.
    #[prost(uint32, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// By the tag given at start.
    #[prost(string, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// [`ProcessSelector`] as a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The process with this id.
    Pid(u32),
    /// The newest process with this tag.
    Tag(&'a str),
}

impl ProcessSelector {
    /// Selects by process id.
    pub fn of_pid(pid: u32) -> Self {
        Self { pid: Some(pid), tag: None }
    }

    /// The choice, `None` when nothing was chosen.
    pub fn target(&self) -> Option<Target<'_>> {
        match (self.pid, &self.tag) {
            (Some(pid), _) => Some(Target::Pid(pid)),
            (None, Some(tag)) => Some(Target::Tag(tag)),
            (None, None) => None,
        }
    }
}

macro_rules! process_request {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            /// Which process.
            #[prost(message, optional, tag = "1")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub process: Option<ProcessSelector>,
        }
    };
}

process_request!(
    /// Streams the output of a running process from now on.
    ConnectRequest
);
process_request!(
    /// Ends a process's input.
    CloseStdinRequest
);
process_request!(
    /// First message of `StreamInput`.
    StreamInputStart
);

empty!(
    /// Asks for all processes.
    ListRequest
);

/// Answers [`ListRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListResponse {
    /// In no particular order.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<ProcessInfo>,
}

/// A running process.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessInfo {
    /// As it was asked for.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ProcessConfig>,
    /// Its process id.
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub pid: u32,
    /// Its tag, if it has one.
    #[prost(string, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// Changes the window of a process's terminal.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UpdateRequest {
    /// Which process.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSelector>,
    /// The new window; absent changes nothing.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pty: Option<Pty>,
}

/// Input for a process. At most one field is present.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessInput {
    /// For standard input.
    #[prost(bytes = "vec", optional, tag = "1")]
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Vec<u8>>,
    /// For the terminal.
    #[prost(bytes = "vec", optional, tag = "2")]
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub pty: Option<Vec<u8>>,
}

/// [`ProcessInput`] as a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// For standard input.
    Stdin(&'a [u8]),
    /// For the terminal.
    Pty(&'a [u8]),
}

impl ProcessInput {
    /// The choice, `None` when nothing was chosen.
    pub fn channel(&self) -> Option<Input<'_>> {
        match (&self.stdin, &self.pty) {
            (Some(data), _) => Some(Input::Stdin(data)),
            (None, Some(data)) => Some(Input::Pty(data)),
            (None, None) => None,
        }
    }
}

/// Writes to a process once.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SendInputRequest {
    /// Which process.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSelector>,
    /// What to write.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<ProcessInput>,
}

/// Data of `StreamInput`. The field number is 2: 1 is not used by the protocol.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StreamInputData {
    /// What to write.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<ProcessInput>,
}

/// One message of `StreamInput`. At most one field is present.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StreamInputRequest {
    /// First message: which process.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<StreamInputStart>,
    /// What to write.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<StreamInputData>,
    /// Nothing to write yet.
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<KeepAlive>,
}

/// Signals that can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Signal {
    /// Nothing was chosen.
    Unspecified = 0,
    /// Ends the process at once.
    Sigkill = 9,
    /// Asks the process to end.
    Sigterm = 15,
}

impl Signal {
    /// The protocol's name.
    pub fn as_str_name(self) -> &'static str {
        match self {
            Self::Unspecified => "SIGNAL_UNSPECIFIED",
            Self::Sigkill => "SIGNAL_SIGKILL",
            Self::Sigterm => "SIGNAL_SIGTERM",
        }
    }

    /// The value with this name.
    pub fn from_str_name(name: &str) -> Option<Self> {
        [Self::Unspecified, Self::Sigkill, Self::Sigterm]
            .into_iter()
            .find(|value| value.as_str_name() == name)
    }
}

enum_field!(signal, Signal);

/// Sends a signal to exactly one process.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SendSignalRequest {
    /// Which process.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSelector>,
    /// A [`Signal`].
    #[prost(enumeration = "Signal", tag = "2")]
    #[serde(with = "signal", skip_serializing_if = "is_default")]
    pub signal: i32,
}

empty!(
    /// Answers [`UpdateRequest`].
    UpdateResponse
);
empty!(
    /// Answers [`SendInputRequest`].
    SendInputResponse
);
empty!(
    /// Answers a stream of [`StreamInputRequest`].
    StreamInputResponse
);
empty!(
    /// Answers [`SendSignalRequest`].
    SendSignalResponse
);
empty!(
    /// Answers [`CloseStdinRequest`].
    CloseStdinResponse
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envd::Codec;

    #[track_caller]
    fn check_json<M: crate::envd::Message + PartialEq>(message: &M, want: &str) {
        assert_eq!(String::from_utf8(Codec::Json.encode(message)).unwrap(), want);
        assert_eq!(&Codec::Json.decode::<M>(want.as_bytes()).unwrap(), message);
        assert_eq!(&Codec::Proto.decode::<M>(&Codec::Proto.encode(message)).unwrap(), message);
    }

    #[test]
    fn events_read_as_clients_expect() {
        let start = ProcessEvent { start: Some(StartEvent { pid: 42 }), ..ProcessEvent::default() };
        check_json(&StartResponse::from(start), r#"{"event":{"start":{"pid":42}}}"#);
        let data = DataEvent { stdout: Some(b"hi\n".to_vec()), ..DataEvent::default() };
        let data = ProcessEvent { data: Some(data), ..ProcessEvent::default() };
        check_json(&StartResponse::from(data), r#"{"event":{"data":{"stdout":"aGkK"}}}"#);
        let end = EndEvent { exited: true, status: "exit status 0".into(), ..EndEvent::default() };
        let end = ProcessEvent { end: Some(end), ..ProcessEvent::default() };
        check_json(
            &StartResponse::from(end),
            r#"{"event":{"end":{"exited":true,"status":"exit status 0"}}}"#,
        );
    }

    #[test]
    fn exit_codes_are_zigzag_in_binary() {
        let end = EndEvent { exit_code: 3, ..EndEvent::default() };
        assert_eq!(Codec::Proto.encode(&end), [0x08, 0x06]);
    }

    #[test]
    fn an_empty_process_id_and_an_absent_one_differ() {
        check_json(&ProcessSelector::of_pid(0), r#"{"pid":0}"#);
        check_json(&ProcessSelector::default(), "{}");
    }

    #[test]
    fn signals_are_names_or_numbers() {
        let request: SendSignalRequest = Codec::Json.decode(br#"{"signal":"SIGNAL_SIGKILL"}"#).unwrap();
        assert_eq!(request.signal, Signal::Sigkill as i32);
        let request: SendSignalRequest = Codec::Json.decode(br#"{"signal":15}"#).unwrap();
        assert_eq!(request.signal, Signal::Sigterm as i32);
        assert!(Codec::Json.decode::<SendSignalRequest>(br#"{"signal":"SIGNAL_NO"}"#).is_err());
    }

    #[test]
    fn input_accepts_every_base64_dialect() {
        for text in ["-_8=", "-_8", "+/8=", "+/8"] {
            let input: ProcessInput =
                Codec::Json.decode(format!(r#"{{"stdin":"{text}"}}"#).as_bytes()).unwrap();
            assert_eq!(input.channel(), Some(Input::Stdin(&[0xfb, 0xff])), "{text}");
        }
    }

    #[test]
    fn stream_data_uses_field_two() {
        let data = StreamInputData { input: Some(ProcessInput { stdin: Some(vec![b'x']), pty: None }) };
        assert_eq!(Codec::Proto.encode(&data), [0x12, 0x03, 0x0a, 0x01, b'x']);
    }
}
