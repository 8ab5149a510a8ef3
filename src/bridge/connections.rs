//! All peer connections of the process: which packet is whose, what waits for which channel, and what is due
//! when. Packets and times in; packets and events out.

mod closing;
mod incomplete;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use closing::Closing;
use incomplete::IncompleteBytes;
use rustc_hash::FxHashMap;

use super::client_shares::{ClientAddress, ClientShares};
use super::connection_limits::PeerConnectionLimits;
use super::deadlines::Deadlines;
use super::peer_connection::{Datagram, PeerConnection, PeerConnectionError, PeerConnectionOutput};
use super::send_queue::SendQueue;
use super::stun::local_username_fragment;
use crate::protocol::mesh::{ChannelFrame, MeshChannel, RoomNumber};

/// A channel of a room.
pub(super) type ConnectionKey = (RoomNumber, MeshChannel);

/// Most addresses from which the packets of one connection are taken.
const MAX_ADDRESSES: usize = 8;
/// Reason why a channel is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseCause {
    /// The client closed it, or the stack gave up.
    Remote,
    /// The client sent no checks.
    Silence,
    /// More bytes waited than may.
    Waiting,
    /// The client's packets took too much processor time or memory.
    Work,
    /// The client has more connections than are free for others.
    Share,
}

/// Something that happened to a channel.
#[derive(Debug)]
pub(super) enum ConnectionEvent {
    Opened(ConnectionKey),
    Frame(ConnectionKey, ChannelFrame),
    Closed(ConnectionKey, CloseCause),
}

#[derive(Debug)]
struct Connection<C> {
    stack: C,
    /// Unset once it is being closed.
    key: Option<ConnectionKey>,
    room: RoomNumber,
    /// The client, once a check was authentic.
    client: Option<ClientAddress>,
    /// The client that asked for it, until then.
    asker: Option<ClientAddress>,
    fragment: String,
    addresses: VecDeque<(SocketAddr, SocketAddr)>,
    queue: SendQueue,
    is_open: bool,
    last_check: Option<Instant>,
    closing: Option<Closing>,
    is_dirty: bool,
    /// About the bytes of which no frame was made so far.
    incomplete: IncompleteBytes,
    /// Packets of the connection are dropped.
    is_cut: bool,
}

impl<C> Connection<C> {
    /// Has the connection driven once more, as there is something to do.
    fn mark_dirty(&mut self, id: u32, dirty: &mut Vec<u32>) {
        if !std::mem::replace(&mut self.is_dirty, true) {
            dirty.push(id);
        }
    }
}

/// All peer connections.
#[derive(Debug)]
pub(super) struct Connections<C: PeerConnection> {
    shared: C::Shared,
    locals: Vec<SocketAddr>,
    limits: PeerConnectionLimits,
    connections: FxHashMap<u32, Connection<C>>,
    next: u32,
    by_key: BTreeMap<ConnectionKey, u32>,
    by_fragment: FxHashMap<String, u32>,
    /// Connections by their own address and that of the client, once a check was authentic.
    by_address: FxHashMap<(SocketAddr, SocketAddr), u32>,
    shares: ClientShares,
    deadlines: Deadlines<u32>,
    /// Connections with something to send.
    dirty: Vec<u32>,
    packets: Vec<Datagram<Bytes>>,
    events: VecDeque<ConnectionEvent>,
    waiting: usize,
    unknown_packets: u64,
}

fn later(now: Instant, duration: Duration) -> Instant {
    now.checked_add(duration).unwrap_or(now)
}

impl<C: PeerConnection> Connections<C> {
    pub(super) fn new(shared: C::Shared, locals: Vec<SocketAddr>, limits: PeerConnectionLimits) -> Self {
        Connections {
            shared,
            locals,
            limits,
            connections: FxHashMap::default(),
            next: 0,
            by_key: BTreeMap::new(),
            by_fragment: FxHashMap::default(),
            by_address: FxHashMap::default(),
            shares: ClientShares::default(),
            deadlines: Deadlines::new(),
            dirty: Vec::new(),
            packets: Vec::new(),
            events: VecDeque::new(),
            waiting: 0,
            unknown_packets: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Returns the number of packets that belong to no connection. None of them was answered.
    pub(super) fn unknown_packets(&self) -> u64 {
        self.unknown_packets
    }

    /// Returns the number of bytes that wait for channels.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns the number of connections that there can be beyond those that there are.
    fn free(&self) -> usize {
        self.limits.max_connections.saturating_sub(self.connections.len())
    }

    pub(super) fn is_full(&self) -> bool {
        self.free() == 0
    }

    /// Returns true if a room must have no more connections.
    pub(super) fn is_full_in(&self, room: RoomNumber) -> bool {
        let key = |peer, number| (room, MeshChannel { peer, number });
        let of_room = self.by_key.range(key(0, 0)..=key(u32::MAX, u32::MAX)).count();
        self.is_full() || of_room >= self.limits.max_connections_per_room
    }

    /// Returns true if the client that asks over `via` for connections must have no more of them: no check
    /// has arrived over as many as half of what the room may have.
    pub(super) fn asks_too_much(&self, room: RoomNumber, via: MeshChannel) -> bool {
        let most = self.limits.max_connections_per_room.div_ceil(2);
        self.client_of((room, via)).is_some_and(|client| self.shares.unanswered(room, client) >= most)
    }

    /// Returns the client of a channel, or the one that asked for it.
    fn client_of(&self, key: ConnectionKey) -> Option<ClientAddress> {
        let connection = self.connections.get(self.by_key.get(&key)?)?;
        connection.client.or(connection.asker)
    }

    /// Creates a connection that was asked for over `via`, and returns its offer.
    pub(super) fn offer(
        &mut self,
        key: ConnectionKey,
        via: Option<MeshChannel>,
        label: String,
        now: Instant,
    ) -> Result<String, PeerConnectionError> {
        let (stack, offer) = C::offer(&self.shared, &self.locals, label, now)?;
        self.add(key, via, stack, now);
        Ok(offer)
    }

    /// Creates a connection for an offer that arrived over `via`, and returns its answer.
    pub(super) fn answer(
        &mut self,
        key: ConnectionKey,
        via: Option<MeshChannel>,
        offer: &str,
        now: Instant,
    ) -> Result<String, PeerConnectionError> {
        let (stack, answer) = C::answer(&self.shared, &self.locals, offer, now)?;
        self.add(key, via, stack, now);
        Ok(answer)
    }

    fn add(&mut self, key: ConnectionKey, via: Option<MeshChannel>, mut stack: C, now: Instant) {
        let asker = via.and_then(|via| self.client_of((key.0, via)));
        if let Some(client) = asker {
            self.shares.add_unanswered(key.0, client);
        }
        let fragment = stack.username_fragment();
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.by_key.insert(key, id);
        self.by_fragment.insert(fragment.clone(), id);
        let connection = Connection {
            stack,
            key: Some(key),
            room: key.0,
            client: None,
            asker,
            fragment,
            addresses: VecDeque::new(),
            queue: SendQueue::default(),
            is_open: false,
            last_check: None,
            closing: None,
            is_dirty: false,
            incomplete: IncompleteBytes::default(),
            is_cut: false,
        };
        self.connections.insert(id, connection);
        self.drive(id, now);
    }

    /// Takes the answer to the offer of a connection.
    pub(super) fn accept(
        &mut self,
        key: ConnectionKey,
        answer: &str,
        now: Instant,
    ) -> Result<(), PeerConnectionError> {
        let Some(id) = self.by_key.get(&key).copied() else { return Ok(()) };
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let accepted = connection.stack.accept(answer);
        self.drive(id, now);
        accepted
    }

    /// Sends a frame, or has it wait.
    pub(super) fn send(&mut self, key: ConnectionKey, frame: ChannelFrame, is_urgent: bool) {
        let Some(id) = self.by_key.get(&key).copied() else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.waiting = self.waiting.saturating_sub(connection.queue.bytes());
        connection.queue.push(frame, is_urgent);
        self.waiting = self.waiting.saturating_add(connection.queue.bytes());
        connection.mark_dirty(id, &mut self.dirty);
        let is_over = connection.queue.bytes() > self.limits.max_waiting
            || self.waiting > self.limits.max_waiting_in_all;
        if is_over {
            self.lose(id, CloseCause::Waiting);
        }
    }

    /// Takes a packet. Returns the number of its connection. A packet that belongs to none is dropped.
    pub(super) fn feed(&mut self, datagram: &Datagram<&[u8]>, now: Instant) -> Option<u32> {
        let (address, free) = ((datagram.local, datagram.remote), self.free());
        let fragment = local_username_fragment(datagram.data);
        let id = match fragment {
            Some(fragment) => self.by_fragment.get(fragment),
            None => self.by_address.get(&address),
        };
        let Some((id, connection)) = id.copied().and_then(|id| Some((id, self.connections.get_mut(&id)?)))
        else {
            self.unknown_packets = self.unknown_packets.saturating_add(1);
            return None;
        };
        if connection.is_cut {
            return None;
        }
        if fragment.is_none() {
            connection.incomplete.add(datagram.data.len());
        }
        let mut is_over = false;
        if connection.stack.feed(datagram, now) {
            connection.last_check = Some(now);
            if let Some(asker) = connection.asker.take() {
                self.shares.remove_unanswered(connection.room, asker);
            }
            if connection.client.is_none() {
                let client = *connection.client.insert(datagram.remote.ip().into());
                is_over = !self.shares.add_connection(client, free);
            }
            // An address is another connection's until that one ends: its packets cannot be redirected.
            if !self.by_address.contains_key(&address) {
                if connection.addresses.len() >= MAX_ADDRESSES
                    && let Some(oldest) = connection.addresses.pop_front()
                {
                    self.by_address.remove(&oldest);
                }
                connection.addresses.push_back(address);
                self.by_address.insert(address, id);
            }
        }
        if is_over {
            self.lose(id, CloseCause::Share);
        }
        self.drive(id, now);
        Some(id)
    }

    /// Counts the processor time of a packet. A client can send pieces of messages whose reassembly takes far
    /// more time than the pieces do: a connection is closed at once with whose packets the client has taken
    /// more than its share, before it takes that of others.
    pub(super) fn charge(&mut self, id: u32, work: Duration, now: Instant) {
        let Some(Connection { room, client, .. }) = self.connections.get(&id) else { return };
        if !self.shares.charge(*room, *client, work, &self.limits, now) {
            self.cut(id);
        }
    }

    /// Closes a connection, and takes no more of its packets.
    fn cut(&mut self, id: u32) {
        self.lose(id, CloseCause::Work);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_cut = true;
        }
    }

    /// Sends what was given to [`send`](Self::send), and does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.dirty) {
            self.drive(id, now);
        }
        while let Some(id) = self.deadlines.take_due(now) {
            let is_silent = self.connections.get(&id).is_some_and(|connection| {
                connection.key.is_some() && self.silent_at(connection).is_some_and(|at| at <= now)
            });
            if is_silent {
                self.lose(id, CloseCause::Silence);
            }
            self.drive(id, now);
        }
    }

    /// Returns the time of the next [`tick`](Self::tick), or an earlier one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Returns what is to be sent.
    pub(super) fn take_packets(&mut self) -> Vec<Datagram<Bytes>> {
        std::mem::take(&mut self.packets)
    }

    pub(super) fn next_event(&mut self) -> Option<ConnectionEvent> {
        self.events.pop_front()
    }

    fn silent_at(&self, connection: &Connection<C>) -> Option<Instant> {
        connection.last_check.map(|at| later(at, self.limits.silence))
    }

    /// Reports that a channel is lost. What waits for it is dropped.
    fn lose(&mut self, id: u32, cause: CloseCause) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(key) = connection.key.take() else { return };
        self.waiting = self.waiting.saturating_sub(connection.queue.bytes());
        connection.queue = SendQueue::default();
        connection.stack.close_channel();
        self.by_key.remove(&key);
        self.events.push_back(ConnectionEvent::Closed(key, cause));
        connection.mark_dirty(id, &mut self.dirty);
    }

    /// Does all that a connection can do now.
    fn drive(&mut self, id: u32, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.is_dirty = false;
        let waited = connection.queue.bytes();
        let (mut is_closed, mut next) = (false, None);
        // Frames first: the packets in which they are sent are returned by the same poll.
        let next = loop {
            let mut is_sent = false;
            while let Some(frame) = connection.queue.first()
                && connection.is_open
                && !is_closed
                && connection.stack.send(frame, now)
            {
                connection.queue.pop();
                is_sent = true;
            }
            if let Some(next) = next
                && !is_sent
            {
                break next;
            }
            let (key, packets, events) = (connection.key, &mut self.packets, &mut self.events);
            let (is_open, incomplete) = (&mut connection.is_open, &mut connection.incomplete);
            next = Some(connection.stack.poll(now, &mut |output| match output {
                PeerConnectionOutput::Transmit(packet) => {
                    // Acknowledgements of what is sent arrive, of which no frame is made.
                    incomplete.credit_sent(packet.data.len());
                    packets.push(packet);
                }
                PeerConnectionOutput::Opened => {
                    *is_open = true;
                    events.extend(key.map(ConnectionEvent::Opened));
                }
                PeerConnectionOutput::Frame(frame) => {
                    incomplete.credit_frame(&frame);
                    events.extend(key.map(|key| ConnectionEvent::Frame(key, frame)));
                }
                PeerConnectionOutput::Closed => is_closed = true,
            }));
        };
        let waits = connection.queue.bytes();
        self.waiting = self.waiting.saturating_sub(waited).saturating_add(waits);
        if is_closed && connection.key.is_some() {
            self.lose(id, CloseCause::Remote);
        }
        self.settle(id, next, is_closed, now);
    }

    /// Gives the packets of an address to the only connection: a client's own checks are answered by a
    /// server that sent none.
    #[cfg(test)]
    pub(super) fn trust(&mut self, address: (SocketAddr, SocketAddr)) {
        for id in self.connections.keys() {
            self.by_address.entry(address).or_insert(*id);
        }
    }
}
