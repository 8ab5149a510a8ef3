//! State that the connections of one worker thread share, so that an idle connection owns none: buffers,
//! which carry no data from one use to the next, and a source of randomness.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::ws_buffers::BufferPool;
use crate::protocol::model::Event;

/// The shared state of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Read and write buffers of WebSockets.
    pub(crate) ws_buffers: BufferPool,
    /// Bytes of the first read of a connection.
    pub(crate) first_read: RefCell<Vec<u8>>,
    /// Memory for the next outbox that is not empty: an empty one has none.
    pub(crate) events: RefCell<VecDeque<Event>>,
    /// Source of randomness of all rooms.
    pub(crate) rng: RefCell<fastrand::Rng>,
}

thread_local! {
    static SCRATCH: Scratch = Scratch::default();
}

/// Calls `f` with the state of this thread.
pub(crate) fn with<R>(f: impl FnOnce(&Scratch) -> R) -> R {
    SCRATCH.with(f)
}
