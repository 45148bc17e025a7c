//! The edge's own answers.

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use sandbar_wire::edge_errors::{EdgeError, Format, Hints};

use crate::body::Body;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("should-retry");

/// How the client wants to read an error.
pub(crate) fn format_for(headers: &HeaderMap) -> Format {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    Format::choose(Hints {
        accept: text(ACCEPT),
        sec_fetch_mode: text(SEC_FETCH_MODE),
        requested_with: headers.contains_key(REQUESTED_WITH),
        user_agent: text(USER_AGENT),
    })
}

/// The answer to a request that did not reach a sandbox.
pub(crate) fn render(error: &EdgeError, format: Format) -> Response<Body> {
    let body = Full::new(Bytes::from(error.body(format))).map_err(|never| match never {});
    let mut response = Response::new(Body::new(body));
    *response.status_mut() =
        StatusCode::from_u16(error.status()).expect("the table holds statuses between 400 and 599");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if error.should_retry() {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("true"));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    } else {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}
