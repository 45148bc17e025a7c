//! What the agent inside a sandbox and its callers say to each other.
//!
//! The agent answers on [`PORT`] with two Connect services ([`process`], [`filesystem`]) and a few plain HTTP
//! routes ([`control`], [`files`]). Messages are plain structs that know both codecs of the protocol, protobuf
//! JSON and binary protobuf; [`Codec`] picks one, [`envelope`] frames them in streams, and [`Code`] is the
//! vocabulary of their failures.
//!
//! A `oneof` of the protocol is a struct whose fields are all optional: that is the same on the wire in both
//! codecs, and it keeps a malformed member an error instead of an absent one. Callers turn it into an enum at
//! once (`ProcessSelector::target`, `ProcessInput::channel`).
//!
//! Not here: sockets, processes, files. The agent serves these messages; the node and the command line send them.

pub mod boot;
pub mod control;
pub mod envelope;
pub mod files;
pub mod filesystem;
pub mod process;

mod code;
mod codec;
mod json;
mod timestamp;

pub use code::{Code, EndOfStream, RpcError};
pub use codec::{Codec, DecodeError, Message};
pub use timestamp::Timestamp;

/// TCP port the agent listens on. Every client has it compiled in.
pub const PORT: u16 = 49983;

/// Version the agent reports, and with it what clients may ask of it.
///
/// Plain `x.y.z`: clients refuse suffixes. The highest version whose features are all implemented; clients gate
/// file metadata on 0.6.2, entries in watch events on 0.6.3 and watching network mounts on 0.6.4.
pub const VERSION: &str = "0.6.4";

/// Header that carries the agent's access token.
pub const ACCESS_TOKEN_HEADER: &str = "x-access-token";

/// Header on every answer to `/init`: the agent's [`VERSION`].
pub const VERSION_HEADER: &str = "x-envd-version";

/// Header on streaming calls: seconds of silence after which the agent sends a keepalive event.
pub const KEEPALIVE_HEADER: &str = "keepalive-ping-interval";

/// Header on calls: milliseconds until the call fails with [`Code::DeadlineExceeded`].
pub const TIMEOUT_HEADER: &str = "connect-timeout-ms";
