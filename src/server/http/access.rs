//! Access of clients: the checks of a request before it is granted anything.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};

use super::upgrade;
use crate::config::{AccessConfig, AllowedOrigins};
use crate::server::refusals::RefusalCause;

const FOREIGN_ORIGIN: &str = "403 Forbidden: pages of this origin may not connect\n";

/// Checks of requests. They take the way of hyper, so that there is one place of them.
#[derive(Debug)]
pub(crate) struct AccessControl {
    origins: AllowedOrigins,
}

impl AccessControl {
    /// Returns the checks, or `None` if every client may connect.
    pub(crate) fn new(config: &AccessConfig) -> Option<Arc<Self>> {
        let is_needed = config.allowed_origins != AllowedOrigins::Any;
        is_needed.then(|| Arc::new(AccessControl { origins: config.allowed_origins.clone() }))
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
    pub(super) cause: RefusalCause,
    pub(super) response: Box<Response<Full<Bytes>>>,
}

impl Refused {
    fn new(cause: RefusalCause, status: StatusCode, text: &'static str) -> Self {
        let mut response = upgrade::plain(status, text);
        response.headers_mut().remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        Refused { cause, response: Box::new(response) }
    }
}
