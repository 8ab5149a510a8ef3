//! The path relay of `boramalper/signaller` (`signallerd`): somebody listens under a handle, somebody else connects
//! to it, and from then on a pipe carries every frame of the one to the other.
//!
//! It shares the port with sigver and nothing else: no rooms, no model, no negotiation. The rules live in the pure
//! modules ([`handle`], [`door`], [`pipe`]), who waits where in [`registry`], and the task around them in `task`.
//! No HTTP here: [`crate::server`] asks at the door and words the answer.
//!
//! Where we differ from the original, we say so where it happens; in short:
//! - a listener that leaves frees its handle at once, where it used to block it until the listen deadline;
//! - a listener whose early messages break the limits is closed at once, not when somebody connects;
//! - a request without an `Origin` is refused if there is an origin expression, where the original panicked;
//! - the listen deadline is exact, where the original looked every five seconds.

pub mod admission;
pub mod registry;
mod task;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use regex_lite::Regex;

use crate::config::SignallerConfig;
use crate::protocol::signaller::PipeLimits;
use crate::protocol::signaller::handle::Endpoint;
use crate::server::transport::ws::Socket;
use admission::{Admitted, Rejection, SignallerRequest};
use registry::Registry;
pub use task::{PipeSocket, PipeStream};

/// What the operator may set, under the names of `signallerd`'s own options and with its defaults.
#[derive(Clone, Debug)]
pub struct SignallerOptions {
    /// Which origins may come: the expression has to match somewhere in the `Origin` header, as in the original, so
    /// it is the operator who anchors it. Without one, only the origin of the server itself and clients that name
    /// none, which are no browsers.
    ///
    /// It is a `regex_lite` expression: like the original's RE2 it takes linear time and its classes mean ASCII. What
    /// it has not of RE2, Unicode classes (`\p`) and quotations (`\Q…\E`), is of no use on origins, which are ASCII.
    pub origin: Option<Regex>,
    /// Limits of a pipe.
    pub limits: PipeLimits,
}

impl Default for SignallerOptions {
    fn default() -> Self {
        SignallerOptions::with(&SignallerConfig::default(), None)
    }
}

impl SignallerOptions {
    /// What the operator set.
    ///
    /// # Errors
    /// Its origin expression cannot be read.
    pub fn new(config: &SignallerConfig) -> Result<Self, regex_lite::Error> {
        let origin = config.origin.as_deref().map(Regex::new).transpose()?;
        Ok(SignallerOptions::with(config, origin))
    }

    fn with(config: &SignallerConfig, origin: Option<Regex>) -> Self {
        SignallerOptions {
            origin,
            limits: PipeLimits {
                listen_deadline: config.listen_deadline,
                pipe_deadline: config.pipe_deadline,
                max_size: config.max_size,
                max_messages: config.max_messages,
            },
        }
    }
}

/// The relay: its options, and who is listening.
#[derive(Debug)]
pub struct Signaller {
    options: SignallerOptions,
    exclusive: bool,
    registry: Arc<Registry<PipeSocket>>,
}

impl Signaller {
    /// A relay where nobody listens. If it is `exclusive`, no other dialect is spoken on its port: what is none of
    /// its paths is not found. Otherwise all else is left to sigver.
    pub fn new(options: SignallerOptions, exclusive: bool) -> Arc<Self> {
        Arc::new(Signaller { options, exclusive, registry: Arc::default() })
    }

    /// Whether a request with this path, as sent, is the relay's to answer, and if so, what it is for. `Ok(None)`
    /// leaves the request to others.
    ///
    /// # Errors
    /// There is nothing but the relay, and the path is none of its.
    pub fn claims(&self, path: &str) -> Result<Option<Endpoint>, Rejection> {
        match Endpoint::parse(path) {
            None if self.exclusive => Err(Rejection::NoSuchPath),
            target => Ok(target),
        }
    }

    /// Decides about a request. If it is admitted, its handle is taken from now on, until the [`Admitted`] is over.
    ///
    /// # Errors
    /// Why it is not admitted.
    pub fn knock(&self, target: Endpoint, knock: &SignallerRequest<'_>) -> Result<Admitted, Rejection> {
        admission::knock(&self.registry, self.options.origin.as_ref(), target, knock)
    }

    /// Serves somebody who was admitted, on the stream of the connection after its upgrade, until the call is over or
    /// `stop` is ready. `early` is what was read beyond the request.
    pub async fn serve(
        self: Arc<Self>,
        stream: Box<dyn PipeStream>,
        early: Bytes,
        call: Admitted,
        stop: impl Future<Output = ()> + Send,
    ) {
        let line = Socket::new(stream, early, self.options.limits.max_size);
        match call {
            Admitted::Listen(listening) => task::listen(line, listening, &self.options.limits, stop).await,
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
        let shared = Signaller::new(SignallerOptions::default(), false);
        let alone = Signaller::new(SignallerOptions::default(), true);
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
        let options = SignallerOptions::default();
        assert!(options.origin.is_none());
        assert_eq!(options.limits.listen_deadline, Duration::from_secs(60));
        assert_eq!(options.limits.pipe_deadline, Duration::from_secs(10));
        assert_eq!((options.limits.max_size, options.limits.max_messages), (1024, 8));
    }

    #[test]
    fn what_the_operator_sets_is_what_holds() {
        let config = SignallerConfig {
            origin: Some(r"^https://ok\.example$".into()),
            listen_deadline: Duration::from_secs(1),
            pipe_deadline: Duration::from_secs(2),
            max_size: 3,
            max_messages: 4,
        };
        let options = SignallerOptions::new(&config).unwrap();
        assert!(options.origin.is_some_and(|origin| origin.is_match("https://ok.example")));
        assert_eq!(
            (options.limits.listen_deadline, options.limits.pipe_deadline),
            (config.listen_deadline, config.pipe_deadline)
        );
        assert_eq!((options.limits.max_size, options.limits.max_messages), (3, 4));
        assert!(SignallerOptions::new(&SignallerConfig { origin: Some("(".into()), ..config }).is_err());
    }
}
