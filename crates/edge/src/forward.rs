//! Forwards one request to a port of a sandbox.

use std::sync::Arc;

use http::header::EXPECT;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use sandbar_model::{Route, Routes, SandboxId};
use sandbar_wire::agent_paths::is_reserved;
use sandbar_wire::edge_errors::EdgeError;
use sandbar_wire::host::{AGENT_PORT, AddressError, Target};

use crate::activity::Busy;
use crate::body::{Body, ClientBound, GuestBound};
use crate::headers::{self, Hop, Payload};
use crate::tasks::Tasks;
use crate::tunnel::tunnel;
use crate::upstream::{Admission, Answered, Upstreams};

/// Forwards requests to sandboxes.
pub(crate) struct Forwarder {
    pub(crate) routes: Arc<dyn Routes>,
    pub(crate) upstreams: Upstreams,
    pub(crate) connection_limit: Option<usize>,
    /// Tunnels run here: they outlive the request.
    pub(crate) tasks: Tasks,
}

impl Forwarder {
    /// Forwards a request and returns the guest's answer, whose body is still to come.
    ///
    /// # Errors
    /// When the request may not or does not reach the sandbox.
    pub(crate) async fn forward(
        &self,
        target: Target,
        request: Request<Incoming>,
        busy: &Arc<Busy>,
    ) -> Result<Response<Body>, EdgeError> {
        // Before anything is looked up: some of these paths ask for no token.
        if target.port == AGENT_PORT && is_reserved(request.uri().path()) {
            return Err(EdgeError::ReservedPath { path: request.uri().path().to_owned() });
        }
        let id: SandboxId =
            target.sandbox_id.parse().map_err(|_| EdgeError::Address(AddressError::InvalidSandboxId))?;
        let gone = || EdgeError::SandboxNotFound { sandbox_id: id.to_string() };
        let route = self.routes.find(&id).await.map_err(|_refusal| gone())?;
        let run = self.upstreams.run(&route);
        let Some(admission) = run.admit(self.connection_limit) else {
            let limit = self.connection_limit.unwrap_or_default();
            return Err(EdgeError::TooManyConnections { sandbox_id: id.to_string(), limit });
        };

        let hop = hop_of(&request, target.port);
        let (request, exchange) = self.prepare(request, hop, &route);
        let client = exchange.client;
        let exchange_over = exchange.over.drop_guard();
        let answered = tokio::select! {
            biased;
            () = route.ended.cancelled() => return Err(gone()),
            answered = run.send(target.port, request, hop == Hop::Reuse) => answered,
        };
        let Answered { response, connection } = match answered {
            Ok(answered) => answered,
            Err(error) => {
                tracing::debug!(sandbox_id = %id, error = &error as &dyn std::error::Error, "guest did not answer");
                // A sandbox that is ending looks like a closed port at first.
                return Err(match self.routes.find(&id).await {
                    Ok(now) if now.run == route.run && !route.ended.is_cancelled() => {
                        EdgeError::PortClosed { sandbox_id: id.to_string(), port: target.port }
                    }
                    _ => gone(),
                });
            }
        };

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return match client {
                Some(client) => Ok(self.upgrade(client, response, route, admission, busy)),
                // Nobody asked for it: not an answer.
                None => Err(EdgeError::PortClosed { sandbox_id: id.to_string(), port: target.port }),
            };
        }
        let keep = (hop == Hop::Reuse).then_some(connection);
        Ok(answer(response, &route, move |finished| {
            drop((exchange_over, admission));
            if let Some(connection) = keep.filter(|_| finished) {
                connection.keep();
            }
        }))
    }

    fn prepare(
        &self,
        mut request: Request<Incoming>,
        hop: Hop,
        route: &Route,
    ) -> (Request<GuestBound>, Exchange) {
        let over = route.ended.child_token();
        let client = (hop == Hop::Upgrade).then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        let payload = if body.is_end_stream() { Payload::Empty } else { Payload::Follows };
        headers::for_guest(&mut head, hop, payload);
        let mut body = GuestBound::new(body, &over);
        let expects = payload == Payload::Follows
            && head
                .headers
                .get(EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let wanted = over.child_token();
        if expects {
            body = body.hold_until(wanted.clone());
        }
        let mut request = Request::from_parts(head, body);
        if expects {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    wanted.cancel();
                }
            });
        }
        (request, Exchange { over, client })
    }

    /// Passes on the guest's agreement; the tunnel begins when the client has it.
    fn upgrade(
        &self,
        client: hyper::upgrade::OnUpgrade,
        mut response: Response<Incoming>,
        route: Route,
        admission: Admission,
        busy: &Arc<Busy>,
    ) -> Response<Body> {
        let guest = hyper::upgrade::on(&mut response);
        let (mut head, _no_body) = response.into_parts();
        headers::for_upgraded_client(&mut head.headers);
        busy.becomes_tunnel();
        self.tasks.spawn(async move {
            let _admission = admission;
            tunnel(client, guest, route.ended).await;
        });
        Response::from_parts(head, Body::new(Empty::new().map_err(|never| match never {})))
    }
}

/// What belongs to one request and its answer.
struct Exchange {
    /// Cancelled when the answer is over; the rest of the question is of no use then.
    over: tokio_util::sync::CancellationToken,
    /// The client's connection, when it may change its protocol.
    client: Option<hyper::upgrade::OnUpgrade>,
}

fn hop_of(request: &Request<Incoming>, port: u16) -> Hop {
    if port == AGENT_PORT {
        // The agent has no other protocol, and a tunnel to it would get around the reserved paths.
        return Hop::Reuse;
    }
    let may_upgrade = request.extensions().get::<hyper::upgrade::OnUpgrade>().is_some();
    if may_upgrade && request.method() != Method::CONNECT && headers::asks_for_upgrade(request.headers()) {
        Hop::Upgrade
    } else {
        Hop::Once
    }
}

fn answer<G>(response: Response<Incoming>, route: &Route, at_end: G) -> Response<Body>
where
    G: FnOnce(bool) + Send + Unpin + 'static,
{
    let (mut head, body) = response.into_parts();
    headers::for_client(&mut head.headers);
    // The version is that of the guest's connection.
    head.version = http::Version::HTTP_11;
    Response::from_parts(head, Body::new(ClientBound::new(body, route.ended.clone(), at_end)))
}
