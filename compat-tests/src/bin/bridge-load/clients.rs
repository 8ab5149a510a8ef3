//! Clients in rooms of two and two: netflux 0.10.3 and 1.0, each with an opener and a joiner. Those of one
//! group are connected in memory, and send messages to the others alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use rustix::event::epoll;
use sigver::protocol::mesh::{
    BridgeCall, BridgeFigures, BridgeMessage, ChannelFrame, ChunkWriter, MeshChannel, MeshGroup, MeshPeer,
    MessageChunk, PeerAction,
};
use str0m::RtcConfig;

use crate::channel::{Channel, ChannelEvent};
use crate::gateway::Bridge;

/// Interval at which timers are looked at.
const TIMER_INTERVAL: Duration = Duration::from_millis(5);
/// Number of the bridge's socket among those that are waited for.
const BRIDGE: u64 = u64::MAX;
/// Offer of a channel between two clients of one group.
const IN_MEMORY: &str = "in memory";

/// A client.
struct Client {
    peer: MeshPeer,
    /// Id of the other client of the group.
    partner_id: u32,
    /// Members that it sees.
    seen: BTreeSet<u32>,
    sent: u32,
    next_message: Option<Instant>,
    /// Number of the next message of each member.
    expected: BTreeMap<u32, u32>,
}

/// Measured values.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Microseconds from sending to receiving.
    pub(crate) delays: Vec<u32>,
    /// Members that were lost without having left.
    pub(crate) lost_members: u64,
    pub(crate) figures: BridgeFigures,
}

/// All clients, and the gateway's end of the bridge.
pub(crate) struct Clients {
    pub(crate) bridge: Bridge,
    configuration: RtcConfig,
    epoll: rustix::fd::OwnedFd,
    start: Instant,
    interval: Duration,
    length: usize,
    clients: HashMap<u32, Client>,
    next_client: u32,
    rooms: VecDeque<(u32, [u32; 4])>,
    next_room: u32,
    channels: HashMap<u64, ((u32, MeshChannel), Channel)>,
    by_key: HashMap<(u32, MeshChannel), u64>,
    next_channel: u64,
    in_memory: HashMap<(u32, MeshChannel), (u32, MeshChannel)>,
    frames: VecDeque<(u32, MeshChannel, ChannelFrame)>,
    calls: HashMap<(u32, MeshChannel), BridgeCall>,
    next_timers: Instant,
    pub(crate) measured: Measured,
}

impl Clients {
    pub(crate) fn new(bridge: Bridge, rate: f64, length: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, bridge.stream(), epoll::EventData::new_u64(BRIDGE), epoll::EventFlags::IN)?;
        let start = Instant::now();
        Ok(Clients {
            bridge,
            configuration: crate::channel::configuration()?,
            epoll,
            start,
            interval: Duration::from_secs_f64(1.0 / rate),
            length,
            clients: HashMap::new(),
            next_client: 0,
            rooms: VecDeque::new(),
            next_room: 0,
            channels: HashMap::new(),
            by_key: HashMap::new(),
            next_channel: 0,
            in_memory: HashMap::new(),
            frames: VecDeque::new(),
            calls: HashMap::new(),
            next_timers: start,
            measured: Measured::default(),
        })
    }

    /// Opens a room of four.
    pub(crate) fn open_room(&mut self) -> Result<()> {
        let room = self.next_room;
        self.next_room += 1;
        let mut members = [0; 4];
        for (group, pair) in [MeshGroup::Netflux0, MeshGroup::Netflux1].into_iter().zip(members.chunks_mut(2))
        {
            let (opener, joiner) = (self.next_client, self.next_client + 1);
            self.next_client += 2;
            for client in [opener, joiner] {
                let peer = MeshPeer::new(group, client, 1_000_000 + client);
                let client_of_room = Client {
                    peer,
                    partner_id: 0,
                    seen: BTreeSet::new(),
                    sent: 0,
                    next_message: None,
                    expected: BTreeMap::new(),
                };
                self.clients.insert(client, client_of_room);
            }
            pair.copy_from_slice(&[opener, joiner]);
            self.join(opener, joiner)?;
            self.bridge.send(&[BridgeMessage::Arrived { room, group, target: opener }])?;
        }
        self.rooms.push_back((room, members));
        Ok(())
    }

    fn client(&mut self, client: u32) -> Result<&mut Client> {
        self.clients.get_mut(&client).context("no such client")
    }

    /// Connects the two clients of a group.
    fn join(&mut self, opener: u32, joiner: u32) -> Result<()> {
        let now = Instant::now();
        self.client(opener)?.peer.open_entry(5);
        let own = self.client(joiner)?.peer.join(now).context("no channel")?;
        self.client(joiner)?.peer.take_actions();
        let theirs = self.client(opener)?.peer.called(IN_MEMORY.to_owned(), 2_000_000 + joiner, now);
        let theirs = theirs.context("no channel")?;
        self.in_memory.insert((joiner, own), (opener, theirs));
        self.in_memory.insert((opener, theirs), (joiner, own));
        self.settle(opener)?;
        self.client(joiner)?.peer.answered(own, IN_MEMORY.to_owned());
        self.settle(joiner)?;
        for (client, channel) in [(opener, theirs), (joiner, own)] {
            self.client(client)?.peer.opened(channel, now);
            self.settle(client)?;
        }
        self.deliver()?;
        for (client, partner) in [(opener, joiner), (joiner, opener)] {
            let id = self.client(partner)?.peer.id();
            self.client(client)?.partner_id = id;
        }
        ensure!(self.client(joiner)?.peer.is_member(), "the joiner is no member");
        Ok(())
    }

    /// Closes the oldest room. Its clients have received all that was sent.
    pub(crate) fn close_room(&mut self) -> Result<()> {
        let Some((room, members)) = self.rooms.pop_front() else { return Ok(()) };
        let (received, sent) = self.counts(&members);
        ensure!(received == sent, "room {room}: {received} of {sent} messages");
        for client in members {
            let group = self.client(client)?.peer.group();
            self.client(client)?.seen.clear();
            self.client(client)?.peer.leave();
            self.settle(client)?;
            self.bridge.send(&[BridgeMessage::Departed { room, group, target: client }])?;
        }
        self.deliver()?;
        for client in members {
            self.clients.remove(&client);
            self.in_memory.retain(|(owner, _), _| *owner != client);
            self.calls.retain(|(owner, _), _| *owner != client);
            let numbers: Vec<u64> = self
                .channels
                .iter()
                .filter(|(_, ((owner, _), _))| *owner == client)
                .map(|(n, _)| *n)
                .collect();
            numbers.into_iter().for_each(|number| self.remove(number));
        }
        Ok(())
    }

    /// Returns how many messages the members of a room have received, and how many were sent to them.
    fn counts(&self, members: &[u32]) -> (u64, u64) {
        members.iter().filter_map(|member| self.clients.get(member)).fold(
            (0, 0),
            |(received, sent), client| {
                let of_client: u64 = client.expected.values().map(|n| u64::from(*n)).sum();
                (received + of_client, sent + u64::from(client.sent) * 2)
            },
        )
    }

    /// Returns whether all that was sent in the oldest rooms has arrived.
    pub(crate) fn is_drained(&self, rooms: usize) -> bool {
        self.rooms.iter().take(rooms).all(|(_, members)| {
            let (received, sent) = self.counts(members);
            received == sent
        })
    }

    /// Returns the number of rooms in which all see all others.
    pub(crate) fn complete_rooms(&self) -> usize {
        let is_complete =
            |member: &u32| self.clients.get(member).is_some_and(|client| client.seen.len() == 3);
        self.rooms.iter().filter(|(_, members)| members.iter().all(is_complete)).count()
    }

    /// Starts the messages of all rooms that are complete, or stops those of all rooms or of the oldest.
    pub(crate) fn set_sending(&mut self, is_on: bool, rooms: usize) {
        let members: Vec<u32> = self.rooms.iter().take(rooms).flat_map(|(_, members)| *members).collect();
        let now = Instant::now();
        for (at, member) in members.into_iter().enumerate() {
            let Some(client) = self.clients.get_mut(&member) else { continue };
            // Not all at the same time.
            let phase = self.interval.mul_f64((at as f64 * 0.618).fract());
            client.next_message = match (is_on, client.next_message) {
                (true, None) if client.seen.len() == 3 => Some(now + phase),
                (true, before) => before,
                (false, _) => None,
            };
        }
    }

    /// Does what there is to do for some time.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        let mut ready: Vec<epoll::Event> = Vec::with_capacity(256);
        let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        while Instant::now() < end {
            ready.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&wait))?;
            for number in ready.iter().map(|event| event.data.u64()) {
                if number == BRIDGE {
                    self.take_messages()?;
                } else {
                    self.drive(number, true)?;
                }
            }
            if Instant::now() >= self.next_timers {
                self.next_timers = Instant::now() + TIMER_INTERVAL;
                self.timers()?;
            }
        }
        Ok(())
    }

    fn timers(&mut self) -> Result<()> {
        let now = Instant::now();
        let due: Vec<u64> =
            self.channels.iter().filter(|(_, (_, channel))| channel.is_due(now)).map(|(n, _)| *n).collect();
        for number in due {
            self.drive(number, false)?;
        }
        let due = |client: &Client| {
            client.next_message.is_some_and(|at| at <= now)
                || client.peer.deadline().is_some_and(|at| at <= now)
        };
        let due: Vec<u32> =
            self.clients.iter().filter(|(_, client)| due(client)).map(|(number, _)| *number).collect();
        for number in due {
            let client = self.client(number)?;
            if client.peer.deadline().is_some_and(|at| at <= now) {
                client.peer.tick(now);
            }
            while let Some(at) = self.client(number)?.next_message.filter(|at| *at <= now) {
                let interval = self.interval;
                self.client(number)?.next_message = Some(at + interval);
                self.send_message(number)?;
            }
            self.settle(number)?;
        }
        self.deliver()
    }

    /// A client sends a message to the members of the other group.
    fn send_message(&mut self, number: u32) -> Result<()> {
        let (length, start) = (self.length, self.start);
        let client = self.client(number)?;
        let mut data = client.sent.to_be_bytes().to_vec();
        data.extend((start.elapsed().as_micros() as u64).to_be_bytes());
        data.resize(length.max(data.len()), 0);
        client.sent += 1;
        let total = data.len() as u32;
        let chunk = MessageChunk {
            message: 0,
            is_text: false,
            is_broadcast: true,
            total,
            offset: 0,
            data: data.into(),
        };
        let mut written: Vec<Bytes> = Vec::new();
        ChunkWriter::new(client.peer.group(), u32::MAX, 0).push(&chunk, &mut written)?;
        let partner = client.partner_id;
        let receivers: Vec<u32> = client.seen.iter().copied().filter(|id| *id != partner).collect();
        for receiver in &receivers {
            for part in &written {
                ensure!(client.peer.send(*receiver, true, part), "a member that is seen is not connected");
            }
        }
        self.measured.sent += receivers.len() as u64;
        Ok(())
    }

    fn take_messages(&mut self) -> Result<()> {
        for message in self.bridge.receive()? {
            match message {
                BridgeMessage::Call { call, target, offer, .. } => {
                    let now = Instant::now();
                    let id = 3_000_000 + call.number;
                    let channel =
                        self.clients.get_mut(&target).and_then(|client| client.peer.called(offer, id, now));
                    match channel {
                        Some(channel) => {
                            self.calls.insert((target, channel), call);
                            self.settle(target)?;
                        }
                        None => self.bridge.send(&[BridgeMessage::End { call }])?,
                    }
                }
                BridgeMessage::Figures(figures) => self.measured.figures = figures,
                BridgeMessage::Hello { .. } | BridgeMessage::End { .. } | BridgeMessage::Entry { .. } => {}
                message => bail!("not for the gateway: {message:?}"),
            }
        }
        self.deliver()
    }

    fn drive(&mut self, number: u64, has_packets: bool) -> Result<()> {
        let now = Instant::now();
        let Some(((owner, key), channel)) = self.channels.get_mut(&number) else { return Ok(()) };
        let (owner, key) = (*owner, *key);
        let mut events = Vec::new();
        if has_packets {
            channel.receive(now, &mut events)?;
        }
        channel.poll(now, &mut events)?;
        let Some(client) = self.clients.get_mut(&owner) else { return Ok(()) };
        for event in events {
            match event {
                ChannelEvent::Opened => client.peer.opened(key, now),
                ChannelEvent::Frame(frame) => client.peer.received(key, frame, now),
                ChannelEvent::Closed => client.peer.closed(key),
            }
        }
        self.settle(owner)?;
        self.deliver()
    }

    /// Does what the peer of a client asks for.
    fn settle(&mut self, number: u32) -> Result<()> {
        let mut written = BTreeSet::new();
        loop {
            let actions = match self.clients.get_mut(&number) {
                Some(client) => client.peer.take_actions(),
                None => Vec::new(),
            };
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.perform(number, action, &mut written)?;
            }
        }
        for channel in written {
            self.drive(channel, false)?;
        }
        Ok(())
    }

    /// Delivers the frames between clients of one group.
    fn deliver(&mut self) -> Result<()> {
        while let Some((to, channel, frame)) = self.frames.pop_front() {
            if let Some(client) = self.clients.get_mut(&to) {
                client.peer.received(channel, frame, Instant::now());
                self.settle(to)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, key: (u32, MeshChannel), channel: Channel) -> Result<()> {
        let number = self.next_channel;
        self.next_channel += 1;
        let data = epoll::EventData::new_u64(number);
        epoll::add(&self.epoll, channel.socket(), data, epoll::EventFlags::IN)?;
        self.channels.insert(number, (key, channel));
        self.by_key.insert(key, number);
        Ok(())
    }

    fn remove(&mut self, number: u64) {
        if let Some((key, _)) = self.channels.remove(&number) {
            self.by_key.remove(&key);
        }
    }

    fn perform(&mut self, number: u32, action: PeerAction, written: &mut BTreeSet<u64>) -> Result<()> {
        let now = Instant::now();
        match action {
            PeerAction::Offer { channel, label } => {
                let (own, offer) = Channel::offer(&self.configuration, label, now)?;
                self.add((number, channel), own)?;
                self.client(number)?.peer.described(channel, &offer);
            }
            PeerAction::Answer { channel, offer } if offer == IN_MEMORY => {
                self.client(number)?.peer.described(channel, IN_MEMORY);
            }
            PeerAction::Answer { channel, offer } => {
                let (own, answer) = Channel::answer(&self.configuration, &offer, now)?;
                self.add((number, channel), own)?;
                self.client(number)?.peer.described(channel, &answer);
                if let Some(call) = self.calls.get(&(number, channel)).copied() {
                    self.bridge.send(&[BridgeMessage::Answer { call, answer }])?;
                }
                written.extend(self.by_key.get(&(number, channel)));
            }
            PeerAction::Accept { channel, answer } => {
                if let Some(known) = self.by_key.get(&(number, channel)) {
                    let (_, own) = self.channels.get_mut(known).context("no such channel")?;
                    own.accept(&answer)?;
                    written.insert(*known);
                }
            }
            PeerAction::Send { channel, frame, .. } => {
                if let Some((to, theirs)) = self.in_memory.get(&(number, channel)) {
                    self.frames.push_back((*to, *theirs, frame));
                } else if let Some(known) = self.by_key.get(&(number, channel)) {
                    let (_, own) = self.channels.get_mut(known).context("no such channel")?;
                    own.send(frame);
                    written.insert(*known);
                }
            }
            PeerAction::Close { channel } => {
                if let Some(known) = self.by_key.get(&(number, channel)).copied() {
                    self.drive_last(known)?;
                }
            }
            PeerAction::MemberJoined { member } => {
                self.client(number)?.seen.insert(member);
            }
            PeerAction::MemberLeft { member } => {
                let is_known = self.client(number)?.seen.remove(&member);
                self.measured.lost_members += u64::from(is_known);
            }
            PeerAction::Received { member, chunk } => self.take(number, member, &chunk)?,
            PeerAction::Joined
            | PeerAction::Failed
            | PeerAction::ReceivedEarly { .. }
            | PeerAction::Forward { .. }
            | PeerAction::Departed { .. } => {}
        }
        Ok(())
    }

    /// Sends what waits for a channel, and ends it.
    fn drive_last(&mut self, number: u64) -> Result<()> {
        if let Some((_, channel)) = self.channels.get_mut(&number) {
            channel.poll(Instant::now(), &mut Vec::new())?;
        }
        self.remove(number);
        Ok(())
    }

    fn take(&mut self, number: u32, member: u32, chunk: &MessageChunk) -> Result<()> {
        let elapsed = self.start.elapsed().as_micros() as u64;
        let client = self.client(number)?;
        let (count, rest) = chunk.data.split_first_chunk::<4>().context("a message is too short")?;
        let (sent_at, _) = rest.split_first_chunk::<8>().context("a message is too short")?;
        let count = u32::from_be_bytes(*count);
        let expected = client.expected.entry(member).or_default();
        ensure!(count == *expected, "message {count} of {member} where {expected} is expected");
        *expected += 1;
        self.measured.received += 1;
        let delay = elapsed.saturating_sub(u64::from_be_bytes(*sent_at));
        self.measured.delays.push(u32::try_from(delay).unwrap_or(u32::MAX));
        Ok(())
    }
}
