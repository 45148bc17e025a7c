//! What stands in the head of a call, and the bytes of its message.

use std::io::Read as _;
use std::time::Duration;

use crate::question::Question;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use sandbar_wire::envd::{Code, Codec, DecodeError, KEEPALIVE_HEADER, Message, RpcError, TIMEOUT_HEADER};
use tokio::time::Instant;

use super::MESSAGE_BYTES_MAX;

/// Silence before a keepalive when the caller asks for nothing else. Source: e2b-dev/infra packages/envd.
const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(90);

/// The user named by the request, put there after it was found to exist.
#[derive(Clone, Debug)]
pub(crate) struct BasicUser(pub(crate) String);

/// What a handler knows about its call besides the message.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The user the caller named.
    pub(crate) user: Option<String>,
    /// When the call fails with `deadline_exceeded`.
    pub(crate) deadline: Option<Instant>,
    /// Silence before a keepalive event.
    pub(crate) keepalive: Duration,
    /// Whether the caller knows the fields of the first protocol version only.
    pub(crate) legacy: bool,
}

impl Context {
    pub(super) fn of(head: &Parts) -> Result<Self, RpcError> {
        let headers = &head.headers;
        if let Some(version) = headers.get("connect-protocol-version").filter(|version| *version != "1") {
            let message = format!("connect-protocol-version must be \"1\": got {version:?}");
            return Err(RpcError::new(Code::InvalidArgument, message));
        }
        let timeout = headers.get(TIMEOUT_HEADER).map(|value| parse_timeout(value.as_bytes())).transpose()?;
        Ok(Self {
            user: head.extensions.get::<BasicUser>().map(|user| user.0.clone()),
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            keepalive: keepalive(headers),
            legacy: is_legacy(headers),
        })
    }
}

/// Milliseconds, at most ten digits. Old Python clients send a decimal fraction, which is dropped.
fn parse_timeout(value: &[u8]) -> Result<Duration, RpcError> {
    let invalid = || {
        let text = String::from_utf8_lossy(value);
        RpcError::new(
            Code::InvalidArgument,
            format!("parse timeout: {text:?} is not a number of milliseconds"),
        )
    };
    let text = std::str::from_utf8(value).map_err(|_| invalid())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() > 10 || !is_digits(whole) || !is_digits(fraction) {
        return Err(invalid());
    }
    Ok(Duration::from_millis(whole.parse().map_err(|_| invalid())?))
}

fn keepalive(headers: &HeaderMap) -> Duration {
    let asked = headers.get(KEEPALIVE_HEADER).and_then(|value| value.to_str().ok()?.parse::<i64>().ok());
    match asked {
        Some(seconds) => Duration::from_secs(seconds.clamp(1, 24 * 3600) as u64),
        None => KEEPALIVE_DEFAULT,
    }
}

/// The first Python client. Source: contract of the public agent, `User-Agent` exactly `connect-python`.
pub(super) fn is_legacy(headers: &HeaderMap) -> bool {
    headers.get(header::USER_AGENT).is_some_and(|agent| agent == "connect-python")
}

pub(super) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

/// How a request is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    pub(super) fn of(headers: &HeaderMap, name: HeaderName) -> Result<Self, RpcError> {
        match headers.get(name).map(|value| value.to_str().unwrap_or("?")) {
            None | Some("" | "identity") => Ok(Self::Identity),
            Some("gzip") => Ok(Self::Gzip),
            Some(other) => Err(RpcError::new(
                Code::Unimplemented,
                format!("unknown compression {other:?}: supported encodings are gzip"),
            )),
        }
    }
}

/// The whole body of a unary request, decompressed.
pub(super) async fn read_unary(incoming: Question, encoding: Encoding) -> Result<Bytes, RpcError> {
    let limited = Limited::new(incoming, MESSAGE_BYTES_MAX as usize);
    let bytes = limited.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            too_large()
        } else {
            RpcError::new(Code::Canceled, "read request body")
        }
    })?;
    match encoding {
        Encoding::Identity => Ok(bytes.to_bytes()),
        Encoding::Gzip => Ok(gunzip(&bytes.to_bytes())?.into()),
    }
}

/// Decompresses one message. An empty one is empty: clients do not compress nothing.
pub(super) fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, RpcError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut plain = Vec::new();
    let bound = u64::from(MESSAGE_BYTES_MAX) + 1;
    MultiGzDecoder::new(bytes)
        .take(bound)
        .read_to_end(&mut plain)
        .map_err(|_| RpcError::new(Code::InvalidArgument, "decompress message"))?;
    if plain.len() as u64 == bound { Err(too_large()) } else { Ok(plain) }
}

pub(super) fn decode<M: Message>(codec: Codec, bytes: &[u8]) -> Result<M, RpcError> {
    codec.decode(bytes).map_err(|error| {
        let detail = match &error {
            DecodeError::Json(source) => source.to_string(),
            DecodeError::Proto(source) => source.to_string(),
        };
        RpcError::new(Code::InvalidArgument, format!("{error}: {detail}"))
    })
}

fn too_large() -> RpcError {
    let message = format!("message is larger than configured max {MESSAGE_BYTES_MAX}");
    RpcError::new(Code::ResourceExhausted, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_whole_milliseconds_of_up_to_ten_digits() {
        assert_eq!(parse_timeout(b"2500"), Ok(Duration::from_millis(2500)));
        assert_eq!(parse_timeout(b"2500.0"), Ok(Duration::from_millis(2500)));
        assert_eq!(parse_timeout(b"9999999999").map(|timeout| timeout.as_secs()), Ok(9_999_999));
        for bad in ["12345678901", "", "-1", "1e3", "1.", ".5", "x"] {
            assert_eq!(
                parse_timeout(bad.as_bytes()).map_err(|error| error.code),
                Err(Code::InvalidArgument),
                "{bad}"
            );
        }
    }

    #[test]
    fn keepalives_are_at_least_a_second_apart() {
        let asked = |value: &str| {
            keepalive(
                &[(HeaderName::from_static(KEEPALIVE_HEADER), value.parse().unwrap())].into_iter().collect(),
            )
        };
        assert_eq!(asked("50"), Duration::from_secs(50));
        assert_eq!(asked("0"), Duration::from_secs(1));
        assert_eq!(asked("-3"), Duration::from_secs(1));
        assert_eq!(asked("soon"), KEEPALIVE_DEFAULT);
    }
}
