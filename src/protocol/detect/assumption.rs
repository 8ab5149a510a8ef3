//! Events for a client whose dialect is assumed: held until the assumption is sure enough to send them, and
//! buffered until it is confirmed, so that they can be sent again in another dialect.

use std::time::Instant;

use crate::protocol::dialect::{Dialect, Family};
use crate::protocol::model::{Event, Side};

/// Limit of the buffer, in bytes. Events above it are sent in the assumed dialect, and not again.
const MAX_BUFFERED: usize = 256 * 1024;

/// The assumption that a client from which nothing has arrived waits for the server's first message.
#[derive(Debug)]
pub(super) struct Assumption {
    buffered: Vec<Event>,
    bytes: usize,
    /// Number of the buffered events that were delivered.
    delivered: usize,
    /// Time until which the client's page may still be loading: it may answer the probe, and then speaks a
    /// dialect that cannot read what the most likely one sends, or turn out to be of another family.
    hold_until: Option<Instant>,
    /// The client has sent a ping, and answers the probe next, or an early heartbeat.
    awaits_pong: bool,
}

impl Assumption {
    pub(super) fn new(hold_until: Instant) -> Self {
        Assumption {
            buffered: Vec::new(),
            bytes: 0,
            delivered: 0,
            hold_until: Some(hold_until),
            awaits_pong: false,
        }
    }

    /// Holds all events until the client has answered the probe, or the time for it is over.
    pub(super) fn await_pong(&mut self) {
        self.awaits_pong = true;
    }

    /// Ends the time for which events are held at the latest at this time.
    pub(super) fn release_by(&mut self, time: Instant) {
        self.hold_until = self.hold_until.map(|until| until.min(time));
    }

    /// Takes in an event, and returns those that are to be delivered now.
    pub(super) fn push(&mut self, event: Event) -> Vec<Event> {
        if !matches!(event, Event::Relayed { .. } | Event::LinkEnded { .. }) {
            return vec![event];
        }
        let bytes = self.bytes.saturating_add(event.queued_bytes());
        if bytes > MAX_BUFFERED {
            let mut due = self.deliver_held();
            due.push(event);
            return due;
        }
        // Delivered at once if everything before it was, and its sender is silent at first like this client:
        // rooms are rarely mixed. The end of a link is readable where the contents before it were.
        let all_delivered = self.delivered == self.buffered.len();
        let is_end = matches!(event, Event::LinkEnded { .. });
        let due = self.hold_until.is_none()
            || (all_delivered
                && (!self.awaits_pong && sender_is_server_first(&event) || self.delivered > 0 && is_end));
        self.bytes = bytes;
        self.buffered.push(event.clone());
        if !due {
            return Vec::new();
        }
        self.delivered = self.delivered.saturating_add(1);
        vec![event]
    }

    /// Returns when [`release`](Self::release) has to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.hold_until
    }

    /// Returns the held events, if they are due at `now`. That happens once.
    pub(super) fn release(&mut self, now: Instant) -> Option<Vec<Event>> {
        self.hold_until.take_if(|until| *until <= now)?;
        Some(self.deliver_held())
    }

    /// Returns the held events; they stay buffered.
    fn deliver_held(&mut self) -> Vec<Event> {
        let held = self.buffered.iter().skip(self.delivered).cloned().collect();
        self.delivered = self.buffered.len();
        held
    }

    /// Ends a confirmed assumption, and returns the events that were not delivered.
    pub(super) fn confirm(mut self) -> Vec<Event> {
        self.buffered.split_off(self.delivered)
    }

    /// Ends a refuted assumption, and returns the events to replay: all but those of a link by which the
    /// client joined because of the assumption, which it does not know.
    pub(super) fn revert(mut self) -> Vec<Event> {
        self.buffered.retain(|event| match event {
            Event::Relayed { side, .. } | Event::LinkEnded { side, .. } => *side == Side::Member,
            Event::Admitted { .. }
            | Event::BecameMember { .. }
            | Event::LinkedToMember { .. }
            | Event::LinkedToJoiner { .. }
            | Event::Refused(_)
            | Event::Undeliverable { .. }
            | Event::Evicted(_) => true,
        });
        self.buffered
    }
}

/// Returns true if the sender speaks sigver 16 or 18: a member of these sends nothing until its first
/// heartbeat. One of 15 would have answered the probe.
fn sender_is_server_first(event: &Event) -> bool {
    let Event::Relayed { sender, .. } = event else { return false };
    Dialect::from_tag(*sender)
        .map(Dialect::release)
        .is_some_and(|release| release.family() == Family::ProtobufV1 && !release.has_protobuf_pong())
}
