//! `POST /sandboxes` and `POST /v2/sandboxes`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode};
use sandbar_control::NewSandbox;
use sandbar_model::{Stages, TemplateRefError};
use sandbar_wire::rest::{self, ApiError, Version};

use crate::auth::Caller;
use crate::body;
use crate::failure::Failure;
use crate::router::ApiState;
use crate::view;

pub(crate) async fn create_v1(
    state: State<ApiState>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    create(state, caller, request, Version::V1).await
}

pub(crate) async fn create_v2(
    state: State<ApiState>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    // The first version ignores the header: contract/client-versions.md §1.8.
    if request.headers().contains_key("idempotency-key") {
        return Err(Failure(ApiError::OptionNotAvailable { option: "Idempotency-Key" }));
    }
    create(state, caller, request, Version::V2).await
}

async fn create(
    State(api): State<ApiState>,
    Caller(team): Caller,
    request: Request,
    version: Version,
) -> Result<Response, Failure> {
    let domain = api.domain.told_to(&request);
    let body = body::read(request.into_body()).await?;
    let new = to_model(rest::NewSandbox::parse(&body, version)?, version)?;
    let created = api.control.create(&team, new).await?;

    let timing = server_timing(&created.stages);
    let mut response = (StatusCode::CREATED, Json(view::sandbox(created.sandbox, domain))).into_response();
    if let Some(timing) = timing {
        response.headers_mut().insert("server-timing", timing);
    }
    Ok(response)
}

fn to_model(new: rest::NewSandbox, version: Version) -> Result<NewSandbox, Failure> {
    let invalid = |error: TemplateRefError| ApiError::InvalidTemplateReference { detail: error.to_string() };
    let template = new.template_id.parse().map_err(invalid)?;
    let timeout = new.timeout.unwrap_or(version.default_timeout_secs());
    // Zero is the control plane's to refuse; less than zero is no duration.
    let timeout = u64::try_from(timeout).map_err(|_| ApiError::TimeoutTooSmall)?;
    new.check_available()?;
    Ok(NewSandbox {
        template,
        timeout: Duration::from_secs(timeout),
        metadata: new.metadata.unwrap_or_default(),
        env: new.env_vars.unwrap_or_default(),
        secured: new.secure,
        internet: new.allow_internet_access,
    })
}

/// `lease;dur=3.1, root;dur=0.4`: in the order of their first occurrence, those of the same name added up.
fn server_timing(stages: &Stages) -> Option<HeaderValue> {
    let mut order = Vec::new();
    let mut sums: BTreeMap<&str, Duration> = BTreeMap::new();
    for (name, took) in stages.iter() {
        if !sums.contains_key(name) {
            order.push(name);
        }
        *sums.entry(name).or_default() += took;
    }
    let parts: Vec<String> =
        order.iter().map(|name| format!("{name};dur={:.1}", sums[name].as_secs_f64() * 1000.0)).collect();
    if parts.is_empty() { None } else { HeaderValue::from_str(&parts.join(", ")).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_added_up_in_order() {
        let mut stages = Stages::default();
        stages.add("lease", Duration::from_micros(1500));
        stages.add("engine", Duration::from_millis(20));
        stages.add("lease", Duration::from_millis(1));
        assert_eq!(server_timing(&stages).unwrap(), "lease;dur=2.5, engine;dur=20.0");
        assert_eq!(server_timing(&Stages::default()), None);
    }
}
