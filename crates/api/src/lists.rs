//! Which sandboxes there are, and what is known of one.

use axum::Json;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue};
use sandbar_control::{Order, PageAfter, SandboxQuery, Team, TemplateError};
use sandbar_model::{TemplateId, TemplateRef, TemplateRefError};
use sandbar_wire::rest::{
    ApiError, Direction, ListSandboxes, ListedSandbox, PageToken, Query, SandboxDetail,
};

use crate::auth::Caller;
use crate::failure::Failure;
use crate::lifetime::sandbox_id;
use crate::router::ApiState;
use crate::segment::Segment;
use crate::view;

/// More than that must be asked for by pages. Source: contract/client-versions.md §1.16.
pub(crate) const UNPAGED_MAX: u32 = 5000;

/// `GET /sandboxes/{sandboxID}`.
pub(crate) async fn sandbox(
    State(api): State<ApiState>,
    Caller(team): Caller,
    Segment(id): Segment,
    request: Request,
) -> Result<Json<SandboxDetail>, Failure> {
    let domain = api.domain.told_to(&request);
    let sandbox = api.control.sandbox(&team, &sandbox_id(&id)?).await?;
    Ok(Json(view::detail(sandbox, domain)))
}

/// `GET /sandboxes`: those that run, newest first, all at once.
pub(crate) async fn sandboxes_v1(
    State(api): State<ApiState>,
    Caller(team): Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<ListedSandbox>>, Failure> {
    let metadata = ListSandboxes::parse_metadata(&Query::parse(query.as_deref())?)?;
    let query = SandboxQuery { metadata, limit: UNPAGED_MAX, ..SandboxQuery::default() };
    let page = api.control.sandboxes(&team, query).await?;
    if page.next.is_some() {
        return Err(too_many("/v2/sandboxes"));
    }
    Ok(Json(page.sandboxes.into_iter().map(view::listed).collect()))
}

/// `GET /v2/sandboxes`.
pub(crate) async fn sandboxes_v2(
    State(api): State<ApiState>,
    Caller(team): Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let list = ListSandboxes::parse(&Query::parse(query.as_deref())?)?;
    let template = match &list.template {
        None => None,
        Some(reference) => match find_template(&api, &team, reference).await? {
            Some(template) => Some(template),
            None => return Ok(answer(Vec::new(), list.states.running.then_some(0), None)),
        },
    };
    if !list.states.running {
        // Nothing can be paused yet.
        return Ok(answer(Vec::new(), None, None));
    }
    let query = SandboxQuery {
        metadata: list.metadata,
        template,
        started_after: list.started_after.map(to_micros),
        order: match list.direction {
            Direction::Ascending => Order::Ascending,
            Direction::Descending => Order::Descending,
        },
        after: list.page.token.map(|token| PageAfter { at: token.at, id: token.id }),
        limit: list.page.limit,
    };
    let page = api.control.sandboxes(&team, query).await?;
    let next = page.next.map(|next| PageToken { at: next.at, id: next.id, direction: list.direction });
    let entries = page.sandboxes.into_iter().map(view::listed).collect();
    Ok(answer(entries, Some(page.total), next))
}

/// The template that a filter means; nothing when it means none.
async fn find_template(api: &ApiState, team: &Team, text: &str) -> Result<Option<TemplateId>, Failure> {
    let invalid = |error: TemplateRefError| ApiError::InvalidTemplateReference { detail: error.to_string() };
    let reference: TemplateRef = text.parse().map_err(invalid)?;
    if reference.tag.is_some() {
        return Err(Failure(ApiError::TaggedTemplateFilter));
    }
    match api.control.template(team, &reference).await {
        Ok(template) => Ok(Some(template.id)),
        Err(TemplateError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn answer(entries: Vec<ListedSandbox>, total: Option<u64>, next: Option<PageToken>) -> Response {
    let mut headers = HeaderMap::new();
    if let Some(total) = total {
        headers.insert("x-total-running", HeaderValue::from(total));
    }
    insert_next(&mut headers, next);
    (headers, Json(entries)).into_response()
}

/// Where the next page begins; clients take a missing header for the end.
pub(crate) fn insert_next(headers: &mut HeaderMap, next: Option<PageToken>) {
    if let Some(token) = next.and_then(|next| HeaderValue::from_str(&next.to_string()).ok()) {
        headers.insert("x-next-token", token);
    }
}

pub(crate) fn too_many(pages: &str) -> Failure {
    Failure(ApiError::Validation { detail: format!("more than {UNPAGED_MAX} entries, use {pages}") })
}

/// Times are compared to the microsecond. Source: contract/control-api.md §2.7.
fn to_micros(at: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}
