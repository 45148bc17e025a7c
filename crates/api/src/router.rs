//! Which path is whose.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::routing::{MethodFilter, get, on, post};
use sandbar_control::Control;
use sandbar_wire::rest::ApiError;

use crate::domain::SandboxDomain;
use crate::failure::Failure;
use crate::later::LATER;
use crate::{cors, create, guard, health, lifetime, lists, logs, templates};

/// What handlers need.
#[derive(Clone)]
pub struct ApiState {
    pub(crate) control: Arc<Control>,
    pub(crate) domain: SandboxDomain,
}

impl ApiState {
    /// `domain` is the base of sandboxes' host names, with the port unless that is 443: `sbx.localhost:3000`.
    /// Clients that reach us by a name under it are told to use it for sandboxes; nobody is when there is none.
    pub fn new(control: Arc<Control>, domain: Option<String>) -> Self {
        Self { control, domain: SandboxDomain::new(domain) }
    }
}

/// The whole API.
pub fn router(state: ApiState) -> Router {
    let mut router = Router::new()
        .route("/health", get(health::health))
        .route("/sandboxes", get(lists::sandboxes_v1).post(create::create_v1))
        .route("/v2/sandboxes", get(lists::sandboxes_v2).post(create::create_v2))
        .route("/sandboxes/{sandboxID}", get(lists::sandbox).delete(lifetime::kill))
        .route("/sandboxes/{sandboxID}/logs", get(logs::logs_v1))
        .route("/sandboxes/{sandboxID}/connect", post(lifetime::connect_v1))
        .route("/v2/sandboxes/{sandboxID}/connect", post(lifetime::connect_v2))
        .route("/sandboxes/{sandboxID}/resume", post(lifetime::resume))
        .route("/sandboxes/{sandboxID}/timeout", post(lifetime::set_timeout))
        .route("/sandboxes/{sandboxID}/refreshes", post(lifetime::refresh))
        .route("/templates", get(templates::list_v1))
        .route("/v2/templates", get(templates::list_v2))
        .route("/templates/{templateID}", get(templates::detail))
        .route("/templates/aliases/{alias}", get(templates::alias));
    for (method, path) in LATER {
        let filter =
            MethodFilter::try_from(method.clone()).expect("the table holds methods that can be routed");
        let operation = format!("{method} {path}");
        router = router.route(path, on(filter, move || later(operation.clone())));
    }
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
        .layer(middleware::from_fn(guard::guard))
        .layer(middleware::from_fn(cors::cors))
}

async fn later(operation: String) -> Failure {
    Failure(ApiError::OperationNotAvailable { operation })
}

async fn unknown_route(request: Request) -> Failure {
    let (method, path) = named(&request);
    Failure(ApiError::UnknownRoute { method, path })
}

async fn method_not_allowed(request: Request) -> Failure {
    let (method, path) = named(&request);
    Failure(ApiError::MethodNotAllowed { method, path })
}

/// The route as sent, not longer than anybody wants to read.
fn named(request: &Request) -> (String, String) {
    let path = request.uri().path();
    (request.method().to_string(), path.chars().take(200).collect())
}
