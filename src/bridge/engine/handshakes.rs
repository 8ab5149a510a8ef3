//! New connections that wait for their turn. Rooms take turns, so that one in which clients ask for many does
//! not delay the others.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::{BridgeAction, MeshChannel, RoomNumber};
use crate::protocol::token_bucket::TokenBucket;

/// Most connections that are created before packets and messages are read again: each takes a key pair.
pub(super) const BATCH: usize = 8;
/// Delay before connections whose rates are used up are tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Bounds of new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HandshakeLimits {
    /// Most new connections per second.
    pub(crate) in_all: u32,
    /// Most new connections per second in one room.
    pub(crate) per_room: u32,
    /// Most that wait. More are refused.
    pub(crate) max_waiting: usize,
    /// Most that wait in one room. More are refused.
    pub(crate) max_waiting_per_room: usize,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        HandshakeLimits { in_all: 200, per_room: 40, max_waiting: 4_000, max_waiting_per_room: 400 }
    }
}

/// The channel of which an action creates a connection.
pub(super) fn created_channel(action: &BridgeAction) -> Option<MeshChannel> {
    match action {
        BridgeAction::Call { channel, .. }
        | BridgeAction::Offer { channel, .. }
        | BridgeAction::Answer { channel, .. } => Some(*channel),
        BridgeAction::Accept { .. }
        | BridgeAction::Send { .. }
        | BridgeAction::Close { .. }
        | BridgeAction::Entry { .. } => None,
    }
}

#[derive(Debug)]
struct RoomQueue {
    rate: TokenBucket,
    waiting: VecDeque<BridgeAction>,
}

/// New connections of all rooms that wait for their turn.
#[derive(Debug)]
pub(super) struct Handshakes {
    limits: HandshakeLimits,
    rate: TokenBucket,
    rooms: BTreeMap<RoomNumber, RoomQueue>,
    /// Rooms with connections that wait, in the order of their turns.
    turns: VecDeque<RoomNumber>,
    waiting: usize,
}

impl Handshakes {
    pub(super) fn new(limits: HandshakeLimits, now: Instant) -> Self {
        Handshakes {
            limits,
            rate: TokenBucket::full(now),
            rooms: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
        }
    }

    /// Returns the number of connections that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Has a connection wait. Returns it if too many wait already.
    pub(super) fn push(
        &mut self,
        number: RoomNumber,
        action: BridgeAction,
        now: Instant,
    ) -> Result<(), BridgeAction> {
        let new_queue = || RoomQueue { rate: TokenBucket::full(now), waiting: VecDeque::new() };
        let queue = self.rooms.entry(number).or_insert_with(new_queue);
        if self.waiting >= self.limits.max_waiting || queue.waiting.len() >= self.limits.max_waiting_per_room
        {
            return Err(action);
        }
        if queue.waiting.is_empty() {
            self.turns.push_back(number);
        }
        queue.waiting.push_back(action);
        self.waiting = self.waiting.saturating_add(1);
        Ok(())
    }

    /// Returns a connection to create now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(RoomNumber, BridgeAction)> {
        if !self.rate.has_token(self.limits.in_all, now) {
            return None;
        }
        for _ in 0..self.turns.len() {
            let number = self.turns.pop_front()?;
            let Some(queue) = self.rooms.get_mut(&number) else { continue };
            let action = match queue.rate.try_take(self.limits.per_room, now) {
                true => queue.waiting.pop_front(),
                false => None,
            };
            if !queue.waiting.is_empty() {
                self.turns.push_back(number);
            }
            if let Some(action) = action {
                self.rate.take(1, self.limits.in_all, now);
                self.waiting = self.waiting.saturating_sub(1);
                return Some((number, action));
            }
        }
        None
    }

    /// Returns the time at which connections that wait may be created, or an earlier one.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let is_due = || {
            let has_token = |number| {
                let queue: Option<&RoomQueue> = self.rooms.get(number);
                queue.is_some_and(|queue| queue.rate.has_token(self.limits.per_room, now))
            };
            self.rate.has_token(self.limits.in_all, now) && self.turns.iter().any(has_token)
        };
        match self.waiting {
            0 => None,
            _ if is_due() => Some(now),
            _ => now.checked_add(RETRY_INTERVAL),
        }
    }

    /// Drops the connection of a channel, if it waits.
    pub(super) fn cancel(&mut self, number: RoomNumber, channel: MeshChannel) {
        let Some(queue) = self.rooms.get_mut(&number) else { return };
        let before = queue.waiting.len();
        queue.waiting.retain(|action| created_channel(action) != Some(channel));
        let after = queue.waiting.len();
        self.waiting = self.waiting.saturating_sub(before.saturating_sub(after));
        if after == 0 {
            self.turns.retain(|waiting| *waiting != number);
        }
    }

    /// Forgets a room that ended.
    pub(super) fn forget(&mut self, number: RoomNumber) {
        if let Some(queue) = self.rooms.remove(&number) {
            self.waiting = self.waiting.saturating_sub(queue.waiting.len());
            self.turns.retain(|waiting| *waiting != number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(number: u32) -> MeshChannel {
        MeshChannel { peer: 0, number }
    }

    fn offer(number: u32) -> BridgeAction {
        BridgeAction::Offer { channel: channel(number), label: String::new() }
    }

    fn handshakes(now: Instant) -> Handshakes {
        let limits =
            HandshakeLimits { in_all: 100, per_room: 20, max_waiting: 300, max_waiting_per_room: 250 };
        Handshakes::new(limits, now)
    }

    fn fill(handshakes: &mut Handshakes, room: RoomNumber, count: u32, now: Instant) {
        for number in 0..count {
            handshakes.push(room, offer(number), now).unwrap();
        }
    }

    #[test]
    fn room_with_few_is_not_delayed_by_one_with_many() {
        let now = Instant::now();
        let mut handshakes = handshakes(now);
        fill(&mut handshakes, 1, 250, now);
        handshakes.push(2, offer(0), now).unwrap();
        let mut due = std::iter::from_fn(|| handshakes.take_due(now));
        assert!(due.by_ref().take(BATCH).any(|(number, _)| number == 2), "the second room waits");
    }

    #[test]
    fn rates_hold_in_a_room_and_in_all() {
        let start = Instant::now();
        let mut handshakes = handshakes(start);
        let taken =
            |handshakes: &mut Handshakes, now| std::iter::from_fn(|| handshakes.take_due(now)).count();
        fill(&mut handshakes, 1, 50, start);
        assert_eq!(handshakes.deadline(start), Some(start));
        assert_eq!(taken(&mut handshakes, start), 20);
        assert_eq!(handshakes.deadline(start), Some(start + RETRY_INTERVAL));
        assert_eq!(taken(&mut handshakes, start + Duration::from_millis(500)), 10);
        for room in 2..12 {
            fill(&mut handshakes, room, 20, start);
        }
        let later = start + Duration::from_secs(10);
        assert_eq!(taken(&mut handshakes, later), 100);
        assert_eq!(handshakes.waiting(), 250 - 130);
    }

    #[test]
    fn those_beyond_the_limits_are_returned_and_cancelled_ones_are_dropped() {
        let now = Instant::now();
        let mut handshakes = handshakes(now);
        fill(&mut handshakes, 1, 250, now);
        assert!(handshakes.push(1, offer(250), now).is_err());
        fill(&mut handshakes, 2, 50, now);
        assert!(handshakes.push(3, offer(0), now).is_err());
        handshakes.cancel(1, channel(7));
        assert_eq!(handshakes.waiting(), 299);
        handshakes.forget(1);
        assert_eq!(handshakes.waiting(), 50);
        (0..50).for_each(|number| handshakes.cancel(2, channel(number)));
        assert_eq!((handshakes.waiting(), handshakes.deadline(now)), (0, None));
        assert!(handshakes.take_due(now).is_none() && handshakes.turns.is_empty());
    }
}
