//! Who calls: `X-API-KEY` decides, and nothing beside it.

use axum::extract::FromRequestParts;
use http::request::Parts;
use sandbar_control::Team;
use sandbar_wire::api_key::{ApiKey, ApiKeyError};
use sandbar_wire::rest::ApiError;

use crate::failure::Failure;
use crate::router::ApiState;

/// The team whose key the request shows. A `Bearer` header beside it is ignored: old clients send one.
pub(crate) struct Caller(pub(crate) Team);

impl FromRequestParts<ApiState> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Failure> {
        let header = parts.headers.get("x-api-key").ok_or(Failure(ApiError::NoCredential))?;
        let text = header.to_str().map_err(|_| Failure(ApiError::MalformedCredential))?;
        let key: ApiKey = text.trim().parse().map_err(|error| {
            Failure(match error {
                ApiKeyError::Prefix => ApiError::MalformedCredential,
                ApiKeyError::NotHex => ApiError::InvalidApiKey { reason: "The key is not hexadecimal." },
            })
        })?;
        let unknown = Failure(ApiError::InvalidApiKey { reason: "The key is not known here." });
        state.control.team_of_key(&key.hash()).await?.map(Self).ok_or(unknown)
    }
}
