//! Messages of the gateway, and its absence.

use std::time::Instant;

use super::{
    BTreeSet, BridgeCall, BridgeCounts, BridgeEngine, BridgeMessage, BridgedRoom, MeshGroup, Room, RoomNumber,
};

impl BridgeEngine {
    /// Takes a message of the gateway.
    pub(crate) fn receive(&mut self, message: BridgeMessage, now: Instant) {
        match message {
            BridgeMessage::Arrived { room: number, group, target } => {
                let room = self.room(number);
                room.targets.insert((group, target));
                room.room.arrived(group, target, now);
                self.act(number, now);
            }
            BridgeMessage::Departed { room: number, group, target } => {
                if let Some(room) = self.rooms.get_mut(&number) {
                    room.targets.remove(&(group, target));
                    room.room.departed(group, target, now);
                }
                self.act(number, now);
            }
            BridgeMessage::Caller { call, room, group, offer } => {
                self.take_caller(call, room, group, offer, now);
            }
            BridgeMessage::Answer { call, answer } => {
                let Some(own) = self.own_calls.get_mut(&call.number).filter(|_| !call.is_from_client) else {
                    return;
                };
                own.is_answered = true;
                let (number, channel) = own.key;
                if let Some(room) = self.rooms.get_mut(&number) {
                    room.room.answered(channel, answer, now);
                }
                self.act(number, now);
            }
            BridgeMessage::End { call } => self.take_end(call, now),
            // These are not for the bridge.
            BridgeMessage::Hello { .. }
            | BridgeMessage::Call { .. }
            | BridgeMessage::Entry { .. }
            | BridgeMessage::Figures(_) => {}
        }
    }

    /// Sends a gateway that was connected what it has to know.
    pub(crate) fn connect_gateway(&mut self) {
        self.messages.clear();
        for (number, room) in &self.rooms {
            for group in &room.entries {
                let (room, group) = (*number, *group);
                self.messages.push(BridgeMessage::Entry { room, group, is_open: true });
            }
        }
    }

    /// The gateway is lost: no client can be called. What is open stays.
    pub(crate) fn lose_gateway(&mut self, now: Instant) {
        self.messages.clear();
        for own in std::mem::take(&mut self.own_calls).into_values().filter(|own| !own.is_answered) {
            let (number, channel) = own.key;
            self.connections.close(own.key, now);
            if let Some(room) = self.rooms.get_mut(&number) {
                room.room.closed(channel, now);
            }
        }
        self.calls.clear();
        let numbers: Vec<RoomNumber> = self.rooms.keys().copied().collect();
        for number in numbers {
            if let Some(room) = self.rooms.get_mut(&number) {
                for (group, target) in std::mem::take(&mut room.targets) {
                    room.room.departed(group, target, now);
                }
            }
            self.act(number, now);
        }
        self.messages.clear();
    }

    fn room(&mut self, number: RoomNumber) -> &mut Room {
        let (limits, rng) = (self.limits.room, &mut self.rng);
        self.rooms.entry(number).or_insert_with(|| Room {
            room: BridgedRoom::new(limits, rng.u64(..)),
            targets: BTreeSet::new(),
            entries: BTreeSet::new(),
            counted: BridgeCounts::default(),
            waiting: 0,
            is_changed: false,
        })
    }

    fn take_caller(
        &mut self,
        call: BridgeCall,
        number: RoomNumber,
        group: MeshGroup,
        offer: String,
        now: Instant,
    ) {
        let channel = self.rooms.get_mut(&number).and_then(|room| room.room.called(group, offer, now));
        match channel {
            Some(channel) => {
                self.calls.insert((number, channel), call);
            }
            None => self.messages.push(BridgeMessage::End { call }),
        }
        self.act(number, now);
    }

    /// Takes the end of a negotiation, which is the end of a call that was not answered.
    fn take_end(&mut self, call: BridgeCall, now: Instant) {
        self.calls.retain(|_, known| *known != call);
        let own = if call.is_from_client { None } else { self.own_calls.remove(&call.number) };
        let Some(own) = own.filter(|own| !own.is_answered) else { return };
        let (number, channel) = own.key;
        self.connections.close(own.key, now);
        if let Some(room) = self.rooms.get_mut(&number) {
            room.room.closed(channel, now);
        }
        self.act(number, now);
    }
}
