//! Which templates there are, and what is known of one.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use sandbar_control::{PageAfter, Team, TemplateError};
use sandbar_model::TemplateRef;
use sandbar_wire::rest::{ApiError, Direction, PageOf, PageToken, Query, Template, TemplateAlias};

use crate::auth::Caller;
use crate::failure::Failure;
use crate::lists::{UNPAGED_MAX, insert_next, too_many};
use crate::router::ApiState;
use crate::segment::Segment;
use crate::view;

/// `GET /templates`: the team's own, all at once.
pub(crate) async fn list_v1(
    State(api): State<ApiState>,
    Caller(team): Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<Template>>, Failure> {
    check_team(&Query::parse(query.as_deref())?, &team)?;
    let page = api.control.templates(&team, None, UNPAGED_MAX).await?;
    if page.next.is_some() {
        return Err(too_many("/v2/templates"));
    }
    Ok(Json(page.entries.into_iter().filter_map(view::template).collect()))
}

/// `GET /v2/templates`.
pub(crate) async fn list_v2(
    State(api): State<ApiState>,
    Caller(team): Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let query = Query::parse(query.as_deref())?;
    check_team(&query, &team)?;
    let page = PageOf::parse(&query, Direction::Descending)?;
    let page = api.control.templates(&team, after(&page).as_ref(), page.limit).await?;
    let entries: Vec<Template> = page.entries.into_iter().filter_map(view::template).collect();
    Ok((next_header(page.next), Json(entries)).into_response())
}

/// `GET /templates/{templateID}`.
pub(crate) async fn detail(
    State(api): State<ApiState>,
    Caller(team): Caller,
    Segment(text): Segment,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let page = PageOf::parse(&Query::parse(query.as_deref())?, Direction::Descending)?;
    let reference: TemplateRef =
        text.parse().map_err(|_| ApiError::NoSuchTemplate { template: text.clone() })?;
    let template = api.control.template(&team, &reference).await.map_err(|error| told(error, &text))?;
    let builds = api.control.builds(&template.id, after(&page).as_ref(), page.limit).await?;
    let next = next_header(builds.next);
    Ok((next, Json(view::template_with_builds(&template, builds.entries))).into_response())
}

/// `GET /templates/aliases/{alias}`.
pub(crate) async fn alias(
    State(api): State<ApiState>,
    Caller(team): Caller,
    Segment(text): Segment,
) -> Result<Json<TemplateAlias>, Failure> {
    let reference: TemplateRef =
        text.parse().map_err(|error| ApiError::InvalidAlias { detail: format!("{error}") })?;
    let template = api.control.check_template(&team, &reference).await.map_err(|error| told(error, &text))?;
    Ok(Json(TemplateAlias { template_id: template.id.to_string(), public: template.public }))
}

/// Questions about a template that is not there have a text of their own.
fn told(error: TemplateError, text: &str) -> Failure {
    match error {
        TemplateError::NotFound(_) => Failure(ApiError::NoSuchTemplate { template: text.to_owned() }),
        other => other.into(),
    }
}

fn check_team(query: &Query, team: &Team) -> Result<(), ApiError> {
    match query.get("teamID") {
        Some(id) if id != team.id.to_string() => Err(ApiError::TeamMismatch),
        _ => Ok(()),
    }
}

fn after(page: &PageOf) -> Option<PageAfter> {
    page.token.as_ref().map(|token| PageAfter { at: token.at, id: token.id.clone() })
}

fn next_header(next: Option<PageAfter>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let token = next.map(|next| PageToken { at: next.at, id: next.id, direction: Direction::Descending });
    insert_next(&mut headers, token);
    headers
}
