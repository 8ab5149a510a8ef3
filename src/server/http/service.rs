//! The requests of one connection, as hyper reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::access::{AccessControl, Refused};
use super::body::ResponseBody;
use super::receive_charge::{discard, headers_size};
use super::signaller_admission::match_path;
use super::sse::{SseRoute, StreamLifecycle};
use super::{GrantedUpgrade, Routes, UpgradeTarget, cors, signaller, upgrade};
use crate::protocol::signaller::handle::Endpoint;
use crate::server::admission::ConnectionPermit;
use crate::server::auth::{Grant, RequestToken};
use crate::server::client_endpoint::ClientEndpoint;
use crate::server::conn::AdmittedClient;
use crate::server::memory::{BudgetExhausted, MemoryCharge};
use crate::server::refusals::RefusalCause;
use crate::server::telemetry::LimitKind;

const EVENT_STREAMS_ONLY: &str = "404 Not Found: this server serves event streams only, on the path /\n";
const TWO_HOSTS: &str = "400 Bad Request: there is more than one Host header\n";
const UPGRADE_BODY: &str = "400 Bad Request: a request for a WebSocket has no body\n";

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct HttpService {
    /// The upgrade that was granted.
    pub(super) granted: Mutex<Option<GrantedUpgrade>>,
    /// Notified when an upgrade is granted.
    pub(super) upgrade: Notify,
    /// True once a client of an event stream sent by this connection.
    pub(super) posted: AtomicBool,
    /// True once the connection had a request.
    pub(super) requested: AtomicBool,
    /// True once a request was refused, with which the connection itself is used up.
    refused: AtomicBool,
    routes: Arc<Routes>,
    pub(super) streams: StreamLifecycle,
    /// The other end of the connection, which may be a proxy.
    peer: ClientEndpoint,
}

impl HttpService {
    pub(super) fn new(routes: Arc<Routes>, peer: ClientEndpoint, alive: TaskTrackerToken) -> Self {
        HttpService {
            granted: Mutex::default(),
            upgrade: Notify::new(),
            posted: AtomicBool::new(false),
            requested: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            routes,
            streams: StreamLifecycle::new(alive),
            peer,
        }
    }

    /// Returns the client's end of a request.
    pub(super) fn client(&self, headers: &HeaderMap) -> ClientEndpoint {
        self.routes.access.as_ref().map_or(self.peer, |access| access.endpoint(headers, self.peer))
    }

    /// Completes when the connection is to be closed for lack of memory: it is no client's yet.
    pub(super) async fn shed(&self) {
        loop {
            self.routes.admission.memory().shed_before_upgrade().await;
            if !self.streams.started.load(Ordering::Relaxed) && !self.posted.load(Ordering::Relaxed) {
                return self.routes.telemetry.count_limit_of(LimitKind::Memory, self.peer);
            }
        }
    }

    /// Returns the response to a request, if there is memory for its headers.
    pub(super) async fn respond_within_memory(
        &self,
        request: Request<Incoming>,
        client: ClientEndpoint,
    ) -> Response<ResponseBody> {
        let mut charge = self.routes.admission.memory().empty_charge();
        let size = headers_size(request.headers());
        let charged = match *request.method() {
            // Mostly of clients that have an event stream.
            Method::POST => charge.resize(size),
            _ => charge.resize_before_upgrade(size),
        };
        if let Err(BudgetExhausted) = charged {
            self.routes.telemetry.count_limit_of(LimitKind::Memory, client);
            let mut response = upgrade::unavailable(upgrade::SHORT_OF_MEMORY);
            cors::allow_origin(&mut response, request.headers());
            return response.map(ResponseBody::Full);
        }
        self.respond(request, client, charge).await
    }

    /// Returns the rights of the client that sent a request, for an endpoint of signaller if there is one;
    /// `None` if all clients have all. `is_counted` is true if the rate of its address was counted for this
    /// request.
    async fn authenticate(
        &self,
        token: Option<&RequestToken>,
        request: &Request<Incoming>,
        endpoint: Option<&Endpoint>,
        client: ClientEndpoint,
        is_counted: bool,
    ) -> Result<Option<Box<Grant>>, Refused> {
        let is_further = client.behind_proxy || self.refused.load(Ordering::Relaxed);
        if !is_counted && is_further && self.routes.admission.is_at_rate(client) {
            return Err(Refused::by_rate());
        }
        let Some(access) = &self.routes.access else { return Ok(None) };
        access.authenticate(token, request.uri().path(), endpoint, request.headers(), client).await
    }

    /// Admits the client of a request, if it is for an upgrade, and returns its rights.
    async fn admit(
        &self,
        token: Option<&RequestToken>,
        request: &Request<Incoming>,
        endpoint: Option<&Endpoint>,
        client: ClientEndpoint,
    ) -> Result<(Option<ConnectionPermit>, Option<Box<Grant>>), Refused> {
        let is_upgrade = upgrade::is_upgrade(request);
        let permit = match self.routes.access.as_deref().filter(|_| is_upgrade) {
            Some(access) => access.admit(client)?,
            None => None,
        };
        let grant = match endpoint.is_some() || self.routes.websockets && is_upgrade {
            true => {
                let is_counted = client.behind_proxy && is_upgrade;
                self.authenticate(token, request, endpoint, client, is_counted).await?
            }
            false => None,
        };
        Ok((permit, grant))
    }

    /// Counts a response that refuses what was asked for.
    pub(super) fn count_refusal<B>(&self, response: &Response<B>, client: ClientEndpoint) {
        let status = response.status();
        let cause = response.extensions().get().copied().unwrap_or(match status {
            StatusCode::FORBIDDEN => RefusalCause::ForeignOrigin,
            _ => RefusalCause::Request,
        });
        if status.is_client_error() || cause == RefusalCause::AuthUnavailable {
            self.routes.refuse(cause, client, Some(status.as_u16()));
        }
    }

    /// Counts a refusal, by which a client may guess tokens and keys, for the rate of the client's address:
    /// the connection is counted for one of its requests only.
    pub(super) fn count_guess<B>(&self, response: &Response<B>, client: ClientEndpoint) {
        let is_guess = matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::CONFLICT
        );
        if is_guess && (self.refused.swap(true, Ordering::Relaxed) || client.behind_proxy) {
            self.routes.admission.count_refusal(client);
        }
    }

    /// Counts a connection that ends because of what the client sent, or did not send.
    pub(super) fn count_failure(&self, error: &hyper::Error) {
        let cause = if error.is_timeout() { RefusalCause::Timeout } else { RefusalCause::InvalidHttp };
        if error.is_timeout() || error.is_parse() {
            self.routes.refuse(cause, self.peer, None);
        }
    }

    /// Returns the response to a request. Never returns if the request is granted an upgrade: hyper grants
    /// none to HTTP/1.0, so the response is left to the WebSocket.
    async fn respond(
        &self,
        mut request: Request<Incoming>,
        client: ClientEndpoint,
        charge: MemoryCharge,
    ) -> Response<ResponseBody> {
        let is_first = !self.requested.swap(true, Ordering::Relaxed);
        if self.routes.shutdown.is_draining() && !is_first && *request.method() == Method::GET {
            // A POST may be for an event stream that is still open.
            return upgrade::unavailable(upgrade::STOPPING).map(ResponseBody::Full);
        }
        let access = self.routes.access.as_deref();
        let token = access.and_then(|access| access.take_token(&mut request));
        let headers = request.headers();
        if headers.get_all(header::HOST).iter().nth(1).is_some() {
            return upgrade::plain(StatusCode::BAD_REQUEST, TWO_HOSTS).map(ResponseBody::Full);
        }
        if let Some(Err(refused)) = access.map(|access| access.check(headers)) {
            return refused.into_response();
        }
        if let Some(events) = &self.routes.events {
            match events.route(&request) {
                SseRoute::NotAnEventStream => {}
                SseRoute::Respond(response) => return response,
                SseRoute::Open(variant, first) => {
                    let granted = self.authenticate(token.as_ref(), &request, None, client, false).await;
                    let client = match granted {
                        Ok(grant) => AdmittedClient { endpoint: client, grant },
                        Err(refused) => return refused.into_response(),
                    };
                    return events.open(variant, first, headers, client, &self.streams);
                }
                SseRoute::Send(sender, message) => {
                    return events.deliver_get(sender, message, headers, client, &self.streams).await;
                }
                SseRoute::Post => {
                    self.posted.store(true, Ordering::Relaxed);
                    return events.deliver_post(request, client, charge).await;
                }
            }
        }
        if let Some(response) = upgrade::health_check(&request, self.routes.websockets) {
            return response.map(ResponseBody::Full);
        }
        let signaller = self.routes.signaller.as_ref();
        let matched = signaller.map(|signaller| (signaller, match_path(signaller, request.uri().path())));
        let endpoint = matched.as_ref().and_then(|(_, path)| path.as_ref().ok()?.as_ref());
        let (permit, grant) = match self.admit(token.as_ref(), &request, endpoint, client).await {
            Ok(admitted) => admitted,
            Err(refused) => return refused.into_response(),
        };
        let (response, target) = match matched {
            Some((signaller, Ok(Some(endpoint)))) => {
                let origin_is_listed = access.is_some_and(AccessControl::checks_origins);
                signaller::respond(signaller, endpoint, &request, origin_is_listed).await
            }
            Some((_, Err(rejection))) => (signaller::reject(rejection), None),
            Some((_, Ok(None))) | None if self.routes.websockets => {
                let (response, upgrade) = upgrade::respond(&request);
                (response, upgrade.map(UpgradeTarget::Room))
            }
            Some((_, Ok(None))) | None => (upgrade::plain(StatusCode::NOT_FOUND, EVENT_STREAMS_ONLY), None),
        };
        let Some(target) = target else { return response.map(ResponseBody::Full) };
        // The head is dropped, and its buffer with it.
        let body = request.into_body();
        if !discard(body).await {
            return upgrade::plain(StatusCode::BAD_REQUEST, UPGRADE_BODY).map(ResponseBody::Full);
        }
        let response = upgrade::encode(&response);
        *self.granted.lock() = Some(GrantedUpgrade { response, target, client, permit, grant });
        self.upgrade.notify_one();
        std::future::pending().await
    }
}
