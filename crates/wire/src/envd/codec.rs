//! One message, two codecs.

use serde::{Serialize, de::DeserializeOwned};

/// A message of the protocol: knows protobuf JSON through serde and binary protobuf through prost.
pub trait Message: prost::Message + Default + std::fmt::Debug + Serialize + DeserializeOwned {}

impl<M: prost::Message + Default + std::fmt::Debug + Serialize + DeserializeOwned> Message for M {}

/// How messages of a call are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Protobuf JSON, what the SDKs speak.
    Json,
    /// Binary protobuf.
    Proto,
}

/// A message that does not follow its codec.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not JSON of this message. An empty body is neither.
    #[error("unmarshal message")]
    Json(#[from] serde_json::Error),
    /// Not binary protobuf of this message.
    #[error("unmarshal message")]
    Proto(#[from] prost::DecodeError),
}

impl Codec {
    /// The codec of a unary call with this content type; parameters other than a UTF-8 charset are refused.
    pub fn of_unary(content_type: &str) -> Option<Self> {
        match essence(content_type).as_str() {
            "application/json" => Some(Self::Json),
            "application/proto" => Some(Self::Proto),
            _ => None,
        }
    }

    /// The codec of a streaming call with this content type.
    pub fn of_stream(content_type: &str) -> Option<Self> {
        match essence(content_type).as_str() {
            "application/connect+json" => Some(Self::Json),
            "application/connect+proto" => Some(Self::Proto),
            _ => None,
        }
    }

    /// Content type of unary bodies.
    pub fn unary_content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Proto => "application/proto",
        }
    }

    /// Content type of streams. Clients compare it as a whole: it never carries parameters.
    pub fn stream_content_type(self) -> &'static str {
        match self {
            Self::Json => "application/connect+json",
            Self::Proto => "application/connect+proto",
        }
    }

    /// The message as bytes.
    pub fn encode<M: Message>(self, message: &M) -> Vec<u8> {
        match self {
            Self::Json => {
                serde_json::to_vec(message).expect("messages have string keys and no failing fields")
            }
            Self::Proto => message.encode_to_vec(),
        }
    }

    /// The message in these bytes.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not that message; unknown fields are no error.
    pub fn decode<M: Message>(self, bytes: &[u8]) -> Result<M, DecodeError> {
        match self {
            Self::Json => Ok(serde_json::from_slice(bytes)?),
            Self::Proto => Ok(M::decode(bytes)?),
        }
    }
}

/// The type without a harmless `charset=utf-8`, lower case.
fn essence(content_type: &str) -> String {
    let lower = content_type.trim().to_ascii_lowercase();
    match lower.split_once(';') {
        Some((essence, "charset=utf-8" | " charset=utf-8")) => essence.trim_end().to_owned(),
        _ => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_name_codec_and_kind() {
        assert_eq!(Codec::of_unary("application/json"), Some(Codec::Json));
        assert_eq!(Codec::of_unary("application/json; charset=utf-8"), Some(Codec::Json));
        assert_eq!(Codec::of_unary("application/connect+json"), None);
        assert_eq!(Codec::of_stream("application/connect+proto"), Some(Codec::Proto));
        assert_eq!(Codec::of_stream("application/json"), None);
    }
}
