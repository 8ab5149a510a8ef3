//! Rules of the signaller protocol (`boramalper/signaller`, `signallerd`): its handles, and the pipe between
//! a listener and a connector.

pub(crate) mod handle;
pub(crate) mod pipe;

use std::time::Duration;

/// Limits of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipeLimits {
    /// Maximum duration for which a listener waits for a connector.
    pub listen_deadline: Duration,
    /// Maximum duration of a pipe.
    pub pipe_deadline: Duration,
    /// Maximum length of a message, in bytes.
    pub max_size: usize,
    /// Maximum number of messages in one direction. The pipe closes after the last is delivered.
    pub max_messages: u32,
}

/// The limits of `signallerd` (measured).
impl Default for PipeLimits {
    fn default() -> Self {
        PipeLimits {
            listen_deadline: Duration::from_secs(60),
            pipe_deadline: Duration::from_secs(10),
            max_size: 1024,
            max_messages: 8,
        }
    }
}
