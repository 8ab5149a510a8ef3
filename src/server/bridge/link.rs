//! The bridge as rooms and its connection share it: the bridged keys, and the queues of the connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::key_table::{BridgedKeyCounts, BridgedKeyTable};
use crate::protocol::detect::Policy;
use crate::protocol::dialect::PeerProtocol;
use crate::protocol::mesh::{BridgeCall, BridgeFigures, BridgeMessage, MeshGroup, RoomNumber};
use crate::protocol::model::{Event, PeerId, RoomKey};
use crate::server::hub::{Membership, Outbox, RemoteReader, RoomBridge};
use crate::server::telemetry::{LimitKind, Telemetry};

/// Most bytes that wait for a bridge. It is disconnected when there are more.
const MAX_QUEUED: usize = 16 << 20;

/// Most bytes of events that wait to be handled before the clients that send them are not read.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// Most negotiations at the same time.
pub(super) const MAX_CALLS: usize = 4096;

/// The bridge of a gateway. Clones are not needed: it is shared.
#[derive(Debug)]
pub(in crate::server) struct BridgeLink {
    policy: Arc<Policy>,
    telemetry: Arc<Telemetry>,
    state: Mutex<LinkState>,
    next_caller: AtomicU32,
    counts: BridgeLinkCounts,
    pub(super) hung: HungBridge,
}

#[derive(Debug, Default)]
struct LinkState {
    table: BridgedKeyTable,
    connection: Option<Arc<BridgeQueues>>,
    figures: BridgeFigures,
}

/// The process of a bridge that was disconnected because it did not read or send.
#[derive(Debug, Default)]
pub(super) struct HungBridge {
    process: AtomicU32,
    reported: Notify,
}

impl HungBridge {
    /// Reports a process, by its id. One that is not known is that of no bridge.
    pub(super) fn report(&self, process: Option<u32>) {
        self.process.store(process.unwrap_or_default(), Ordering::Relaxed);
        self.reported.notify_waiters();
    }

    /// Waits until this process is reported.
    pub(super) async fn is(&self, process: u32) {
        loop {
            self.reported.notified().await;
            if self.process.load(Ordering::Relaxed) == process {
                return;
            }
        }
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct BridgeLinkCounts {
    pub(super) connections: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) callers: AtomicU64,
    pub(super) failed_calls: AtomicU64,
}

/// The queues of one connection: messages for the bridge, and events for its peers.
#[derive(Debug, Default)]
pub(super) struct BridgeQueues {
    messages: Mutex<MessageQueue>,
    events: Mutex<EventList>,
    /// Negotiations, also those that are not handled yet.
    pub(super) calls: AtomicUsize,
    pub(super) message_added: Notify,
    pub(super) event_added: Notify,
}

#[derive(Debug, Default)]
struct MessageQueue {
    bytes: BytesMut,
    is_over: bool,
}

#[derive(Debug, Default)]
struct EventList {
    events: VecDeque<PeerEvent>,
    bytes: usize,
    is_over: bool,
}

/// Something that happened to a peer of the bridge.
#[derive(Debug)]
pub(super) enum PeerEvent {
    /// A peer was created for a joiner.
    Added(u32, RoomKey, MeshGroup, Box<Membership>),
    /// A room sends an event.
    Event(BridgeCall, Event),
    /// The peer has to leave.
    Overflow(BridgeCall),
}

/// The way of events to a peer of the bridge.
#[derive(Debug)]
struct BridgeReader {
    queues: Arc<BridgeQueues>,
    peer: BridgeCall,
}

impl BridgeLink {
    pub(super) fn new(policy: &Arc<Policy>, telemetry: &Arc<Telemetry>) -> Arc<Self> {
        Arc::new(BridgeLink {
            policy: Arc::clone(policy),
            telemetry: Arc::clone(telemetry),
            state: Mutex::default(),
            next_caller: AtomicU32::new(0),
            counts: BridgeLinkCounts::default(),
            hung: HungBridge::default(),
        })
    }

    pub(super) fn counts(&self) -> &BridgeLinkCounts {
        &self.counts
    }

    /// Returns what the connected bridge knows of; `None` if none is connected.
    pub(super) fn reported(&self) -> Option<BridgedKeyCounts> {
        let state = self.state.lock();
        state.connection.is_some().then(|| state.table.counts())
    }

    /// Takes the figures of the bridge.
    pub(super) fn set_figures(&self, figures: BridgeFigures) {
        self.state.lock().figures = figures;
    }

    /// Returns the last figures of a bridge.
    pub(super) fn figures(&self) -> BridgeFigures {
        self.state.lock().figures
    }

    /// Begins with a bridge that is connected, and queues what it has to know.
    pub(super) fn connect(&self, instance: u32, queues: &Arc<BridgeQueues>) {
        let state = &mut *self.state.lock();
        state.table.connect(instance);
        state.figures = BridgeFigures::default();
        state.connection = Some(Arc::clone(queues));
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
        self.flush(state);
    }

    /// Ends the connection. No room hands over a peer after that.
    pub(super) fn disconnect(&self, queues: &BridgeQueues) {
        {
            let mut state = self.state.lock();
            state.table.disconnect();
            state.connection = None;
        }
        queues.messages.lock().is_over = true;
        let left = {
            let mut events = queues.events.lock();
            events.is_over = true;
            std::mem::take(&mut events.events)
        };
        // Peers leave their rooms, for which no lock must be held.
        drop(left);
    }

    /// Takes note that the bridge opened or closed an entry.
    pub(super) fn set_entry(&self, room: RoomNumber, group: MeshGroup, is_open: bool) {
        let state = &mut *self.state.lock();
        state.table.set_entry(room, group, is_open);
        self.flush(state);
    }

    /// Returns the client of an alias, and the key of its room.
    pub(super) fn target(&self, room: RoomNumber, group: MeshGroup, alias: u32) -> Option<(RoomKey, PeerId)> {
        let (key, peer) = self.state.lock().table.target(room, group, alias)?;
        Some((key.with_partition(peer_protocol(group).partition_id()), peer))
    }

    /// Returns the number of the key of a client that calls the bridge, which has to know it.
    pub(super) fn number_for_caller(&self, key: &RoomKey) -> Option<RoomNumber> {
        let state = &mut *self.state.lock();
        let number = state.table.number_for_caller(key);
        self.flush(state);
        number
    }

    /// Returns the queue of a new peer of the bridge.
    pub(super) fn outbox(&self, queues: &Arc<BridgeQueues>, peer: BridgeCall) -> Outbox {
        let reader = BridgeReader { queues: Arc::clone(queues), peer };
        Outbox::remote(Box::new(reader))
    }

    /// Counts a negotiation. Returns false if there must be no more.
    pub(super) fn add_call(&self, queues: &BridgeQueues) -> bool {
        let more = |count: usize| (count < MAX_CALLS).then_some(count.saturating_add(1));
        let is_added = queues.calls.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if !is_added {
            self.telemetry.count_limit(LimitKind::BridgeCalls);
        }
        is_added
    }

    /// Queues what the table has for the bridge.
    fn flush(&self, state: &mut LinkState) {
        let (messages, refused) = (state.table.take_messages(), state.table.take_refused());
        (0..refused).for_each(|_| self.telemetry.count_limit(LimitKind::BridgedKeys));
        if let Some(queues) = &state.connection {
            for message in &messages {
                self.send(queues, message);
            }
        }
    }

    /// Queues a message for the bridge.
    pub(super) fn send(&self, queues: &BridgeQueues, message: &BridgeMessage) {
        let mut queue = queues.messages.lock();
        if queue.is_over {
            return;
        }
        message.write(&mut queue.bytes);
        if queue.bytes.len() > MAX_QUEUED {
            queue.is_over = true;
            self.telemetry.count_limit(LimitKind::BridgeQueue);
        }
        drop(queue);
        queues.message_added.notify_one();
    }
}

impl RoomBridge for BridgeLink {
    fn set_members(&self, key: &RoomKey, members: &mut dyn Iterator<Item = PeerId>) {
        let Some(group) = group_of(key).filter(|_| self.policy.is_bridged(key.as_str())) else { return };
        let state = &mut *self.state.lock();
        state.table.set_members(key, group, members);
        self.flush(state);
    }

    fn open_entry(&self, key: &RoomKey) -> Option<(u32, Outbox)> {
        let group = group_of(key)?;
        let queues = {
            let state = self.state.lock();
            if !state.table.has_entry(key, group) {
                return None;
            }
            Arc::clone(state.connection.as_ref()?)
        };
        if !self.add_call(&queues) {
            return None;
        }
        let number = self.next_caller.fetch_add(1, Ordering::Relaxed);
        Some((number, self.outbox(&queues, BridgeCall { is_from_client: true, number })))
    }

    fn add_entry(&self, number: u32, key: &RoomKey, peer: Membership) {
        let queues = self.state.lock().connection.clone();
        if let Some((queues, group)) = queues.zip(group_of(key)) {
            queues.push(PeerEvent::Added(number, key.clone(), group, Box::new(peer)), 0);
        }
    }
}

impl BridgeQueues {
    /// Takes what is queued for the bridge; `None` if it must be disconnected.
    pub(super) fn take_messages(&self) -> Option<BytesMut> {
        let mut queue = self.messages.lock();
        (!queue.is_over).then(|| std::mem::take(&mut queue.bytes))
    }

    /// Takes the events of its peers. Returns true with them if senders may wait until they are taken.
    pub(super) fn take_events(&self) -> (VecDeque<PeerEvent>, bool) {
        let mut list = self.events.lock();
        let was_full = list.bytes > MAX_EVENT_BYTES;
        list.bytes = 0;
        (std::mem::take(&mut list.events), was_full)
    }

    fn push(&self, event: PeerEvent, bytes: usize) {
        let refused = {
            let mut list = self.events.lock();
            if list.is_over {
                Some(event)
            } else {
                list.bytes = list.bytes.saturating_add(bytes);
                list.events.push_back(event);
                None
            }
        };
        // A peer that is not taken leaves its room.
        drop(refused);
        self.event_added.notify_one();
    }

    fn is_full(&self) -> bool {
        self.events.lock().bytes > MAX_EVENT_BYTES
    }
}

impl RemoteReader for BridgeReader {
    fn send(&self, event: &Event) -> Option<Waker> {
        self.queues.push(PeerEvent::Event(self.peer, event.clone()), event.queued_bytes());
        None
    }

    fn is_full(&self) -> bool {
        self.queues.is_full()
    }

    fn notify(&self) {}

    fn overflow(&self) {
        self.queues.push(PeerEvent::Overflow(self.peer), 0);
    }
}

/// Returns the group of the clients in a room of a key that stands for several.
fn group_of(key: &RoomKey) -> Option<MeshGroup> {
    MeshGroup::ALL.iter().copied().find(|group| peer_protocol(*group).partition_id() == key.partition())
}

/// Returns the peer protocol of a group, by which signaling knows it.
pub(super) fn peer_protocol(group: MeshGroup) -> PeerProtocol {
    match group {
        MeshGroup::Netflux0 => PeerProtocol::Netflux0,
        MeshGroup::Netflux1 => PeerProtocol::Netflux1,
        MeshGroup::Netflux2 => PeerProtocol::Netflux2,
        MeshGroup::Netflux3 => PeerProtocol::Netflux3,
        MeshGroup::Netflux4 => PeerProtocol::Netflux4,
    }
}
