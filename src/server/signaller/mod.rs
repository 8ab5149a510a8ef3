//! The protocol of `boramalper/signaller` (`signallerd`): a client listens under a handle, another connects to it, and
//! a pipe carries every frame of the one to the other.
//!
//! It shares the port with sigver and nothing else: no rooms, no model, no detection. The pure rules are in
//! [`crate::protocol::signaller`], admission in [`admission`], the waiting listeners in [`registry`], the task of a pipe
//! in `task`. Differences from signallerd are C80 to C89 of docs/reference/differences.md.

pub(crate) mod admission;
pub(crate) mod registry;
mod task;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::SignallerConfig;
use crate::protocol::signaller::handle::Endpoint;
use crate::server::transport::ws::Socket;
use admission::{Admitted, Rejection, SignallerRequest};
use registry::Registry;
pub(crate) use task::{PipeSocket, Stream};

/// The relay: its options, and who is listening.
#[derive(Debug)]
pub(crate) struct Signaller {
    config: SignallerConfig,
    exclusive: bool,
    registry: Arc<Registry<PipeSocket>>,
}

impl Signaller {
    /// A relay where nobody listens. If it is `exclusive`, no other dialect is spoken on its port: what is none of
    /// its paths is not found. Otherwise all else is left to sigver.
    pub(crate) fn new(config: SignallerConfig, exclusive: bool) -> Arc<Self> {
        Arc::new(Signaller { config, exclusive, registry: Arc::default() })
    }

    /// Whether a request with this path, as sent, is the relay's to answer, and if so, what it is for. `Ok(None)`
    /// leaves the request to others.
    ///
    /// # Errors
    /// There is nothing but the relay, and the path is none of its.
    pub(crate) fn claims(&self, path: &str) -> Result<Option<Endpoint>, Rejection> {
        match Endpoint::parse(path) {
            None if self.exclusive => Err(Rejection::NoSuchPath),
            target => Ok(target),
        }
    }

    /// Decides about a request. If it is admitted, its handle is taken from now on, until the [`Admitted`] is over.
    ///
    /// # Errors
    /// Why it is not admitted.
    pub(crate) fn knock(
        &self,
        target: Endpoint,
        knock: &SignallerRequest<'_>,
    ) -> Result<Admitted, Rejection> {
        admission::knock(&self.registry, self.config.origin.as_ref(), target, knock)
    }

    /// Serves somebody who was admitted, on the stream of the connection after its upgrade, until the call is over or
    /// `stop` is ready. `early` is what was read beyond the request.
    pub(crate) async fn serve(
        self: Arc<Self>,
        stream: Box<dyn Stream>,
        early: Bytes,
        call: Admitted,
        stop: impl Future<Output = ()> + Send,
    ) {
        let line = Socket::new(stream, early, self.config.limits.max_size);
        match call {
            Admitted::Listen(listening) => task::listen(line, listening, &self.config.limits, stop).await,
            Admitted::Connect(claim) => task::connect(line, claim).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn other_paths_are_left_to_others_unless_there_are_none() {
        let shared = Signaller::new(SignallerConfig::default(), false);
        let alone = Signaller::new(SignallerConfig::default(), true);
        for path in ["/", "/listen/ab", "/some-key"] {
            assert_eq!(shared.claims(path), Ok(None), "{path}");
            assert_eq!(alone.claims(path), Err(Rejection::NoSuchPath), "{path}");
        }
        let target = Endpoint::parse("/listen/abc");
        assert!(target.is_some());
        assert_eq!(shared.claims("/listen/abc"), Ok(target.clone()));
        assert_eq!(alone.claims("/listen/abc"), Ok(target));
    }

    // Measured: README of the wire, "signallerd" (60 s, 10 s, 1024 bytes are fine, the 8th message is the last).
    #[test]
    fn the_defaults_are_the_original_ones() {
        let config = SignallerConfig::default();
        assert!(config.origin.is_none());
        assert_eq!(config.limits.listen_deadline, Duration::from_secs(60));
        assert_eq!(config.limits.pipe_deadline, Duration::from_secs(10));
        assert_eq!((config.limits.max_size, config.limits.max_messages), (1024, 8));
    }
}
