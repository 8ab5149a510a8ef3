//! The steps of a close from this side, until a connection is no more.

use std::time::{Duration, Instant};

use super::{ConnectionKey, Connections, later};
use crate::bridge::peer_connection::PeerConnection;

/// Maximum duration until what was sent before a close has arrived.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum duration of the close handshakes of the channel, and then of the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Progress of a close from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// Frames that were sent before arrive first.
    Draining { until: Instant },
    /// The channel is being closed.
    Channel { until: Instant },
    /// The connection is being closed.
    Connection { until: Instant },
}

impl Closing {
    fn until(self) -> Instant {
        match self {
            Closing::Draining { until } | Closing::Channel { until } | Closing::Connection { until } => until,
        }
    }
}

impl<C: PeerConnection> Connections<C> {
    /// Closes a channel once what was sent before has arrived.
    pub(in crate::bridge) fn close(&mut self, key: ConnectionKey, now: Instant) {
        let Some(id) = self.by_key.remove(&key) else { return };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.key = None;
            connection.closing = Some(Closing::Draining { until: later(now, DRAIN_TIMEOUT) });
            connection.mark_dirty(id, &mut self.dirty);
        }
    }

    /// Moves a close on, and sets the time when the connection is due again.
    pub(super) fn settle(&mut self, id: u32, next: Instant, is_closed: bool, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.key.is_none() {
            let is_late = connection.closing.is_some_and(|closing| closing.until() <= now);
            let until = later(now, CLOSE_TIMEOUT);
            let before = connection.closing;
            connection.closing = match before {
                None => Some(Closing::Channel { until }),
                Some(Closing::Draining { .. }) => {
                    let is_drained = connection.queue.bytes() == 0 && connection.stack.is_drained();
                    if is_drained || is_late || is_closed || !connection.is_open {
                        connection.stack.close_channel();
                        Some(Closing::Channel { until })
                    } else {
                        before
                    }
                }
                Some(Closing::Channel { .. }) if is_late || is_closed => {
                    connection.stack.close();
                    Some(Closing::Connection { until })
                }
                Some(Closing::Connection { .. }) if is_late || !connection.stack.is_alive() => {
                    return self.remove(id);
                }
                Some(Closing::Channel { .. } | Closing::Connection { .. }) => before,
            };
            if connection.closing != before {
                connection.mark_dirty(id, &mut self.dirty);
            }
        }
        let Some(connection) = self.connections.get(&id) else { return };
        let closing = connection.closing.map(Closing::until);
        let silent = connection.key.and_then(|_| self.silent_at(connection));
        let due = [Some(next), closing, silent].into_iter().flatten().min();
        self.deadlines.set(id, due);
    }

    fn remove(&mut self, id: u32) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.waiting = self.waiting.saturating_sub(connection.queue.bytes());
        self.by_fragment.remove(&connection.fragment);
        if let Some(asker) = connection.asker {
            self.shares.remove_unanswered(connection.room, asker);
        }
        if let Some(client) = connection.client {
            self.shares.remove_connection(client);
        }
        for address in &connection.addresses {
            self.by_address.remove(address);
        }
        self.deadlines.set(id, None);
    }
}
