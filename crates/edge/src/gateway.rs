//! Decides for each request whether it is for the API or for a sandbox, and answers it.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use sandbar_model::Routes;
use sandbar_wire::agent_paths::{AgentPath, agent_path, is_reserved};
use sandbar_wire::edge_errors::EdgeError;
use sandbar_wire::host::{ACCESS_TOKEN, AGENT_PORT, Address, OwnNames, SANDBOX_ID, SANDBOX_PORT, Target};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use crate::activity::Busy;
use crate::body::{Body, BoxError, Keeping};
use crate::error_page;
use crate::forward::Forwarder;
use crate::headers::host_and_port;

/// The service that answers what is not for a sandbox.
pub type ApiService = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// Makes an [`ApiService`] of any HTTP service, such as an axum `Router`.
pub fn api_service<S, B>(service: S) -> ApiService
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    BoxCloneSyncService::new(
        service
            .map_response(|response: Response<B>| response.map(|body| Body::new(body.map_err(Into::into)))),
    )
}

pub(crate) struct Gateway {
    pub(crate) own_names: OwnNames,
    pub(crate) api: ApiService,
    pub(crate) routes: Arc<dyn Routes>,
    pub(crate) forwarder: Forwarder,
}

/// Who answers a request.
enum Plane {
    Api,
    Sandbox(Target),
}

impl Gateway {
    /// Answers a request. `busy` lasts until the answer's body is over.
    pub(crate) async fn answer(&self, request: Request<Incoming>, busy: Busy) -> Response<Body> {
        let busy = Arc::new(busy);
        let (version, is_head) = (request.version(), request.method() == Method::HEAD);
        let response = match self.plane(&request).await {
            Ok(Plane::Api) => match self.api.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Ok(Plane::Sandbox(target)) => {
                let format = error_page::format_for(request.headers());
                let forwarded = Box::pin(self.forwarder.forward(target, request, &busy)).await;
                forwarded.unwrap_or_else(|error| error_page::render(&error, format))
            }
            Err(error) => error_page::render(&error, error_page::format_for(request.headers())),
        };
        let response = complete(response, version, is_head);
        response.map(|body| Body::new(Keeping { body, kept: busy }))
    }

    async fn plane(&self, request: &Request<Incoming>) -> Result<Plane, EdgeError> {
        if request.method() == Method::CONNECT {
            return Err(EdgeError::MethodNotAllowed);
        }
        let headers = request.headers();
        let address = Address {
            host: request.uri().authority().map(host_and_port).or_else(|| text(headers, HOST.as_str())),
            sandbox_id: text(headers, SANDBOX_ID),
            sandbox_port: text(headers, SANDBOX_PORT),
        };
        if let Some(target) = self.own_names.locate(address).map_err(EdgeError::Address)? {
            return Ok(if is_stray_api_call(request, &target) { Plane::Api } else { Plane::Sandbox(target) });
        }
        // Some old clients name the sandbox by nothing but the token of its agent.
        match (agent_path(request.uri().path()), text(headers, ACCESS_TOKEN)) {
            (AgentPath::No, _) | (AgentPath::Shared, None) => Ok(Plane::Api),
            (AgentPath::Only, None) => Err(EdgeError::NoAddress),
            (AgentPath::Only | AgentPath::Shared, Some(token)) => {
                match self.routes.find_by_token(token).await {
                    Some(id) => Ok(Plane::Sandbox(Target { sandbox_id: id.to_string(), port: AGENT_PORT })),
                    None => Err(EdgeError::SandboxNotFound { sandbox_id: String::new() }),
                }
            }
        }
    }
}

/// Whether a call to the API carries the headers that name a sandbox's agent: Python 2.24 sends those with every
/// call once it is connected to a sandbox. Only the API asks for a key, and the agent has no such path.
fn is_stray_api_call(request: &Request<Incoming>, target: &Target) -> bool {
    let (headers, path) = (request.headers(), request.uri().path());
    headers.contains_key(SANDBOX_ID)
        && headers.contains_key(API_KEY)
        && target.port == AGENT_PORT
        && agent_path(path) == AgentPath::No
        && !is_reserved(path)
}

/// The key of the control plane.
const API_KEY: &str = "x-api-key";

/// A header's text. What is no text is there all the same, and wrong wherever it is used.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// Sees to what the HTTP library leaves to its user.
fn complete(response: Response<Body>, version: Version, is_head: bool) -> Response<Body> {
    let (mut head, mut body) = response.into_parts();
    let length = body.size_hint().exact();
    let has_length = head.headers.contains_key(CONTENT_LENGTH);
    if is_head {
        if let (Some(length @ 1..), false) = (length, has_length) {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if !body.is_end_stream() {
            body = Body::new(Empty::new().map_err(|never| match never {}));
        }
    } else if version == Version::HTTP_2 && body.is_end_stream() && !has_length && may_have_body(head.status)
    {
        // Clients take an answer without a length for one with a body that cannot be parsed (contract
        // client-versions.md §2.2 rule 8).
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    Response::from_parts(head, body)
}

fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}
