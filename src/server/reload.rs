//! New settings for a running gateway.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::auth::{Authenticator, Verifier};
use super::conn::Shared;
use super::reloadable::ReloadableTime;
use super::start_error::StartError;
use super::tls::ReloadableTls;
use crate::config::Config;

/// The times of a gateway that a reload can change.
#[derive(Clone, Debug)]
pub(super) struct ReloadableTimes {
    pub(super) tls: Arc<ReloadableTime>,
    pub(super) head: Arc<ReloadableTime>,
    pub(super) drain: Arc<ReloadableTime>,
}

impl ReloadableTimes {
    pub(super) fn new(config: &Config) -> Self {
        ReloadableTimes {
            tls: ReloadableTime::new(config.limits.tls_timeout),
            head: ReloadableTime::new(config.limits.head_timeout),
            drain: ReloadableTime::new(config.drain_timeout),
        }
    }

    fn set(&self, config: &Config) {
        self.tls.set(config.limits.tls_timeout);
        self.head.set(config.limits.head_timeout);
        self.drain.set(config.drain_timeout);
    }
}

/// Access to the settings of a running gateway.
#[derive(Clone, Debug)]
pub struct Reloader {
    shared: Arc<Shared>,
    tls: Option<Arc<ReloadableTls>>,
    auth: Option<Arc<Authenticator>>,
    times: ReloadableTimes,
    /// The settings in force.
    current: Arc<Mutex<Config>>,
}

/// Result of a reload, by the long names of options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReloadReport {
    /// Options whose new values are in force. The files for TLS were read again in any case.
    pub changed: Vec<&'static str>,
    /// Options whose new values are in force only after a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Reloader {
    pub(super) fn new(
        config: Config,
        shared: Arc<Shared>,
        (tls, auth): (Option<Arc<ReloadableTls>>, Option<Arc<Authenticator>>),
        times: ReloadableTimes,
    ) -> Self {
        Reloader { shared, tls, auth, times, current: Arc::new(Mutex::new(config)) }
    }

    /// Puts the settings in force that a running gateway can change: the files for TLS and of tokens, which
    /// are read again also if the settings are the same; the limits but those of messages, queues and memory;
    /// the drain timeout; the part of addresses that is logged; the allowed origins, unless all are or were;
    /// and the log filter, which the program applies. Blocks while it reads the files.
    ///
    /// # Errors
    /// The configuration is contradictory, or files are invalid. Everything stays as it was.
    pub fn reload(&self, config: &Config) -> Result<ReloadReport, StartError> {
        config.check()?;
        let mut current = self.current.lock();
        // All files are read before anything changes.
        let verifier = Verifier::load(&config.access.auth, &self.shared.telemetry.callout)?;
        if let (Some(tls), Some(files)) = (&self.tls, &config.tls) {
            tls.reload(files)?;
        }
        if let (Some(auth), Some(verifier)) = (&self.auth, verifier) {
            auth.replace(verifier);
        }
        let mut changed = current.differing_options(config);
        current.adopt(config);
        self.times.set(&current);
        self.shared.hub.set_limits(&current.limits);
        self.shared.admission.set_limits(&current.limits);
        self.shared.log_ip.set(current.log_ip);
        *self.shared.allowed_origins.write() = current.access.allowed_origins.clone();
        let needs_restart = current.differing_options(config);
        changed.retain(|name| !needs_restart.contains(name));
        Ok(ReloadReport { changed, needs_restart })
    }
}

/// Error because of which a reload leaves everything as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// A configuration that cannot be read, with the message for the administrator.
    #[error("{0}")]
    Unreadable(String),
    /// A configuration that is contradictory, or whose files are invalid.
    #[error(transparent)]
    Invalid(#[from] StartError),
}

/// A request to reload, made on the admin listener.
#[derive(Debug)]
pub struct ReloadRequest(oneshot::Sender<Result<ReloadReport, ReloadError>>);

impl ReloadRequest {
    /// Answers the request: with the report, or with the error because of which everything stays as it was.
    pub fn respond(self, result: Result<ReloadReport, ReloadError>) {
        // Fails if the administrator has disconnected.
        let _ = self.0.send(result);
    }
}

/// The requests to reload that are made on the admin listener, for the program, which knows where its
/// configuration is.
#[derive(Debug)]
pub struct ReloadRequests(mpsc::Receiver<ReloadRequest>);

impl ReloadRequests {
    /// Waits for the next request. Returns `None` if there is no admin listener, or no longer.
    pub async fn recv(&mut self) -> Option<ReloadRequest> {
        self.0.recv().await
    }
}

/// Sends requests from the admin listener to the program.
#[derive(Debug)]
pub(super) struct ReloadSender(mpsc::Sender<ReloadRequest>);

impl ReloadSender {
    /// Returns the result of a reload; `None` if the program does none.
    pub(super) async fn request(&self) -> Option<Result<ReloadReport, ReloadError>> {
        let (sender, result) = oneshot::channel();
        self.0.send(ReloadRequest(sender)).await.ok()?;
        result.await.ok()
    }
}

/// Returns both ends of the channel of requests to reload.
pub(super) fn reload_requests() -> (ReloadSender, ReloadRequests) {
    let (sender, receiver) = mpsc::channel(1);
    (ReloadSender(sender), ReloadRequests(receiver))
}
