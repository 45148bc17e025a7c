//! Browsers may call the agent from any page.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::body::{self, Answer};

const METHODS: [Method; 6] =
    [Method::HEAD, Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Answers a preflight, `None` for any other request.
pub(crate) fn preflight(method: &Method, headers: &HeaderMap) -> Option<Answer> {
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| method == Method::OPTIONS)?;
    let mut answer = body::status(StatusCode::NO_CONTENT);
    let out = answer.headers_mut();
    out.insert(
        VARY,
        HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    );
    if !METHODS.iter().any(|allowed| allowed.as_str().as_bytes() == wanted.as_bytes()) {
        return Some(answer);
    }
    out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    out.insert(ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
    if let Some(names) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        out.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    Some(answer)
}

/// Adds what a browser needs to see of an answer to a request from a page.
pub(crate) fn expose(request_headers: &HeaderMap, answer: &mut Answer) {
    let out = answer.headers_mut();
    out.append(VARY, HeaderValue::from_static("Origin"));
    if request_headers.contains_key(ORIGIN) {
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        out.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin, Location, Cache-Control, \
                 X-Content-Type-Options",
            ),
        );
    }
}
