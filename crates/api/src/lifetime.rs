//! What makes a sandbox's life longer or shorter.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use sandbar_model::SandboxId;
use sandbar_wire::rest::{ApiError, Connect, Refresh, Resume, SetTimeout, Version, parse_sandbox_id};

use crate::auth::Caller;
use crate::body;
use crate::failure::Failure;
use crate::router::ApiState;
use crate::segment::Segment;
use crate::view;

/// The sandbox a path names, old composite ids included.
pub(crate) fn sandbox_id(segment: &str) -> Result<SandboxId, Failure> {
    parse_sandbox_id(segment)?.parse().map_err(|_| Failure(ApiError::InvalidSandboxId))
}

/// `DELETE /sandboxes/{sandboxID}`.
pub(crate) async fn kill(
    State(api): State<ApiState>,
    Caller(team): Caller,
    Segment(id): Segment,
    request: Request,
) -> Result<StatusCode, Failure> {
    let id = sandbox_id(&id)?;
    // Some clients send a chunked body with every method; left unread it would cost them the connection.
    body::read(request.into_body()).await?;
    api.control.kill(&team, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /sandboxes/{sandboxID}/connect`.
pub(crate) async fn connect_v1(
    state: State<ApiState>,
    caller: Caller,
    path: Segment,
    request: Request,
) -> Result<Response, Failure> {
    connect(state, caller, path, request, Version::V1).await
}

/// `POST /v2/sandboxes/{sandboxID}/connect`.
pub(crate) async fn connect_v2(
    state: State<ApiState>,
    caller: Caller,
    path: Segment,
    request: Request,
) -> Result<Response, Failure> {
    connect(state, caller, path, request, Version::V2).await
}

async fn connect(
    State(api): State<ApiState>,
    Caller(team): Caller,
    Segment(id): Segment,
    request: Request,
    version: Version,
) -> Result<Response, Failure> {
    let id = sandbox_id(&id)?;
    let domain = api.domain.told_to(&request);
    let Connect { timeout_secs } = Connect::parse(&body::read(request.into_body()).await?, version)?;
    let sandbox = api.control.connect(&team, &id, secs(timeout_secs)).await?;
    Ok((StatusCode::OK, Json(view::sandbox(sandbox, domain))).into_response())
}

/// `POST /sandboxes/{sandboxID}/resume`: nothing can be paused yet, so there is nothing to resume.
pub(crate) async fn resume(
    State(api): State<ApiState>,
    Caller(team): Caller,
    Segment(id): Segment,
    request: Request,
) -> Result<Response, Failure> {
    let id = sandbox_id(&id)?;
    Resume::parse(&body::read(request.into_body()).await?)?;
    let sandbox = api.control.sandbox(&team, &id).await?;
    Err(Failure(ApiError::SandboxAlreadyRunning { id: sandbox.id.to_string() }))
}

/// `POST /sandboxes/{sandboxID}/timeout`.
pub(crate) async fn set_timeout(
    State(api): State<ApiState>,
    Caller(team): Caller,
    Segment(id): Segment,
    request: Request,
) -> Result<StatusCode, Failure> {
    let id = sandbox_id(&id)?;
    let SetTimeout { timeout_secs } = SetTimeout::parse(&body::read(request.into_body()).await?)?;
    api.control.set_timeout(&team, &id, secs(timeout_secs)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /sandboxes/{sandboxID}/refreshes`.
pub(crate) async fn refresh(
    State(api): State<ApiState>,
    Caller(team): Caller,
    Segment(id): Segment,
    request: Request,
) -> Result<StatusCode, Failure> {
    let id = sandbox_id(&id)?;
    let Refresh { duration_secs } = Refresh::parse(&body::read(request.into_body()).await?)?;
    api.control.extend(&team, &id, secs(duration_secs)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn secs(secs: u32) -> Duration {
    Duration::from_secs(u64::from(secs))
}
