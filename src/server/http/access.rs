//! Access of clients: the checks of a request before it is granted anything.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::ResponseBody;
use super::forwarded::client_address;
use super::upgrade;
use crate::config::{AccessConfig, AllowedOrigins, TrustedProxies};
use crate::server::admission::{Admission, ConnectionPermit};
use crate::server::conn::ClientEndpoint;
use crate::server::refusals::RefusalCause;
use crate::server::telemetry::LimitKind;

const FOREIGN_ORIGIN: &str = "403 Forbidden: pages of this origin may not connect\n";
const TOO_MANY: &str = "429 Too Many Requests: your address has too many connections\n";
const TOO_OFTEN: &str = "429 Too Many Requests: your address connects too often\n";

/// Checks of requests. They take the way of hyper, so that there is one place of them.
#[derive(Debug)]
pub(crate) struct AccessControl {
    origins: AllowedOrigins,
    proxies: TrustedProxies,
    admission: Arc<Admission>,
}

impl AccessControl {
    /// Returns the checks, or `None` if every client may connect.
    pub(crate) fn new(config: &AccessConfig, admission: &Arc<Admission>) -> Option<Arc<Self>> {
        let is_needed = config.allowed_origins != AllowedOrigins::Any || !config.trusted_proxies.is_empty();
        is_needed.then(|| {
            Arc::new(AccessControl {
                origins: config.allowed_origins.clone(),
                proxies: config.trusted_proxies.clone(),
                admission: Arc::clone(admission),
            })
        })
    }

    /// Returns the client's end of a request that came over the connection `peer`.
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
        self.admission.admit_client(client).map_err(|kind| {
            let text = match kind {
                LimitKind::ConnectionRate => TOO_OFTEN,
                _ => TOO_MANY,
            };
            let mut refused = Refused::new(RefusalCause::Request, StatusCode::TOO_MANY_REQUESTS, text);
            let headers = refused.response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            refused
        })
    }

    /// Returns true if it is configured which origins are allowed.
    pub(super) fn checks_origins(&self) -> bool {
        self.origins != AllowedOrigins::Any
    }

    /// Checks a request.
    ///
    /// # Errors
    /// The request is refused with this response.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let is_allowed = |origin: &str| self.origins.allows(origin);
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if !origins.all(|origin| origin.to_str().is_ok_and(is_allowed)) {
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
        // Its status alone does not tell the cause.
        response.extensions_mut().insert(cause);
        Refused { response: Box::new(response) }
    }

    /// Returns the response.
    pub(super) fn into_response(self) -> Response<ResponseBody> {
        self.response.map(ResponseBody::Full)
    }
}
