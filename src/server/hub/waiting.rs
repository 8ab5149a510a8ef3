//! The wait of one connection for a room of a cluster.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::room_cell::RoomCell;
use crate::protocol::model::{Command, RoomKey};
use crate::server::clock;

/// Time for which a client is not read while the place of its room is unknown. The engine answers long before
/// that, so that the order of what the client sends and receives is that of one process.
const PLACE_READ_DELAY: Duration = Duration::from_millis(500);

/// Bytes of commands that are put off while a client is read. It is not read any more when there are more.
const MAX_DEFERRED: usize = 64 * 1024;

/// A wait for a room, and the commands that are put off until it is over.
#[derive(Debug)]
pub(super) struct Waiting {
    /// A room at another node that has not answered, and whether other rooms are kept; `None` if it is not
    /// known where the room of the first deferred command is.
    pub(super) asked: Option<(Arc<RoomCell>, bool)>,
    /// The command with which the room that has not answered was entered.
    pub(super) entry: Option<Command>,
    /// Number of times that the room was not where it should be.
    pub(super) misplaced: u8,
    /// Time from which on the client is read though the place of its room is unknown, until that arrives.
    pub(super) read_from: Option<Instant>,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    pub(super) deferred: VecDeque<(Option<RoomKey>, Command)>,
    pub(super) deferred_bytes: usize,
}

impl Waiting {
    pub(super) fn new(asked: Option<(Arc<RoomCell>, bool)>, timeout: Duration) -> Self {
        let since = clock::now();
        Waiting {
            read_from: asked.is_none().then(|| since + PLACE_READ_DELAY),
            asked,
            entry: None,
            misplaced: 0,
            since,
            deadline: since + timeout,
            deferred: VecDeque::new(),
            deferred_bytes: 0,
        }
    }

    /// Returns true if the client must not be read at `now`. A client is read while the place of its room is
    /// unknown for long, which can take seconds, as it may have to answer pings.
    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.asked.is_some()
            || self.deferred_bytes > MAX_DEFERRED
            || self.read_from.is_some_and(|read_from| now < read_from)
    }

    /// Returns when [`on_timeout`](Self::on_timeout) has to be called.
    pub(super) fn deadline(&self) -> Instant {
        self.read_from.unwrap_or(self.deadline)
    }

    /// Handles what is due at `now`. Returns true if the room counts as unreachable.
    pub(super) fn on_timeout(&mut self, now: Instant) -> bool {
        self.read_from.take_if(|read_from| *read_from <= now);
        self.deadline <= now
    }

    /// Returns the room that has not answered.
    pub(super) fn into_asked(self) -> Option<Arc<RoomCell>> {
        self.asked.map(|(cell, _)| cell)
    }

    pub(super) fn defer(&mut self, key: Option<RoomKey>, command: Command) {
        self.deferred_bytes += command.queued_bytes();
        self.deferred.push_back((key, command));
    }
}
