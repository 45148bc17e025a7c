//! Whether this server takes calls.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use sandbar_wire::rest::ApiError;

use crate::failure::Failure;
use crate::router::ApiState;

/// `GET /health`, for load balancers; the text is E2B's.
pub(crate) async fn health(State(api): State<ApiState>) -> Response {
    if api.control.is_draining() {
        return Failure(ApiError::Draining).into_response();
    }
    "Health check successful".into_response()
}
