//! `POST /init`: the host tells the guest who it is.
//!
//! May be repeated, and is: the host calls until one attempt is answered. One runs at a time. A request is accepted
//! from whoever knows the control secret; an agent without one (started by hand) goes by the access token instead.

use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use crate::question::Question;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use sandbar_wire::envd::control::{CONTROL_HEADER, InitRequest};
use sandbar_wire::envd::{VERSION, VERSION_HEADER};

use super::{ca_bundle, clock, hosts};
use crate::body::{self, Answer};
use crate::cgroup::PidsCgroup;
use crate::guest::{Guest, equal_in_constant_time};

/// Directory of the files that programs read their sandbox's identity from.
pub(crate) const RUN_DIR: &str = "/run/e2b";

/// Most bytes of a request. Its largest part is a bundle of certificates.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Answers with 204, or says what was wrong.
pub(crate) async fn init(guest: &Arc<Guest>, request: Request<Question>) -> Answer {
    let mut answer = match run(guest, request).await {
        Ok(()) => body::uncached(body::status(StatusCode::NO_CONTENT)),
        Err(error) => {
            tracing::debug!(%error, "init was refused");
            error.into_answer()
        }
    };
    answer.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static(VERSION));
    answer
}

/// Why an `/init` was not applied.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("request body is too large or broken")]
    Body,
    #[error("request body is not an init request")]
    Json,
    #[error("timestamp is not RFC 3339")]
    Timestamp,
    #[error("access token is empty or has a backslash")]
    Token,
    #[error("{0} is not an IP address")]
    Address(&'static str),
    #[error("access token reset not authorized")]
    ResetNotAuthorized,
    #[error("access token validation failed")]
    NotAuthorized,
    #[error("{action}: {source}")]
    Apply { action: &'static str, source: std::io::Error },
}

impl InitError {
    fn into_answer(self) -> Answer {
        match self {
            Self::Body | Self::Json | Self::Timestamp => body::status(StatusCode::BAD_REQUEST),
            Self::Token | Self::Address(_) | Self::Apply { .. } => {
                body::text(StatusCode::BAD_REQUEST, self.to_string())
            }
            Self::ResetNotAuthorized | Self::NotAuthorized => {
                body::text(StatusCode::UNAUTHORIZED, self.to_string())
            }
        }
    }
}

async fn run(guest: &Arc<Guest>, request: Request<Question>) -> Result<(), InitError> {
    let (head, incoming) = request.into_parts();
    let control = head.headers.get(CONTROL_HEADER).map(HeaderValue::as_bytes);
    let body = Limited::new(incoming, REQUEST_BYTES_MAX).collect().await.map_err(|_| InitError::Body)?;
    let wanted = parse(&body.to_bytes())?;
    let timestamp =
        wanted.timestamp.as_deref().map(str::parse).transpose().map_err(|_| InitError::Timestamp)?;

    let _turn = guest.init.lock().await;
    authorize(guest, control, wanted.access_token.as_deref())?;
    if wanted.access_token.as_deref().is_some_and(|token| token.is_empty() || token.contains('\\')) {
        return Err(InitError::Token);
    }
    // Applied in a task of its own: a caller that gives up leaves all of it or nothing.
    let guest = guest.clone();
    let applied = tokio::task::spawn_blocking(move || apply(&guest, &wanted, timestamp));
    applied.await.unwrap_or(Err(InitError::Body))
}

fn parse(body: &Bytes) -> Result<InitRequest, InitError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(InitRequest::default());
    }
    serde_json::from_slice(body).map_err(|_| InitError::Json)
}

/// With a control secret it alone decides, and whoever has it may set, change and clear the token.
fn authorize(guest: &Guest, control: Option<&[u8]>, requested: Option<&str>) -> Result<(), InitError> {
    if guest.is_hosted() {
        return match control.is_some_and(|secret| guest.is_control_secret(secret)) {
            true => Ok(()),
            false => Err(InitError::NotAuthorized),
        };
    }
    match (&guest.settings().access_token, requested) {
        (None, _) => Ok(()),
        (Some(token), Some(requested)) if equal_in_constant_time(token.as_bytes(), requested.as_bytes()) => {
            Ok(())
        }
        (Some(_), Some(_)) => Err(InitError::NotAuthorized),
        (Some(_), None) => Err(InitError::ResetNotAuthorized),
    }
}

fn apply(guest: &Guest, wanted: &InitRequest, timestamp: Option<jiff::Timestamp>) -> Result<(), InitError> {
    let newest = guest.settings().newest;
    if timestamp.zip(newest).is_some_and(|(ours, newest)| ours < newest) {
        return Ok(()); // overtaken by a newer request
    }
    if let Some(timestamp) = timestamp
        && clock::is_off(jiff::Timestamp::now(), timestamp)
    {
        clock::set(timestamp);
    }
    let address = |name, text: Option<&String>| {
        text.map(|text| text.parse::<IpAddr>()).transpose().map_err(|_| InitError::Address(name))
    };
    let events_address = address("hyperloopIP", wanted.hyperloop_ip.as_ref())?;
    let nameserver = address("nameserver", wanted.nameserver.as_ref())?;

    let pids_cgroup = wanted.pids_max.and_then(|pids_max| match PidsCgroup::ensure(pids_max) {
        Ok(cgroup) => Some(cgroup),
        Err(error) => {
            tracing::debug!(%error, "processes of users are not counted: no usable pids controller");
            None
        }
    });
    let mut identity = Vec::new();
    for (name, value) in [
        ("SANDBOX_ID", &wanted.sandbox_id),
        ("TEMPLATE_ID", &wanted.template_id),
        ("TEAM_ID", &wanted.team_id),
    ] {
        if let Some(value) = value {
            write_run_file(name, value)?;
            identity.push((format!("E2B_{name}"), value.clone()));
        }
    }
    guest.change(|settings| {
        settings.newest = timestamp.or(settings.newest);
        settings.access_token.clone_from(&wanted.access_token);
        if let Some(vars) = &wanted.env_vars {
            settings.user_vars.clone_from(vars);
        }
        if let Some(user) = wanted.default_user.as_ref().filter(|user| !user.is_empty()) {
            settings.default_user.clone_from(user);
        }
        if let Some(workdir) = wanted.default_workdir.as_ref().filter(|workdir| !workdir.is_empty()) {
            settings.default_workdir = Some(workdir.clone());
        }
        settings.internal_vars.extend(identity);
        if let Some(address) = events_address {
            settings.internal_vars.insert("E2B_EVENTS_ADDRESS".into(), format!("http://{address}"));
        }
        if pids_cgroup.is_some() {
            settings.pids_cgroup = pids_cgroup;
        }
    });

    let failed = |action| move |source| InitError::Apply { action, source };
    if let Some(hostname) = &wanted.hostname {
        hosts::set_hostname(hostname).map_err(failed("set host name"))?;
    }
    if let Some(address) = events_address {
        hosts::set_events_address(address).map_err(failed("set address of events"))?;
    }
    if let Some(address) = nameserver {
        hosts::set_nameserver(address).map_err(failed("set name server"))?;
    }
    if let Some(pem) = wanted.ca_bundle.as_deref().filter(|pem| !pem.trim().is_empty()) {
        ca_bundle::install(pem).map_err(failed("install certificates"))?;
    }
    Ok(())
}

/// Source: e2b-dev/infra packages/envd; the files are world-writable there too.
fn write_run_file(name: &str, value: &str) -> Result<(), InitError> {
    let path = format!("{RUN_DIR}/.E2B_{name}");
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o666)
        .open(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|source| InitError::Apply { action: "write identity", source })
}
