//! Actions that rooms ask for.

use std::time::Instant;

use super::handshakes::{BATCH, created_channel};
use super::{
    BridgeAction, BridgeCall, BridgeCounts, BridgeEngine, BridgeFigures, BridgeMessage, MeshChannel, OwnCall,
    PeerConnectionError, RoomNumber, count,
};

impl BridgeEngine {
    /// Does what a room asks for, until it asks for nothing.
    pub(super) fn act(&mut self, number: RoomNumber, now: Instant) {
        while let Some(room) = self.rooms.get_mut(&number) {
            let actions = room.room.take_actions();
            if actions.is_empty() {
                let counts = room.room.counts();
                let since = std::mem::replace(&mut room.counted, counts);
                add_counts(&mut self.figures, since, counts);
                let waiting = room.room.waiting_bytes();
                let before = std::mem::replace(&mut room.waiting, waiting);
                self.waiting_in_rooms = self.waiting_in_rooms.saturating_sub(before).saturating_add(waiting);
                if !std::mem::replace(&mut room.is_changed, true) {
                    self.changed_rooms.push(number);
                }
                break;
            }
            for action in actions {
                self.perform(number, action, now);
            }
        }
        self.forget_if_empty(number);
    }

    fn perform(&mut self, number: RoomNumber, action: BridgeAction, now: Instant) {
        match action {
            BridgeAction::Call { .. } | BridgeAction::Offer { .. } | BridgeAction::Answer { .. } => {
                self.wait_for_turn(number, action, now);
            }
            BridgeAction::Accept { channel, answer } => {
                if let Err(error) = self.connections.accept((number, channel), &answer, now) {
                    self.fail(number, channel, &error, now);
                }
            }
            BridgeAction::Send { channel, frame, is_urgent } => {
                self.connections.send((number, channel), frame, is_urgent);
            }
            BridgeAction::Close { channel } => {
                self.handshakes.cancel(number, channel);
                self.end_call((number, channel));
                self.connections.close((number, channel), now);
            }
            BridgeAction::Entry { group, is_open } => {
                if let Some(room) = self.rooms.get_mut(&number) {
                    if is_open {
                        room.entries.insert(group);
                    } else {
                        room.entries.remove(&group);
                    }
                }
                self.messages.push(BridgeMessage::Entry { room: number, group, is_open });
            }
        }
    }

    /// Returns true if a connection must not be created, as there are too many.
    fn is_full_for(&self, number: RoomNumber, action: &BridgeAction) -> bool {
        let via = created_channel(action).and_then(|channel| self.asked_over(number, channel));
        self.connections.is_full_in(number)
            || via.is_some_and(|via| self.connections.asks_too_much(number, via))
    }

    /// Returns the channel over which a client asked for another.
    fn asked_over(&self, number: RoomNumber, channel: MeshChannel) -> Option<MeshChannel> {
        self.rooms.get(&number)?.room.asked_over(channel)
    }

    /// Has a connection wait for its turn.
    fn wait_for_turn(&mut self, number: RoomNumber, action: BridgeAction, now: Instant) {
        let pushed = match self.is_full_for(number, &action) {
            true => Err(action),
            false => self.handshakes.push(number, action, now),
        };
        if let Err(action) = pushed {
            self.refuse(number, &action, now);
        }
    }

    /// Creates the connections whose turn it is.
    pub(super) fn start_waiting(&mut self, now: Instant) {
        for _ in 0..BATCH {
            // One at a time: what follows from it may cancel the next.
            let Some((number, action)) = self.handshakes.take_due(now) else { break };
            if self.is_full_for(number, &action) {
                self.refuse(number, &action, now);
                self.act(number, now);
            } else {
                self.create(number, action, now);
            }
        }
        if self.handshakes.waiting() == 0 && !self.connections.is_full() {
            self.is_refusing = false;
        }
    }

    fn refuse(&mut self, number: RoomNumber, action: &BridgeAction, now: Instant) {
        count(&mut self.figures.refused);
        if !std::mem::replace(&mut self.is_refusing, true) {
            tracing::warn!(
                connections = self.connections.len(),
                waiting = self.handshakes.waiting(),
                "connections are refused: there are too many"
            );
        }
        self.give_up(number, action, now);
    }

    fn create(&mut self, number: RoomNumber, action: BridgeAction, now: Instant) {
        let Some(channel) = created_channel(&action) else { return };
        let (key, mut target) = ((number, channel), None);
        let via = self.asked_over(number, channel);
        let described = match action {
            BridgeAction::Call { label, group, target: alias, .. } => {
                target = Some((group, alias));
                self.connections.offer(key, via, label, now)
            }
            BridgeAction::Offer { label, .. } => self.connections.offer(key, via, label, now),
            BridgeAction::Answer { offer, .. } => self.connections.answer(key, via, &offer, now),
            BridgeAction::Accept { .. }
            | BridgeAction::Send { .. }
            | BridgeAction::Close { .. }
            | BridgeAction::Entry { .. } => return,
        };
        let description = match described {
            Ok(description) => description,
            Err(error) => return self.fail(number, channel, &error, now),
        };
        if let Some(room) = self.rooms.get_mut(&number) {
            room.room.described(channel, &description, now);
        }
        if let Some((group, target)) = target {
            let call = BridgeCall { is_from_client: false, number: self.next_call };
            self.next_call = self.next_call.wrapping_add(1);
            self.own_calls.insert(call.number, OwnCall { key, is_answered: false });
            self.calls.insert(key, call);
            self.messages.push(BridgeMessage::Call { call, room: number, group, target, offer: description });
        } else if let Some(call) = self.calls.get(&key).copied() {
            self.messages.push(BridgeMessage::Answer { call, answer: description });
        }
        self.act(number, now);
    }

    /// Gives up a connection that was not created.
    fn give_up(&mut self, number: RoomNumber, action: &BridgeAction, now: Instant) {
        let Some(channel) = created_channel(action) else { return };
        self.end_call((number, channel));
        if let Some(room) = self.rooms.get_mut(&number) {
            room.room.closed(channel, now);
        }
    }

    fn fail(&mut self, number: RoomNumber, channel: MeshChannel, error: &PeerConnectionError, now: Instant) {
        tracing::debug!(room = number, %error, "a connection failed");
        count(&mut self.figures.failed);
        self.end_call((number, channel));
        self.connections.close((number, channel), now);
        if let Some(room) = self.rooms.get_mut(&number) {
            room.room.closed(channel, now);
        }
        self.act(number, now);
    }
}

/// Adds what a room counted since the last time.
fn add_counts(figures: &mut BridgeFigures, since: BridgeCounts, now: BridgeCounts) {
    let add = |all: &mut u64, since: u64, now: u64| *all = all.saturating_add(now.saturating_sub(since));
    add(&mut figures.messages, since.messages, now.messages);
    add(&mut figures.message_bytes, since.bytes, now.bytes);
    add(&mut figures.dropped, since.dropped, now.dropped);
    add(&mut figures.cut, since.cut, now.cut);
    add(&mut figures.delayed, since.delayed, now.delayed);
    add(&mut figures.too_fast, since.too_fast, now.too_fast);
    add(&mut figures.unbridged, since.unbridged, now.unbridged);
}
