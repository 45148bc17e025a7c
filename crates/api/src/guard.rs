//! Around every request: a name for the logs, the time it took, and what a panic becomes.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::HeaderValue;
use sandbar_wire::rest::ApiError;
use tracing::{Instrument, debug, error, info_span};
use uuid::Uuid;

use crate::failure::Failure;

/// Each answer carries the request's id, which the logs carry too, and at least the time it took in whole.
pub(crate) async fn guard(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let request_id = Uuid::new_v4().simple().to_string();
    // The pattern, not the path: ids are the business of other spans.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let span =
        info_span!("request", %request_id, method = %request.method(), route = route.unwrap_or_default());

    let mut response = async {
        // Handlers share nothing with each other that a panic could leave half done: state is in tasks of its own.
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = answer.unwrap_or_else(|_| {
            error!("handler panicked");
            Failure(ApiError::Internal).into_response()
        });
        debug!(
            status = response.status().as_u16(),
            elapsed_ms = began.elapsed().as_millis(),
            "request answered"
        );
        response
    }
    .instrument(span)
    .await;

    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert("x-e2b-trace-id", id);
    }
    let total = format!("total;dur={:.1}", began.elapsed().as_secs_f64() * 1000.0);
    if let Ok(total) = HeaderValue::from_str(&total) {
        headers.append("server-timing", total);
    }
    response
}
