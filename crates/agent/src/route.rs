//! From a request to the part that answers it.
//!
//! Every request passes, in this order: preflights of browsers, the access-token gate, the check of the named user,
//! the routes.

use std::sync::Arc;

use crate::question::Question;
use http::{Method, Request, StatusCode};
use sandbar_wire::envd::RpcError;

use crate::accounts::Accounts;
use crate::auth::{self, UnknownUser};
use crate::body::{self, Answer, Refusal};
use crate::connect::{self, BasicUser};
use crate::control::{self, Meter};
use crate::guest::Guest;
use crate::reaper::Children;
use crate::{cors, files, filesystem, process};

/// Everything that answers requests.
#[derive(Debug)]
pub(crate) struct Routes {
    guest: Arc<Guest>,
    meter: Meter,
    processes: process::Service,
    filesystem: filesystem::Service,
}

impl Routes {
    pub(crate) fn new(guest: Arc<Guest>, children: Children) -> Self {
        Self {
            meter: Meter::new(guest.disk_total_bytes),
            processes: process::Service::new(guest.clone(), children),
            filesystem: filesystem::Service::new(guest.clone()),
            guest,
        }
    }

    /// Answers a request. Never fails: failures are answers.
    pub(crate) async fn answer(&self, request: Request<Question>) -> Answer {
        if let Some(answer) = cors::preflight(request.method(), request.headers()) {
            return answer;
        }
        let headers = request.headers().clone();
        let mut answer = self.checked(request).await;
        cors::expose(&headers, &mut answer);
        answer
    }

    async fn checked(&self, mut request: Request<Question>) -> Answer {
        let path = request.uri().path();
        let gated = auth::gate(&self.guest.settings(), request.method(), path, request.headers());
        if let Err(refusal) = gated {
            return refusal.into();
        }
        if let Some(name) = auth::named_user(request.headers()) {
            if Accounts::load().user(&name).is_none() {
                return unknown_user(UnknownUser::Named(name), request);
            }
            request.extensions_mut().insert(BasicUser(name));
        }
        self.routed(request).await
    }

    async fn routed(&self, request: Request<Question>) -> Answer {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/health") => body::uncached(body::status(StatusCode::NO_CONTENT)),
            (&Method::GET, "/files") => files::download(&self.guest, request).await,
            (&Method::POST, "/files") => files::upload(&self.guest, request).await,
            (&Method::POST, "/files/compose") => files::compose(&self.guest, request).await,
            (&Method::GET, "/metrics") => body::uncached(body::json(&self.meter.measure())),
            (&Method::GET, "/envs") => body::uncached(body::json(&self.guest.settings().global_vars())),
            (&Method::POST, "/init") => control::init(&self.guest, request).await,
            (_, "/health" | "/files" | "/files/compose" | "/metrics" | "/envs" | "/init") => {
                body::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
            }
            (_, path) if path.starts_with("/process.Process/") => {
                self.processes.answer(request).await.unwrap_or_else(not_found)
            }
            (_, path) if path.starts_with("/filesystem.Filesystem/") => {
                self.filesystem.answer(request).await.unwrap_or_else(not_found)
            }
            _ => not_found(),
        }
    }
}

fn not_found() -> Answer {
    body::text(StatusCode::NOT_FOUND, "404 page not found")
}

/// The refusal in the shape of what was called.
fn unknown_user(unknown: UnknownUser, request: Request<Question>) -> Answer {
    let is_rpc = request.uri().path().starts_with("/process.Process/")
        || request.uri().path().starts_with("/filesystem.Filesystem/");
    if !is_rpc {
        return Refusal::unauthorized(unknown.to_string()).into();
    }
    let (head, _) = request.into_parts();
    let error = RpcError::from(unknown);
    connect::fail_stream(&head, error.clone()).unwrap_or_else(|| connect::fail_unary(&error))
}
