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
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_that_tells_nothing() {
        async fn broken() -> Response {
            panic!("a secret")
        }
        let router = Router::new().route("/", get(broken)).layer(middleware::from_fn(guard));
        let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key("x-e2b-trace-id"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let want = r#"{"code":500,"message":"Internal server error","error_code":"internal_server_error"}"#;
        assert_eq!(body, want);
    }
}
