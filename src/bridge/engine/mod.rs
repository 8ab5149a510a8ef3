//! Bridged rooms and their peer connections: messages of the gateway, packets and times in; messages, packets
//! and counts out.

mod actions;
mod handshakes;
mod messages;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection_limits::PeerConnectionLimits;
use super::connections::{CloseCause, ConnectionEvent, ConnectionKey, Connections};
use super::deadlines::Deadlines;
use super::peer_connection::{Datagram, PeerConnectionError};
use super::str0m_connection::{Str0mConnection, Str0mShared};
use crate::protocol::mesh::{
    BridgeAction, BridgeCall, BridgeCounts, BridgeFigures, BridgeMessage, BridgedRoom, BridgedRoomLimits,
    MeshChannel, MeshGroup, RoomNumber,
};
use handshakes::{HandshakeLimits, Handshakes};

/// Bounds of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EngineLimits {
    /// Bounds of its connections.
    pub(crate) connections: PeerConnectionLimits,
    /// Bounds of each room.
    pub(crate) room: BridgedRoomLimits,
    /// Bounds of new connections.
    pub(crate) handshakes: HandshakeLimits,
}

#[derive(Debug)]
struct Room {
    room: BridgedRoom,
    targets: BTreeSet<(MeshGroup, u32)>,
    /// Groups in which joiners that find no member are callers.
    entries: BTreeSet<MeshGroup>,
    counted: BridgeCounts,
    /// Bytes that waited when they were last counted.
    waiting: usize,
    /// True if the deadline may be another one now.
    is_changed: bool,
}

/// A call of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnCall {
    key: ConnectionKey,
    is_answered: bool,
}

/// Bridged rooms with their peer connections.
#[derive(Debug)]
pub(crate) struct BridgeEngine {
    limits: EngineLimits,
    rng: fastrand::Rng,
    connections: Connections<Str0mConnection>,
    rooms: BTreeMap<RoomNumber, Room>,
    room_deadlines: Deadlines<RoomNumber>,
    /// Rooms whose deadlines are set by the next tick: once for all that a turn does in a room.
    changed_rooms: Vec<RoomNumber>,
    next_call: u32,
    own_calls: BTreeMap<u32, OwnCall>,
    /// Negotiations by their channels, of both kinds.
    calls: BTreeMap<ConnectionKey, BridgeCall>,
    handshakes: Handshakes,
    /// True since a connection was refused, until none waits.
    is_refusing: bool,
    /// Bytes that wait in rooms, before they wait for channels.
    waiting_in_rooms: usize,
    messages: Vec<BridgeMessage>,
    figures: BridgeFigures,
}

impl BridgeEngine {
    /// Creates an engine whose session descriptions name the addresses `locals`.
    ///
    /// # Errors
    ///
    /// The certificate cannot be created.
    pub(crate) fn new(
        locals: Vec<SocketAddr>,
        limits: EngineLimits,
        seed: u64,
        now: Instant,
    ) -> Result<Self, PeerConnectionError> {
        Ok(BridgeEngine {
            limits,
            rng: fastrand::Rng::with_seed(seed),
            connections: Connections::new(Str0mShared::new()?, locals, limits.connections),
            rooms: BTreeMap::new(),
            room_deadlines: Deadlines::new(),
            changed_rooms: Vec::new(),
            next_call: 0,
            own_calls: BTreeMap::new(),
            calls: BTreeMap::new(),
            handshakes: Handshakes::new(limits.handshakes, now),
            is_refusing: false,
            waiting_in_rooms: 0,
            messages: Vec::new(),
            figures: BridgeFigures::default(),
        })
    }

    /// Takes a packet. What follows from it is done by [`tick`](Self::tick). Returns the number of its
    /// connection, for [`charge`](Self::charge); `None` if it belongs to none.
    pub(crate) fn feed(&mut self, datagram: &Datagram<&[u8]>, now: Instant) -> Option<u32> {
        let connection = self.connections.feed(datagram, now);
        self.take_events(now);
        connection
    }

    /// Counts the processor time of a packet, and closes its connection if they take too much.
    pub(crate) fn charge(&mut self, connection: u32, work: Duration, now: Instant) {
        self.connections.charge(connection, work, now);
        self.take_events(now);
    }

    /// Closes the connections that very likely hold most memory.
    pub(crate) fn shed_incomplete(&mut self, now: Instant) {
        self.connections.shed_incomplete();
        self.take_events(now);
    }

    /// Does what is due, and sends what waits.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some(number) = self.room_deadlines.take_due(now) {
            if let Some(room) = self.rooms.get_mut(&number) {
                room.room.tick(now);
            }
            self.act(number, now);
        }
        self.start_waiting(now);
        self.connections.tick(now);
        self.take_events(now);
        // What the events had sent.
        while self.connections.has_unsent() {
            self.connections.tick(now);
            self.take_events(now);
        }
        for number in std::mem::take(&mut self.changed_rooms) {
            if let Some(room) = self.rooms.get_mut(&number) {
                room.is_changed = false;
                self.room_deadlines.set(number, room.room.deadline());
            }
        }
    }

    /// Returns the time of the next [`tick`](Self::tick), or an earlier one.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let changed = (!self.changed_rooms.is_empty()).then_some(now);
        let (rooms, handshakes) = (self.room_deadlines.next(), self.handshakes.deadline(now));
        [changed, self.connections.deadline(), rooms, handshakes].into_iter().flatten().min()
    }

    /// Returns packets to send.
    pub(crate) fn take_packets(&mut self) -> Vec<Datagram<Bytes>> {
        self.connections.take_packets()
    }

    /// Returns messages for the gateway.
    pub(crate) fn take_messages(&mut self) -> Vec<BridgeMessage> {
        std::mem::take(&mut self.messages)
    }

    /// Returns the figures.
    pub(crate) fn figures(&self) -> BridgeFigures {
        let mut figures = self.figures;
        figures.rooms = self.rooms.len() as u64;
        figures.channels = self.connections.len() as u64;
        figures.waiting_bytes = self.waiting_bytes() as u64;
        figures.unknown_packets = self.connections.unknown_packets();
        figures
    }

    /// Reports the figures to the gateway, which disconnects a process that sends nothing for some time.
    pub(crate) fn report(&mut self) {
        self.messages.push(BridgeMessage::Figures(self.figures()));
    }

    /// Has every stand-in leave. The process may end once there are no connections any more.
    pub(crate) fn stop(&mut self, now: Instant) {
        let numbers: Vec<RoomNumber> = self.rooms.keys().copied().collect();
        for number in numbers {
            if let Some(room) = self.rooms.get_mut(&number) {
                room.room.end(now);
            }
            self.act(number, now);
        }
        self.tick(now);
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.connections.next_event() {
            let (number, channel) = match event {
                ConnectionEvent::Opened(key)
                | ConnectionEvent::Frame(key, _)
                | ConnectionEvent::Closed(key, _) => key,
            };
            // Only a frame shows that the client's program has the channel: an end before that would be one
            // of a negotiation that failed.
            if !matches!(event, ConnectionEvent::Opened(_)) {
                self.end_call((number, channel));
            }
            let Some(room) = self.rooms.get_mut(&number) else { continue };
            match event {
                ConnectionEvent::Opened(_) => {
                    count(&mut self.figures.opened);
                    room.room.opened(channel, now);
                }
                ConnectionEvent::Frame(_, frame) => {
                    room.room.received(channel, frame, now);
                }
                ConnectionEvent::Closed(_, cause) => {
                    match cause {
                        CloseCause::Work => tracing::warn!(
                            room = number,
                            "closed a connection: its client's packets took too much processor time or memory"
                        ),
                        CloseCause::Share => tracing::warn!(
                            room = number,
                            "closed a connection: its client has more than are free for others"
                        ),
                        CloseCause::Remote | CloseCause::Silence | CloseCause::Waiting => {}
                    }
                    count(match cause {
                        CloseCause::Remote => &mut self.figures.closed,
                        CloseCause::Silence => &mut self.figures.silent,
                        CloseCause::Waiting | CloseCause::Work => &mut self.figures.overfull,
                        CloseCause::Share => &mut self.figures.refused,
                    });
                    room.room.closed(channel, now);
                }
            }
            self.act(number, now);
            self.shed(now);
        }
    }

    /// Cuts a pair in the room for which most waits, if too much waits in all.
    fn shed(&mut self, now: Instant) {
        if self.waiting_bytes() <= self.limits.connections.max_waiting_in_all {
            return;
        }
        let most = self.rooms.iter_mut().max_by_key(|(_, room)| room.waiting);
        if let Some((&number, room)) = most.filter(|(_, room)| room.waiting > 0) {
            room.room.shed(now);
            self.act(number, now);
        }
    }

    /// Returns the number of bytes that wait in rooms and for channels.
    fn waiting_bytes(&self) -> usize {
        self.connections.waiting().saturating_add(self.waiting_in_rooms)
    }

    /// Ends the negotiation of a channel, which needs it no more.
    fn end_call(&mut self, key: ConnectionKey) {
        if let Some(call) = self.calls.remove(&key) {
            self.own_calls.retain(|number, _| call.is_from_client || *number != call.number);
            self.messages.push(BridgeMessage::End { call });
        }
    }

    /// Forgets a room that has no one.
    fn forget_if_empty(&mut self, number: RoomNumber) {
        let is_empty =
            self.rooms.get(&number).is_some_and(|room| room.targets.is_empty() && room.room.stand_ins() == 0);
        if is_empty {
            let waiting = self.rooms.remove(&number).map_or(0, |room| room.waiting);
            self.waiting_in_rooms = self.waiting_in_rooms.saturating_sub(waiting);
            self.handshakes.forget(number);
            self.room_deadlines.set(number, None);
        }
    }
}

/// Adds one.
fn count(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
