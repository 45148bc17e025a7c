//! What a sandbox's agent printed.

use axum::Json;
use axum::extract::{RawQuery, State};
use jiff::Timestamp;
use sandbar_control::LookupError;
use sandbar_wire::rest::{ApiError, Query, SandboxLogs};

use crate::auth::Caller;
use crate::failure::Failure;
use crate::lifetime::sandbox_id;
use crate::router::ApiState;
use crate::segment::Segment;

/// Of what was printed, at most this much is looked at. The agent says little: this is days of it.
const PRINTED_MAX_BYTES: usize = 1024 * 1024;

/// Entries in an answer unless asked for fewer. Source: contract/control-api.md §8.1.
const LIMIT: usize = 1000;

/// `GET /sandboxes/{sandboxID}/logs`. A sandbox that is not there has no logs; that is no error.
pub(crate) async fn logs_v1(
    State(api): State<ApiState>,
    Caller(team): Caller,
    Segment(id): Segment,
    RawQuery(query): RawQuery,
) -> Result<Json<SandboxLogs>, Failure> {
    let query = Query::parse(query.as_deref())?;
    let from = number(&query, "start")?.map(|millis| {
        let millis = i64::try_from(millis).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
    });
    let limit =
        number(&query, "limit")?.map_or(LIMIT, |limit| usize::try_from(limit).unwrap_or(LIMIT).min(LIMIT));
    let printed = match api.control.console(&team, &sandbox_id(&id)?, PRINTED_MAX_BYTES).await {
        Ok(printed) => printed,
        Err(LookupError::NotFound(_)) => return Ok(Json(SandboxLogs::default())),
        Err(error) => return Err(error.into()),
    };
    let printed = String::from_utf8_lossy(&printed);
    Ok(Json(SandboxLogs::parse(&printed, from, limit, Timestamp::now())))
}

fn number(query: &Query, name: &'static str) -> Result<Option<u64>, Failure> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let detail = || format!("{name} must be a number that is not negative");
    text.parse().map(Some).map_err(|_| Failure(ApiError::Validation { detail: detail() }))
}
