//! Access of clients: the checks of a request before it is granted anything.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use parking_lot::RwLock;

use super::body::ResponseBody;
use super::forwarded::client_address;
use super::{cors, upgrade};
use crate::config::{AccessConfig, AllowedOrigins, TrustedProxies};
use crate::protocol::detect::Policy;
use crate::protocol::model::RoomKey;
use crate::protocol::signaller::handle::Endpoint;
use crate::server::address_table::ClientNetwork;
use crate::server::admission::{Admission, ConnectionPermit};
use crate::server::auth::{AuthRefusal, Authenticator, Grant, RequestToken, take_token};
use crate::server::client_endpoint::ClientEndpoint;
use crate::server::conn::Shared;
use crate::server::refusals::RefusalCause;
use crate::server::telemetry::LimitKind;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const FOREIGN_ORIGIN: &str = "403 Forbidden: pages of this origin may not connect\n";
const TOO_MANY: &str = "429 Too Many Requests: your address has too many connections\n";
const TOO_OFTEN: &str = "429 Too Many Requests: your address connects too often\n";

/// Checks of requests. All requests that need one are handled by hyper, so that the checks are in one place.
#[derive(Debug)]
pub(crate) struct AccessControl {
    /// A reload may change them.
    origins: Arc<RwLock<AllowedOrigins>>,
    proxies: TrustedProxies,
    admission: Arc<Admission>,
    auth: Option<Arc<Authenticator>>,
    policy: Arc<Policy>,
}

impl AccessControl {
    /// Returns the checks, or `None` if every client may connect.
    pub(crate) fn new(
        config: &AccessConfig,
        shared: &Shared,
        auth: Option<Arc<Authenticator>>,
    ) -> Option<Arc<Self>> {
        let is_needed = config.allowed_origins != AllowedOrigins::Any || !config.trusted_proxies.is_empty();
        (is_needed || auth.is_some()).then(|| {
            Arc::new(AccessControl {
                origins: Arc::clone(&shared.allowed_origins),
                proxies: config.trusted_proxies.clone(),
                admission: Arc::clone(&shared.admission),
                auth,
                policy: Arc::clone(&shared.policy),
            })
        })
    }

    /// Returns the client's end of a request that arrived over the connection `peer`.
    pub(super) fn endpoint(&self, headers: &HeaderMap, peer: ClientEndpoint) -> ClientEndpoint {
        match peer.behind_proxy {
            true => ClientEndpoint { remote: client_address(headers, peer.remote, &self.proxies), ..peer },
            false => peer,
        }
    }

    /// Counts a client behind a proxy that asks for a WebSocket.
    ///
    /// # Errors
    /// Its address has reached a limit; the request is refused with this response.
    pub(super) fn admit(&self, client: ClientEndpoint) -> Result<Option<ConnectionPermit>, Refused> {
        if !client.behind_proxy {
            return Ok(None);
        }
        self.admission.admit_client(client).map_err(|kind| match kind {
            LimitKind::ConnectionRate => Refused::by_rate(),
            _ => Refused::by_limit(TOO_MANY),
        })
    }

    /// Returns true if it is configured which origins are allowed.
    pub(super) fn checks_origins(&self) -> bool {
        *self.origins.read() != AllowedOrigins::Any
    }

    /// Takes the token out of a request, if clients need one.
    pub(super) fn take_token<B>(&self, request: &mut Request<B>) -> Option<RequestToken> {
        self.auth.as_ref().and_then(|_| take_token(request))
    }

    /// Returns the rights of a client that asks for an event stream, a WebSocket on `path`, or an endpoint
    /// of signaller. `None` if all clients have all.
    ///
    /// # Errors
    /// The request is refused with this response.
    pub(super) async fn authenticate(
        &self,
        token: Option<&RequestToken>,
        path: &str,
        endpoint: Option<&Endpoint>,
        headers: &HeaderMap,
        client: ClientEndpoint,
    ) -> Result<Option<Box<Grant>>, Refused> {
        let Some(auth) = &self.auth else { return Ok(None) };
        let granted = auth.check(token, client.remote.map(ClientNetwork::from)).await.and_then(|grant| {
            let allowed = match (endpoint, path.strip_prefix('/').unwrap_or(path)) {
                (Some(endpoint), _) => grant.allows(endpoint.handle().as_str()),
                // The key arrives in a message.
                (None, "") => true,
                (None, _) if !self.policy.has_keys_in_paths() => true,
                (None, key) => grant.allows(self.policy.room_key(RoomKey::from(key)).as_str()),
            };
            if allowed { Ok(Some(Box::new(grant))) } else { Err(AuthRefusal::ForbiddenKey) }
        });
        granted.map_err(|refusal| Refused::by_auth(refusal, headers))
    }

    /// Checks a request.
    ///
    /// # Errors
    /// The request is refused with this response.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let allowed = self.origins.read();
        let is_allowed = |origin: &str| allowed.allows(origin);
        let mut origins = headers.get_all(header::ORIGIN).iter();
        // An image or a frame of a page sends no origin.
        let is_cross_site = headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site");
        let is_unnamed =
            *allowed != AllowedOrigins::Any && is_cross_site && !headers.contains_key(header::ORIGIN);
        if is_unnamed || !origins.all(|origin| origin.to_str().is_ok_and(is_allowed)) {
            return Err(Refused::new(RefusalCause::ForeignOrigin, StatusCode::FORBIDDEN, FOREIGN_ORIGIN));
        }
        Ok(())
    }
}

/// A refusal, with its response, which no page of another origin may read.
#[derive(Debug)]
pub(super) struct Refused {
    response: Box<Response<Full<Bytes>>>,
}

impl Refused {
    fn new(cause: RefusalCause, status: StatusCode, text: &'static str) -> Self {
        let mut response = upgrade::plain(status, text);
        response.headers_mut().remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        // Its status alone does not show the cause.
        response.extensions_mut().insert(cause);
        Refused { response: Box::new(response) }
    }

    /// Returns the refusal of a client whose address connects or asks too often.
    pub(super) fn by_rate() -> Self {
        Self::by_limit(TOO_OFTEN)
    }

    fn by_limit(text: &'static str) -> Self {
        let mut refused = Refused::new(RefusalCause::Request, StatusCode::TOO_MANY_REQUESTS, text);
        let headers = refused.response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        refused
    }

    /// Returns the refusal of a client by its token, which pages of allowed origins may read.
    fn by_auth(refusal: AuthRefusal, request: &HeaderMap) -> Self {
        let (status, text) = match refusal {
            AuthRefusal::NoToken => (StatusCode::UNAUTHORIZED, "401 Unauthorized: a token is needed\n"),
            AuthRefusal::InvalidToken => {
                (StatusCode::UNAUTHORIZED, "401 Unauthorized: the token is invalid\n")
            }
            AuthRefusal::ExpiredToken => {
                (StatusCode::UNAUTHORIZED, "401 Unauthorized: the token has expired\n")
            }
            AuthRefusal::NoKeys => (StatusCode::FORBIDDEN, "403 Forbidden: the token names no room keys\n"),
            AuthRefusal::ForbiddenKey => {
                (StatusCode::FORBIDDEN, "403 Forbidden: the token is not for this key\n")
            }
            AuthRefusal::TooManyRequests(_) => (StatusCode::TOO_MANY_REQUESTS, TOO_OFTEN),
            AuthRefusal::Unavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "503 Service Unavailable: tokens cannot be checked now\n")
            }
        };
        let retry_after = match refusal {
            AuthRefusal::TooManyRequests(seconds) | AuthRefusal::Unavailable(seconds) => Some(seconds),
            _ => None,
        };
        let mut refused = Refused::new(refusal.cause(), status, text);
        cors::allow_origin(&mut refused.response, request);
        let headers = refused.response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        refused
    }

    /// Returns the response.
    pub(super) fn into_response(self) -> Response<ResponseBody> {
        self.response.map(ResponseBody::Full)
    }
}
