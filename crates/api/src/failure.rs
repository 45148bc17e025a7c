//! From errors to answers. What is our fault is logged here, once, and not told to the client.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use sandbar_control::{ChangeError, CreateError, KillError, LookupError, ReadError, TemplateError};
use sandbar_model::{ErrorKind, StartError};
use sandbar_wire::rest::{ApiError, Retry};
use tracing::{debug, error};

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) ApiError);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(error) = self;
        debug!(status = error.status(), message = %error, "request refused");
        let status = StatusCode::from_u16(error.status()).expect("the table holds valid statuses");
        let mut response = (status, Json(error.body())).into_response();
        let headers = response.headers_mut();
        match error.retry() {
            Retry::Unsaid => {}
            Retry::Never => {
                headers.insert("should-retry", HeaderValue::from_static("false"));
            }
            Retry::AfterSecs(secs) => {
                headers.insert("should-retry", HeaderValue::from_static("true"));
                headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
            }
        }
        response
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        let kind = error.kind();
        let text = error.to_string();
        Self(match error {
            CreateError::Template(error) => return error.into(),
            CreateError::TimeoutZero => ApiError::TimeoutTooSmall,
            CreateError::TimeoutTooLong { max } => too_long(max),
            CreateError::LimitReached { max } => ApiError::ConcurrentLimit { max },
            CreateError::Draining => ApiError::Draining,
            CreateError::Start(error) if kind == ErrorKind::Capacity => {
                ApiError::NoCapacity { detail: error.to_string() }
            }
            CreateError::Killed(_) | CreateError::Start(StartError::Killed { .. }) => {
                ApiError::CreateFailed { detail: text }
            }
            CreateError::Start(ref start) => {
                let detail = start.to_string();
                log(&error);
                ApiError::CreateFailed { detail }
            }
            CreateError::Db { .. } | CreateError::TimedOut { .. } => {
                log(&error);
                ApiError::CreateFailed { detail: text }
            }
        })
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        Self(match error {
            TemplateError::NotFound(reference) => {
                ApiError::TemplateNotFound { template: reference.to_string() }
            }
            TemplateError::TagNotFound { template, tag } => {
                ApiError::TagNotFound { template: template.to_string(), tag }
            }
            TemplateError::Db(_) => internal(&error),
        })
    }
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        Self(match error {
            LookupError::NotFound(id) => ApiError::SandboxNotFound { id: id.to_string() },
            LookupError::Db(_) | LookupError::Node(_) => internal(&error),
        })
    }
}

impl From<KillError> for Failure {
    fn from(error: KillError) -> Self {
        Self(match error {
            KillError::NotFound(id) => ApiError::SandboxNotFound { id: id.to_string() },
        })
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        Self(match error {
            ChangeError::NotFound(id) => ApiError::SandboxNotFound { id: id.to_string() },
            ChangeError::Ending(id) => ApiError::SandboxBeingKilled { id: id.to_string() },
            ChangeError::TimeoutTooLong { max } => too_long(max),
            ChangeError::Db(_) => internal(&error),
        })
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self(internal(&error))
    }
}

fn too_long(max: std::time::Duration) -> ApiError {
    ApiError::TimeoutTooLong { hours: max.as_secs() / 3600 }
}

fn internal(error: &(dyn std::error::Error + 'static)) -> ApiError {
    log(error);
    ApiError::Internal
}

fn log(error: &(dyn std::error::Error + 'static)) {
    error!(error, "request failed");
}
