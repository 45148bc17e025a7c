//! The one parameter of a path.

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use sandbar_wire::rest::ApiError;

use crate::failure::Failure;
use crate::router::ApiState;

/// A path's parameter, decoded: `%2F` and `%3A` in it are part of the name.
pub(crate) struct Segment(pub(crate) String);

impl FromRequestParts<ApiState> for Segment {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Failure> {
        let decoded = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) =
            decoded.map_err(|_| ApiError::Validation { detail: "the path is not UTF-8".to_owned() })?;
        Ok(Self(text))
    }
}
