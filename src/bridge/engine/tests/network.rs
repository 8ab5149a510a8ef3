//! Clients, the gateway and the network of the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::{BridgeEngine, EngineLimits};
use crate::bridge::connection_limits::PeerConnectionLimits;
use crate::bridge::connections::{ConnectionEvent, Connections};
use crate::bridge::peer_connection::Datagram;
use crate::bridge::str0m_connection::{Str0mConnection, Str0mShared};
use crate::protocol::mesh::{
    BridgeCall, BridgeMessage, ChannelFrame, ChunkWriter, MeshChannel, MeshGroup, MeshPeer, MessageChunk,
    PeerAction,
};

type Received = Vec<(bool, Vec<u8>)>;

const STEP: Duration = Duration::from_millis(2);
const ROOM: u32 = 3;

struct Client {
    peer: MeshPeer,
    is_callable: bool,
    seen: BTreeSet<u32>,
    joins: u32,
    received: Received,
    connections: BTreeMap<MeshChannel, Connections<Str0mConnection>>,
    has_vanished: bool,
}

/// The other end of a negotiation by signaling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Caller {
    Bridge(BridgeCall),
    Client(usize, MeshChannel),
}

pub(super) struct Network {
    pub(super) engine: BridgeEngine,
    pub(super) now: Instant,
    shared: Str0mShared,
    clients: Vec<Client>,
    /// Negotiations by the channels of clients that answer.
    called: BTreeMap<(usize, MeshChannel), Caller>,
    callers: BTreeMap<BridgeCall, (usize, MeshChannel)>,
    owners: BTreeMap<SocketAddr, (usize, MeshChannel)>,
    /// Numbers of the engine's connections by client.
    pub(super) connections: BTreeMap<usize, BTreeSet<u32>>,
    entries: BTreeSet<MeshGroup>,
    packets: BTreeMap<(Instant, u64), Datagram<Bytes>>,
    sent: u64,
    /// Number of packets of more than 1,000 bytes that the engine sent.
    pub(super) long_packets: usize,
    loss: f64,
    rng: fastrand::Rng,
    has_gateway: bool,
    /// Clients that are called name another certificate than theirs.
    pub(super) forges_fingerprints: bool,
}

fn forged(description: &str) -> String {
    let (before, digest) = description.split_once("a=fingerprint:sha-256 ").unwrap();
    let (first, rest) = digest.split_at(2);
    let other = if first == "00" { "01" } else { "00" };
    format!("{before}a=fingerprint:sha-256 {other}{rest}")
}

fn server() -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, 1), 3478).into()
}

impl Network {
    pub(super) fn new(loss: f64, seed: u64) -> Self {
        Network::with_limits(EngineLimits::default(), loss, seed)
    }

    pub(super) fn with_limits(limits: EngineLimits, loss: f64, seed: u64) -> Self {
        let now = Instant::now();
        Network {
            engine: BridgeEngine::new(vec![server()], limits, seed, now).unwrap(),
            now,
            shared: Str0mShared::client(),
            clients: Vec::new(),
            called: BTreeMap::new(),
            callers: BTreeMap::new(),
            owners: BTreeMap::new(),
            connections: BTreeMap::new(),
            entries: BTreeSet::new(),
            packets: BTreeMap::new(),
            sent: 0,
            long_packets: 0,
            loss,
            rng: fastrand::Rng::with_seed(seed),
            has_gateway: true,
            forges_fingerprints: false,
        }
    }

    fn add(&mut self, group: MeshGroup, is_callable: bool) -> usize {
        let number = self.clients.len();
        self.clients.push(Client {
            peer: MeshPeer::new(group, number as u32, 1_000_000 + number as u32),
            is_callable,
            seen: BTreeSet::new(),
            joins: 0,
            received: Vec::new(),
            connections: BTreeMap::new(),
            has_vanished: false,
        });
        number
    }

    fn arrived(&self, client: usize) -> BridgeMessage {
        let group = self.clients[client].peer.group();
        BridgeMessage::Arrived { room: ROOM, group, target: client as u32 }
    }

    pub(super) fn opener(&mut self, group: MeshGroup) -> usize {
        let client = self.add(group, true);
        self.clients[client].peer.open_entry(5);
        self.engine.receive(self.arrived(client), self.now);
        client
    }

    /// A client joins through another.
    pub(super) fn joiner(&mut self, group: MeshGroup, through: Option<usize>) -> usize {
        let client = self.add(group, false);
        let now = self.now;
        let own = self.clients[client].peer.join(now).unwrap();
        let offer = self.offer_of(client, own);
        match through {
            Some(member) => {
                let channel =
                    self.clients[member].peer.called(offer, 2_000_000 + client as u32, now).unwrap();
                self.called.insert((member, channel), Caller::Client(client, own));
            }
            None => {
                let call = BridgeCall { is_from_client: true, number: client as u32 };
                self.callers.insert(call, (client, own));
                self.engine.receive(BridgeMessage::Caller { call, room: ROOM, group, offer }, now);
            }
        }
        client
    }

    pub(super) fn joiner_at_entry(&mut self, group: MeshGroup) -> usize {
        // The gateway counts the joiner as present once it has arrived; here the entry has to be open.
        self.run_until(Duration::from_secs(5), |network| network.entries.contains(&group));
        self.joiner(group, None)
    }

    /// The offer that a client has just been asked for.
    fn offer_of(&mut self, client: usize, channel: MeshChannel) -> String {
        let actions = self.clients[client].peer.take_actions();
        let [PeerAction::Offer { label, .. }] = &actions[..] else { panic!("{actions:?}") };
        let now = self.now;
        self.connect(client, channel).offer((0, channel), None, label.clone(), now).unwrap()
    }

    fn connect(&mut self, client: usize, channel: MeshChannel) -> &mut Connections<Str0mConnection> {
        let port = 20_000 + self.owners.len() as u16;
        let address: SocketAddr = (Ipv4Addr::new(10, 0, 1, client as u8), port).into();
        self.owners.insert(address, (client, channel));
        // A client waits longer than the bridge.
        let limits = PeerConnectionLimits { silence: Duration::from_secs(3_600), ..Default::default() };
        let connections = Connections::new(self.shared.clone(), vec![address], limits);
        self.clients[client].connections.entry(channel).or_insert(connections)
    }

    pub(super) fn leave(&mut self, client: usize) {
        self.clients[client].peer.leave();
        let (group, target) = (self.clients[client].peer.group(), client as u32);
        self.step();
        self.engine.receive(BridgeMessage::Departed { room: ROOM, group, target }, self.now);
    }

    pub(super) fn vanish(&mut self, client: usize) {
        self.clients[client].has_vanished = true;
    }

    pub(super) fn lose_gateway(&mut self) {
        self.has_gateway = false;
        self.engine.lose_gateway(self.now);
    }

    pub(super) fn connect_gateway(&mut self) {
        self.has_gateway = true;
        self.engine.connect_gateway();
        for client in (0..self.clients.len()).filter(|client| self.clients[*client].is_callable) {
            self.engine.receive(self.arrived(client), self.now);
        }
    }

    pub(super) fn feed_from_stranger(&mut self, data: &[u8]) {
        let remote = (Ipv4Addr::new(192, 0, 2, 9), 9).into();
        self.engine.feed(&Datagram { local: server(), remote, data }, self.now);
    }

    pub(super) fn seen(&self) -> Vec<usize> {
        self.clients.iter().map(|client| client.seen.len()).collect()
    }

    pub(super) fn joins(&self) -> Vec<u32> {
        self.clients.iter().map(|client| client.joins).collect()
    }

    pub(super) fn received(&self, client: usize) -> Received {
        self.clients[client].received.clone()
    }

    /// A client sends to all that it sees, as netflux does.
    pub(super) fn send(&mut self, client: usize, is_text: bool, data: &[u8]) {
        let sender = &mut self.clients[client];
        let whole = MessageChunk {
            message: 1,
            is_text,
            is_broadcast: true,
            total: data.len() as u32,
            offset: 0,
            data: data.to_vec().into(),
        };
        let mut parts = Vec::new();
        ChunkWriter::new(sender.peer.group(), u32::MAX, 9).push(&whole, &mut parts).unwrap();
        for member in sender.seen.clone() {
            for part in &parts {
                assert!(sender.peer.send(member, true, part));
            }
        }
    }

    /// A client sends one frame, which netflux would not make as long.
    pub(super) fn send_frame(&mut self, client: usize, data: &[u8]) {
        let (channel, connections) = self.clients[client].connections.iter_mut().next().unwrap();
        connections.send((0, *channel), ChannelFrame::Binary(data.to_vec().into()), false);
    }

    /// A client asks its first neighbor for channels to peers that it invents, as clients of netflux 1.0 ask.
    pub(super) fn ask_for_invented(&mut self, client: usize, count: u32) {
        let neighbor = *self.clients[client].seen.first().unwrap();
        for invented in 5_000..5_000 + count {
            let mut frame = [&[2][..], &invented.to_be_bytes(), &neighbor.to_be_bytes()].concat();
            frame.extend_from_slice(br#"{"serviceId":2,"data":{"connectors":[0]}}"#);
            self.send_frame(client, &frame);
        }
    }

    /// Most bytes of a connection of which no frame was made.
    pub(super) fn incomplete(&self) -> usize {
        self.engine.connections.most_incomplete()
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }

    /// Runs until a condition holds, and fails if it does not within `limit`.
    pub(super) fn run_until(&mut self, limit: Duration, is_met: impl Fn(&Network) -> bool) {
        let end = self.now + limit;
        while !is_met(self) {
            let figures = self.engine.figures();
            assert!(self.now < end, "after {limit:?}: {:?}, {figures:?}", self.seen());
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        while let Some(packet) = self.packets.first_entry().filter(|first| first.key().0 <= self.now) {
            let packet = packet.remove();
            let datagram = Datagram { local: packet.remote, remote: packet.local, data: &packet.data[..] };
            if packet.remote == server() {
                let connection = self.engine.feed(&datagram, self.now);
                let (client, _) = self.owners[&packet.local];
                self.connections.entry(client).or_default().extend(connection);
            } else if let Some((client, channel)) = self.owners.get(&packet.remote)
                && let Some(connections) = self.clients[*client].connections.get_mut(channel)
            {
                connections.trust((datagram.local, datagram.remote));
                connections.feed(&datagram, self.now);
            }
        }
        self.engine.tick(self.now);
        for message in self.engine.take_messages() {
            self.signal(message);
        }
        let packets = self.engine.take_packets();
        self.long_packets += packets.iter().filter(|packet| packet.data.len() > 1_000).count();
        self.transmit(packets);
        for client in 0..self.clients.len() {
            if !self.clients[client].has_vanished {
                self.step_client(client);
            }
        }
    }

    fn transmit(&mut self, packets: Vec<Datagram<Bytes>>) {
        for packet in packets {
            self.sent += 1;
            if self.rng.f64() >= self.loss {
                // Some overtake others.
                let delay = Duration::from_millis(self.rng.u64(2..7));
                self.packets.insert((self.now + delay, self.sent), packet);
            }
        }
    }

    fn signal(&mut self, message: BridgeMessage) {
        assert!(self.has_gateway, "without the gateway: {message:?}");
        match message {
            BridgeMessage::Call { call, target, offer, .. } => {
                let client = target as usize;
                let id = 3_000_000 + call.number;
                match self.clients[client].peer.called(offer, id, self.now) {
                    Some(channel) => {
                        self.called.insert((client, channel), Caller::Bridge(call));
                    }
                    None => self.engine.receive(BridgeMessage::End { call }, self.now),
                }
            }
            BridgeMessage::Answer { call, answer } => {
                let (client, channel) = self.callers[&call];
                self.clients[client].peer.answered(channel, answer);
            }
            BridgeMessage::Entry { group, is_open: true, .. } => {
                self.entries.insert(group);
            }
            BridgeMessage::Entry { group, is_open: false, .. } => {
                self.entries.remove(&group);
            }
            BridgeMessage::End { .. } => {}
            message => panic!("not for the gateway: {message:?}"),
        }
    }

    fn step_client(&mut self, number: usize) {
        let now = self.now;
        let client = &mut self.clients[number];
        if client.peer.deadline().is_some_and(|deadline| deadline <= now) {
            client.peer.tick(now);
        }
        let mut packets = Vec::new();
        for connections in client.connections.values_mut() {
            connections.tick(now);
            while let Some(event) = connections.next_event() {
                match event {
                    ConnectionEvent::Opened((_, channel)) => client.peer.opened(channel, now),
                    ConnectionEvent::Frame((_, channel), frame) => client.peer.received(channel, frame, now),
                    ConnectionEvent::Closed((_, channel), _) => client.peer.closed(channel),
                }
            }
            packets.extend(connections.take_packets());
        }
        self.transmit(packets);
        loop {
            let actions = self.clients[number].peer.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.act(number, action);
            }
        }
    }

    fn act(&mut self, number: usize, action: PeerAction) {
        let now = self.now;
        match action {
            PeerAction::Offer { channel, label } => {
                let offer = self.connect(number, channel).offer((0, channel), None, label, now).unwrap();
                self.clients[number].peer.described(channel, &offer);
            }
            PeerAction::Answer { channel, offer } => {
                let answer = self.connect(number, channel).answer((0, channel), None, &offer, now).unwrap();
                let answer = if self.forges_fingerprints { forged(&answer) } else { answer };
                self.clients[number].peer.described(channel, &answer);
                match self.called.get(&(number, channel)).copied() {
                    Some(Caller::Bridge(call)) => {
                        self.engine.receive(BridgeMessage::Answer { call, answer }, now);
                    }
                    Some(Caller::Client(caller, own)) => self.clients[caller].peer.answered(own, answer),
                    None => {}
                }
            }
            PeerAction::Accept { channel, answer } => {
                if let Some(connections) = self.clients[number].connections.get_mut(&channel) {
                    connections.accept((0, channel), &answer, now).unwrap();
                }
            }
            PeerAction::Send { channel, frame, is_urgent } => {
                if let Some(connections) = self.clients[number].connections.get_mut(&channel) {
                    connections.send((0, channel), frame, is_urgent);
                }
            }
            PeerAction::Close { channel } => {
                if let Some(connections) = self.clients[number].connections.get_mut(&channel) {
                    connections.close((0, channel), now);
                }
            }
            PeerAction::MemberJoined { member } => {
                self.clients[number].joins += 1;
                assert!(self.clients[number].seen.insert(member));
            }
            PeerAction::MemberLeft { member } => assert!(self.clients[number].seen.remove(&member)),
            PeerAction::Received { chunk, .. } | PeerAction::ReceivedEarly { chunk } => {
                let received = &mut self.clients[number].received;
                if chunk.offset == 0 {
                    received.push((chunk.is_text, Vec::new()));
                }
                let data = &mut received.last_mut().unwrap().1;
                assert_eq!(data.len(), chunk.offset as usize);
                data.extend_from_slice(&chunk.data);
            }
            PeerAction::Joined
            | PeerAction::Forward { .. }
            | PeerAction::Departed { .. }
            | PeerAction::Failed => {}
        }
    }
}
