//! Counts of what connections do, for metrics: relayed messages, ends, recognitions and queues. A server
//! without an admin listener has none of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::protocol::dialect::{Dialect, Evidence};
use crate::protocol::model::{Event, PeerId};

/// Number of copies of the counts of relayed messages, so that cores rarely write to the same one.
const SHARDS: u64 = 8;

/// Number of dialects, with one more for clients that are not recognised.
const DIALECTS: usize = Dialect::ALL.len() + 1;

/// Upper bounds of the times to recognition, in seconds: round trips of networks, then the timeouts of
/// detection.
const RECOGNITION_BOUNDS: [f64; 10] = [0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 5.0, 15.0, 60.0];

/// A label of a metric.
pub(crate) type Label = (&'static str, &'static str);

/// Counts of what connections do.
#[derive(Debug)]
pub(crate) struct Activity {
    relayed: Box<[RelayedMatrix]>,
    ends: Family<[Label; 2], Counter>,
    recognitions: Family<[Label; 1], Histogram, fn() -> Histogram>,
    longest_queue: AtomicU32,
}

/// Counts of relayed messages by sender (outer) and receiver.
type RelayedMatrix = [[RelayedCount; DIALECTS]; DIALECTS];

#[derive(Debug, Default)]
struct RelayedCount {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// Relayed messages between clients of two dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relayed {
    /// Dialect of the sender, if it is recognised.
    pub(crate) sender: Option<Dialect>,
    /// Dialect of the receiver, if it is recognised.
    pub(crate) receiver: Option<Dialect>,
    /// Number of messages.
    pub(crate) messages: u64,
    /// Length of their payloads.
    pub(crate) bytes: u64,
}

impl Default for Activity {
    fn default() -> Self {
        Activity {
            relayed: (0..SHARDS).map(|_| RelayedMatrix::default()).collect(),
            ends: Family::default(),
            recognitions: Family::new_with_constructor(|| Histogram::new(RECOGNITION_BOUNDS)),
            longest_queue: AtomicU32::new(0),
        }
    }
}

/// Position of a dialect in a [`RelayedMatrix`].
fn position(dialect: Option<Dialect>) -> usize {
    dialect.map_or(DIALECTS - 1, |dialect| dialect as usize)
}

impl Activity {
    /// Counts the relayed messages among events that `receiver` has taken from its queue, in which
    /// `still_queued` bytes are left.
    pub(crate) fn count_events(
        &self,
        receiver: PeerId,
        dialect: Option<Dialect>,
        events: &VecDeque<Event>,
        still_queued: u32,
    ) {
        let matrix = &self.relayed[(receiver.0 % SHARDS) as usize];
        let mut queued = still_queued as usize;
        for event in events {
            queued += event.queued_bytes();
            if let Event::Relayed { sender, message, .. } = event {
                let count = &matrix[position(Dialect::from_tag(*sender))][position(dialect)];
                count.messages.fetch_add(1, Ordering::Relaxed);
                count.bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
            }
        }
        self.count_queued(u32::try_from(queued).unwrap_or(u32::MAX));
    }

    /// Records the length of a queue, in bytes.
    fn count_queued(&self, bytes: u32) {
        // Rarely greater: a load is cheaper than a write to memory that all cores share.
        if bytes > self.longest_queue.load(Ordering::Relaxed) {
            self.longest_queue.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// Counts the end of a connection, in whose queue `still_queued` bytes are left.
    pub(crate) fn count_end(&self, side: &'static str, reason: &'static str, still_queued: u32) {
        self.count_queued(still_queued);
        self.ends.get_or_create(&[("side", side), ("reason", reason)]).inc();
    }

    /// Counts a client that was recognised as another dialect than before, `age` after its upgrade.
    pub(crate) fn count_recognition(&self, evidence: Evidence, age: Duration) {
        self.recognitions.get_or_create(&[("evidence", evidence.name())]).observe(age.as_secs_f64());
    }

    /// Returns the pairs of dialects between which messages were relayed.
    pub(crate) fn relayed(&self) -> Vec<Relayed> {
        let dialects = || Dialect::ALL.into_iter().map(Some).chain([None]);
        let mut all = Vec::new();
        for sender in dialects() {
            for receiver in dialects() {
                let (mut messages, mut bytes) = (0, 0);
                for matrix in &self.relayed {
                    let count = &matrix[position(sender)][position(receiver)];
                    messages += count.messages.load(Ordering::Relaxed);
                    bytes += count.bytes.load(Ordering::Relaxed);
                }
                if messages > 0 {
                    all.push(Relayed { sender, receiver, messages, bytes });
                }
            }
        }
        all
    }

    /// Ends of connections by `side` and `reason`.
    pub(crate) fn ends(&self) -> &Family<[Label; 2], Counter> {
        &self.ends
    }

    /// Times from the upgrade to recognition, in seconds, by `evidence`.
    pub(crate) fn recognitions(&self) -> &Family<[Label; 1], Histogram, fn() -> Histogram> {
        &self.recognitions
    }

    /// Returns the length of the longest queue so far, in bytes.
    pub(crate) fn longest_queue(&self) -> u32 {
        self.longest_queue.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::model::{LinkId, LinkMessage, Payload, Side};

    #[test]
    fn relayed_messages_are_counted_by_both_dialects() {
        let activity = Activity::default();
        let message =
            |len| LinkMessage::Data { payload: Payload::Bytes(Bytes::from(vec![0; len])), last: false };
        let event = |len| Event::Relayed {
            link: LinkId(1),
            side: Side::Member,
            message: message(len),
            sender: Dialect::Sigver9.tag(),
        };
        let events = VecDeque::from([event(3), Event::Admitted { first: true }, event(4)]);
        // Peers of different shards.
        activity.count_events(PeerId(1), Some(Dialect::Sigver20), &events, 0);
        activity.count_events(PeerId(2), Some(Dialect::Sigver20), &events, 0);
        activity.count_events(PeerId(3), None, &VecDeque::from([event(5)]), 1);
        let sender = Some(Dialect::Sigver9);
        assert_eq!(
            activity.relayed(),
            [
                Relayed { sender, receiver: Some(Dialect::Sigver20), messages: 4, bytes: 14 },
                Relayed { sender, receiver: None, messages: 1, bytes: 5 },
            ]
        );
        let taken: usize = events.iter().map(Event::queued_bytes).sum();
        assert_eq!(activity.longest_queue() as usize, taken);
        activity.count_end("client", "disconnected", 100_000);
        assert_eq!(activity.longest_queue(), 100_000);
    }
}
