//! The rules of the path relay `signallerd`: its handles, and the pipe between a listener and a connector.

pub(crate) mod handle;
pub(crate) mod pipe;

use std::time::Duration;

/// Limits of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipeLimits {
    /// Longest time that a listener waits for a connector.
    pub listen_deadline: Duration,
    /// Longest time that a pipe lasts.
    pub pipe_deadline: Duration,
    /// Longest message, in bytes.
    pub max_size: usize,
    /// Number of messages in one direction with which a pipe ends; the last is delivered.
    pub max_messages: u32,
}

/// The limits of the original signallerd (measured).
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
