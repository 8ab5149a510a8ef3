//! A room between clients of the two groups in which a peer can let others in: the clients are such peers.

mod departures;
mod early;
mod rates;
mod relayed;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::*;
use crate::protocol::mesh::peer::PeerAction;
use crate::protocol::mesh::user_message::{ChunkWriter, MessageChunk};
use MeshGroup::{Netflux0, Netflux1};

/// One end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Room(MeshChannel),
    Client(usize, MeshChannel),
}

type Message = (bool, bool, Vec<u8>);

struct Client {
    peer: MeshPeer,
    is_callable: bool,
    is_alive: bool,
    seen: BTreeSet<u32>,
    joins: u32,
    inbox: BTreeMap<u32, Vec<Message>>,
}

struct Harness {
    room: BridgedRoom,
    clients: Vec<Client>,
    offers: Vec<End>,
    ends: Vec<(End, End)>,
    frames: VecDeque<(End, ChannelFrame)>,
    entries: BTreeSet<MeshGroup>,
    /// Clients that answer no call.
    deaf: BTreeSet<usize>,
    /// Clients that lose what they send as a channel opens, and on how many channels.
    losing: BTreeMap<usize, u32>,
    /// Calls to clients that a test plays itself.
    strangers: Vec<MeshChannel>,
    /// Frames to such clients, and channels to them that the room closed.
    unsent: Vec<(MeshChannel, ChannelFrame)>,
    closed: Vec<MeshChannel>,
    now: Instant,
}

impl Harness {
    fn new() -> Self {
        Harness {
            room: BridgedRoom::new(BridgedRoomLimits::default(), 7),
            clients: Vec::new(),
            offers: Vec::new(),
            ends: Vec::new(),
            frames: VecDeque::new(),
            entries: BTreeSet::new(),
            deaf: BTreeSet::new(),
            losing: BTreeMap::new(),
            strangers: Vec::new(),
            unsent: Vec::new(),
            closed: Vec::new(),
            now: Instant::now(),
        }
    }

    fn other(&self, end: End) -> Option<End> {
        self.ends.iter().find_map(|(one, two)| match end {
            _ if end == *one => Some(*two),
            _ if end == *two => Some(*one),
            _ => None,
        })
    }

    fn offer(&mut self, end: End) -> String {
        self.offers.push(end);
        format!("offer {}", self.offers.len() - 1)
    }

    fn offered(&self, offer: &str) -> End {
        self.offers[offer.strip_prefix("offer ").unwrap().parse::<usize>().unwrap()]
    }

    fn add(&mut self, group: MeshGroup, is_callable: bool) -> usize {
        let number = self.clients.len();
        let peer = MeshPeer::new(group, number as u32, 1_000_000 + number as u32);
        let (seen, inbox) = (BTreeSet::new(), BTreeMap::new());
        self.clients.push(Client { peer, is_callable, is_alive: true, seen, joins: 0, inbox });
        number
    }

    /// A client opens its group.
    fn opener(&mut self, group: MeshGroup) -> usize {
        let client = self.add(group, true);
        self.clients[client].peer.open_entry(5);
        self.room.arrived(group, client as u32, self.now);
        self.run();
        client
    }

    /// A client joins through another one, or through the entry.
    fn joiner(&mut self, group: MeshGroup, through: Option<usize>) -> usize {
        let client = self.add(group, false);
        let now = self.now;
        let own = self.clients[client].peer.join(now).unwrap();
        self.clients[client].peer.take_actions();
        let offer = self.offer(End::Client(client, own));
        match through {
            Some(member) => {
                self.clients[member].peer.called(offer, 2_000_000 + client as u32, now).unwrap();
            }
            None => {
                assert!(self.entries.contains(&group), "no entry for {group:?}");
                self.room.called(group, offer, now).unwrap();
            }
        }
        self.run();
        self.clients[client].peer.answered(own, "answer".into());
        self.run();
        client
    }

    fn leave(&mut self, client: usize) {
        self.clients[client].peer.leave();
        self.run();
        self.clients[client].is_alive = false;
        if self.clients[client].is_callable {
            self.room.departed(self.clients[client].peer.group(), client as u32, self.now);
        }
        self.run();
    }

    fn run(&mut self) {
        loop {
            let mut is_idle = true;
            for action in self.room.take_actions() {
                is_idle = false;
                self.perform(action);
            }
            for client in 0..self.clients.len() {
                for action in self.clients[client].peer.take_actions() {
                    is_idle = false;
                    self.client_acts(client, action);
                }
            }
            if let Some((to, frame)) = self.frames.pop_front() {
                is_idle = false;
                match to {
                    End::Room(channel) => self.room.received(channel, frame, self.now),
                    End::Client(client, channel) => {
                        self.clients[client].peer.received(channel, frame, self.now);
                    }
                }
            }
            if is_idle {
                return;
            }
        }
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now += Duration::from_millis(500);
            self.room.tick(self.now);
            self.run();
        }
    }

    fn perform(&mut self, action: BridgeAction) {
        let now = self.now;
        match action {
            BridgeAction::Call { channel, target, .. } => {
                let offer = self.offer(End::Room(channel));
                self.room.described(channel, &offer, now);
                if self.deaf.contains(&(target as usize)) {
                    return;
                }
                let id = 3_000_000 + channel.peer;
                let Some(client) = self.clients.get_mut(target as usize) else {
                    return self.strangers.push(channel);
                };
                // One that has just left answers no call, and the gateway ends it.
                if client.peer.called(offer, id, now).is_none() {
                    self.room.closed(channel, now);
                }
            }
            BridgeAction::Offer { channel, .. } => {
                let offer = self.offer(End::Room(channel));
                self.room.described(channel, &offer, now);
            }
            BridgeAction::Answer { channel, offer } => {
                self.ends.push((self.offered(&offer), End::Room(channel)));
                self.room.described(channel, "answer", now);
            }
            BridgeAction::Accept { channel, .. } => self.open(End::Room(channel)),
            BridgeAction::Send { channel, frame, .. } => self.send(End::Room(channel), frame),
            BridgeAction::Close { channel } => self.close(End::Room(channel)),
            BridgeAction::Entry { group, is_open: true } => assert!(self.entries.insert(group)),
            BridgeAction::Entry { group, is_open: false } => assert!(self.entries.remove(&group)),
        }
    }

    fn client_acts(&mut self, client: usize, action: PeerAction) {
        match action {
            PeerAction::Offer { channel, .. } => {
                let offer = self.offer(End::Client(client, channel));
                self.clients[client].peer.described(channel, &offer);
            }
            PeerAction::Answer { channel, offer } => {
                let offered = self.offered(&offer);
                self.ends.push((offered, End::Client(client, channel)));
                self.clients[client].peer.described(channel, "answer");
                if let End::Room(called) = offered {
                    self.room.answered(called, "answer".into(), self.now);
                }
            }
            PeerAction::Accept { channel, .. } => self.open(End::Client(client, channel)),
            PeerAction::Send { channel, frame, .. } => self.send(End::Client(client, channel), frame),
            PeerAction::Close { channel } => self.close(End::Client(client, channel)),
            PeerAction::MemberJoined { member } => {
                self.clients[client].joins += 1;
                assert!(self.clients[client].seen.insert(member));
            }
            PeerAction::MemberLeft { member } => assert!(self.clients[client].seen.remove(&member)),
            PeerAction::Received { member, chunk } => self.clients[client].take(member, &chunk),
            PeerAction::Joined | PeerAction::Forward { .. } | PeerAction::Departed { .. } => {}
            PeerAction::Failed | PeerAction::ReceivedEarly { .. } => panic!("{client}: {action:?}"),
        }
    }

    fn open(&mut self, end: End) {
        let Some(other) = self.other(end) else { return };
        for end in [other, end] {
            match end {
                End::Room(channel) => self.room.opened(channel, self.now),
                End::Client(client, channel) => {
                    self.clients[client].peer.opened(channel, self.now);
                    if let Some(count) = self.losing.get_mut(&client).filter(|count| **count > 0) {
                        *count -= 1;
                        self.clients[client].peer.take_actions();
                    }
                }
            }
        }
    }

    fn send(&mut self, from: End, frame: ChannelFrame) {
        match (self.other(from), from) {
            (Some(to), _) => self.frames.push_back((to, frame)),
            (None, End::Room(channel)) if !self.closed.contains(&channel) => {
                self.unsent.push((channel, frame));
            }
            (None, _) => {}
        }
    }

    /// Closes both ends, once frames that were sent before are delivered.
    fn close(&mut self, end: End) {
        let Some(other) = self.other(end) else {
            if let End::Room(channel) = end {
                self.closed.push(channel);
            }
            return;
        };
        while let Some(at) = self.frames.iter().position(|(to, _)| *to == other) {
            let (_, frame) = self.frames.remove(at).unwrap();
            match other {
                End::Room(channel) => self.room.received(channel, frame, self.now),
                End::Client(client, channel) => self.clients[client].peer.received(channel, frame, self.now),
            }
        }
        self.ends.retain(|(one, two)| *one != end && *two != end);
        match other {
            End::Room(channel) => self.room.closed(channel, self.now),
            End::Client(client, channel) => self.clients[client].peer.closed(channel),
        }
    }

    /// A client sends to all that it sees, as netflux does, or to one.
    fn send_message(&mut self, client: usize, to: Option<u32>, is_text: bool, data: &[u8]) {
        let sender = &mut self.clients[client];
        let group = sender.peer.group();
        let whole = MessageChunk {
            message: 1,
            is_text,
            is_broadcast: to.is_none(),
            total: data.len() as u32,
            offset: 0,
            data: data.to_vec().into(),
        };
        let mut parts = Vec::new();
        ChunkWriter::new(group, u32::MAX, 9).push(&whole, &mut parts).unwrap();
        for member in sender.seen.clone().into_iter().filter(|member| to.is_none_or(|to| to == *member)) {
            for part in &parts {
                assert!(sender.peer.send(member, to.is_none(), part));
            }
        }
        self.run();
    }

    fn seen(&self) -> Vec<usize> {
        self.clients.iter().map(|client| client.seen.len()).collect()
    }

    fn inbox(&mut self, client: usize) -> Vec<Message> {
        std::mem::take(&mut self.clients[client].inbox).into_values().flatten().collect()
    }
}

impl Client {
    fn take(&mut self, member: u32, chunk: &MessageChunk) {
        let messages = self.inbox.entry(member).or_default();
        if chunk.offset == 0 {
            messages.push((chunk.is_text, chunk.is_broadcast, Vec::new()));
        }
        let data = &mut messages.last_mut().unwrap().2;
        assert_eq!(data.len(), chunk.offset as usize);
        data.extend_from_slice(&chunk.data);
    }
}

#[test]
fn messages_of_any_length_reach_the_other_group_once() {
    for (one, two) in [(Netflux0, Netflux1), (Netflux1, Netflux0)] {
        let mut harness = Harness::new();
        let (a, b) = (harness.opener(one), harness.opener(two));
        assert_eq!(harness.seen(), [1, 1]);
        let long = vec![7; 1 << 20];
        for (is_text, data) in [(true, &b"text"[..]), (false, &[0, 255]), (true, b""), (false, &long)] {
            let to = harness.clients[a].seen.first().copied();
            harness.send_message(a, None, is_text, data);
            harness.send_message(a, to, is_text, data);
            let expected = [(is_text, true, data.to_vec()), (is_text, false, data.to_vec())];
            assert_eq!(harness.inbox(b), expected);
            assert_eq!(harness.inbox(a), [], "no echo");
        }
        assert_eq!(harness.room.counts().messages, 8);
    }
}

/// A browser may drop what its page sends in the first moment of a channel.
#[test]
fn client_whose_first_messages_are_lost_is_called_again() {
    let mut harness = Harness::new();
    harness.opener(Netflux0);
    harness.losing.insert(1, 2);
    harness.opener(Netflux1);
    assert_eq!(harness.seen(), [0, 0]);
    harness.pass(Duration::from_secs(10));
    assert_eq!(harness.losing[&1], 0);
    assert_eq!(harness.seen(), [1, 1]);
    assert!(harness.clients.iter().all(|client| client.joins == 1));
}

#[test]
fn directed_message_reaches_no_other_client() {
    let mut harness = Harness::new();
    let first = harness.opener(Netflux0);
    let second = harness.joiner(Netflux0, Some(first));
    let third = harness.opener(Netflux1);
    let fourth = harness.joiner(Netflux1, Some(third));
    assert_eq!(harness.seen(), [3, 3, 3, 3]);
    harness.send_message(first, None, true, b"all");
    for client in [second, third, fourth] {
        assert_eq!(harness.inbox(client), [(true, true, b"all".to_vec())], "{client}");
    }
    let others: Vec<u32> = harness.clients[third].seen.iter().copied().collect();
    let mut reached = BTreeSet::new();
    for to in others {
        harness.send_message(third, Some(to), true, b"one");
        let got: Vec<usize> = (0..4).filter(|client| !harness.inbox(*client).is_empty()).collect();
        assert_eq!(got.len(), 1, "{got:?}");
        reached.extend(got);
    }
    assert_eq!(reached, BTreeSet::from([first, second, fourth]));
    assert_eq!(harness.clients.iter().map(|client| client.joins).collect::<Vec<_>>(), [3, 3, 3, 3]);
}

#[test]
fn member_that_leaves_is_not_seen_any_more_in_the_other_group() {
    let mut harness = Harness::new();
    let first = harness.opener(Netflux1);
    let second = harness.opener(Netflux0);
    harness.joiner(Netflux1, Some(first));
    assert_eq!(harness.seen(), [2, 2, 2]);
    harness.leave(2);
    assert_eq!(harness.seen()[..2], [1, 1]);
    harness.leave(second);
    assert_eq!(harness.seen()[0], 0);
    assert_eq!(harness.room.stand_ins(), 0);
}

#[test]
fn joiner_without_anyone_in_its_group_enters_through_the_entry_and_stays_in_reach() {
    for (group, other) in [(Netflux0, Netflux1), (Netflux1, Netflux0)] {
        let mut harness = Harness::new();
        let first = harness.opener(other);
        let joiner = harness.joiner(group, None);
        harness.pass(Duration::from_secs(3));
        assert_eq!(harness.seen(), [1, 1]);
        let second = harness.joiner(other, Some(first));
        harness.pass(Duration::from_secs(3));
        assert_eq!(harness.seen(), [2, 2, 2]);
        harness.leave(second);
        harness.leave(first);
        harness.pass(Duration::from_secs(1));
        assert_eq!(harness.clients[joiner].seen.len(), 0, "nobody is left");
        let newcomer = harness.opener(other);
        harness.pass(Duration::from_secs(3));
        assert_eq!((harness.clients[joiner].seen.len(), harness.clients[newcomer].seen.len()), (1, 1));
        harness.send_message(newcomer, None, true, b"found");
        assert_eq!(harness.inbox(joiner), [(true, true, b"found".to_vec())]);
    }
}

/// A client of netflux 1.0 that sees a member of netflux 0.10 who does not answer calls.
fn half_pair() -> (Harness, usize, usize) {
    let mut harness = Harness::new();
    let first = harness.opener(Netflux1);
    harness.deaf.insert(1);
    let second = harness.opener(Netflux0);
    assert_eq!(harness.seen(), [1, 0]);
    (harness, first, second)
}

#[test]
fn messages_wait_until_the_other_half_of_the_pair_is_up() {
    let (mut harness, first, second) = half_pair();
    harness.send_message(first, None, true, b"early");
    harness.pass(Duration::from_secs(10));
    harness.deaf.clear();
    harness.pass(Duration::from_secs(30));
    assert_eq!(harness.inbox(second), [(true, true, b"early".to_vec())]);
}

#[test]
fn pair_is_cut_where_too_much_waits() {
    let (mut harness, first, second) = half_pair();
    harness.send_message(first, None, false, &vec![1; 200 << 10]);
    assert_eq!(harness.seen(), [1, 0]);
    harness.send_message(first, None, false, &vec![1; 200 << 10]);
    assert_eq!(harness.seen(), [0, 0]);
    assert_eq!(harness.room.counts().cut, 1);
    assert_eq!(harness.inbox(second), []);
}

#[test]
fn too_long_message_is_counted_and_the_next_passes() {
    let mut harness = Harness::new();
    harness.room = BridgedRoom::new(BridgedRoomLimits { max_message: 50_000, ..Default::default() }, 7);
    let (first, second) = (harness.opener(Netflux0), harness.opener(Netflux1));
    harness.send_message(first, None, false, &vec![1; 50_001]);
    harness.send_message(first, None, false, &vec![2; 50_000]);
    assert_eq!(harness.inbox(second), [(false, true, vec![2; 50_000])]);
    let counts = harness.room.counts();
    assert_eq!((counts.messages, counts.bytes, counts.dropped), (1, 50_000, 1));
}
