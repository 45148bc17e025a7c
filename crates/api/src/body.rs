//! Bodies of requests: bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sandbar_wire::rest::ApiError;

use crate::failure::Failure;

/// Source: contract/control-api.md §2.8.
const LIMIT_BYTES: usize = 16 * 1024 * 1024;

/// How long a body may take to arrive.
const LIMIT: Duration = Duration::from_secs(30);

/// Reads the whole body. It is empty when there is none: how a client frames it does not matter.
pub(crate) async fn read(body: Body) -> Result<Bytes, Failure> {
    let collected = tokio::time::timeout(LIMIT, Limited::new(body, LIMIT_BYTES).collect());
    match collected.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Failure(ApiError::BodyTooLarge { limit_bytes: LIMIT_BYTES }))
        }
        Ok(Err(_)) => Err(Failure(ApiError::BodyIncomplete)),
        Err(_) => Err(Failure(ApiError::BodyTooSlow { limit_secs: LIMIT.as_secs() })),
    }
}
