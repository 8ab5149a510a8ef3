//! The peer in the place of each recorded client that joined, and of the one that let the others in: it gets
//! what that client got, and must send what that client sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::recording::{RECORDINGS, Recorded, RecordedClient, RecordedData, clients};
use crate::protocol::mesh::group::MeshGroup;
use crate::protocol::mesh::peer::{ChannelFrame, MeshChannel, MeshPeer, PeerAction};
use crate::protocol::mesh::protobuf::{Fields, ReadFields};
use crate::protocol::mesh::user_message::{ChunkWriter, MessageChunk};

/// Reads the recorded id of a client: the sender in the last user frame that it sent, or in its heartbeats.
fn own_id(group: MeshGroup, client: &RecordedClient) -> u32 {
    let sent = client.events.iter().rev().find_map(|event| match &event.what {
        Recorded::Sent(data) if user_part(group, &data.bytes).is_some() => Some(data.bytes.clone()),
        _ => None,
    });
    let bytes = Bytes::from(sent.unwrap());
    if group.is_protobuf() {
        ReadFields::read(&bytes).unwrap().number(1)
    } else {
        u32::from_be_bytes(bytes[1..5].try_into().unwrap())
    }
}

/// Returns recipient and message of a user frame.
fn user_part(group: MeshGroup, frame: &[u8]) -> Option<(u32, Bytes)> {
    let bytes = Bytes::copy_from_slice(frame);
    if !group.is_protobuf() {
        let recipient = u32::from_be_bytes(frame.get(5..9)?.try_into().unwrap());
        return (frame[0] == 1).then(|| (recipient, bytes.slice(9..)));
    }
    let fields = ReadFields::read(&bytes)?;
    let user = if group == MeshGroup::Netflux4 { 743 } else { 0 };
    (fields.number(3) == user && fields.has(4)).then(|| (fields.number(2), fields.bytes(4).unwrap()))
}

/// Returns true for candidates and their end, which the peer has in its descriptions, and for a request of
/// netflux 3 for the member list, which the peer does not need.
fn is_left_out(group: MeshGroup, frame: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(frame);
    let service = || ReadFields::read(&bytes)?.message(4);
    let numbered = |number: u32| service().filter(|service| service.number(1) == number)?.message(2);
    match group {
        MeshGroup::Netflux0 | MeshGroup::Netflux1 => {
            String::from_utf8_lossy(frame).contains("\"data\":{\"candidate\"")
                || String::from_utf8_lossy(frame).contains(",\"candidate\":")
        }
        MeshGroup::Netflux2 => numbered(0).is_some_and(|content| content.has(4)),
        MeshGroup::Netflux3 => {
            numbered(300).is_some_and(|content| content.has(4) || content.has(6))
                || numbered(3).is_some_and(|content| content.has(2))
        }
        MeshGroup::Netflux4 => {
            ReadFields::read(&bytes).is_some_and(|fields| fields.number(3) == 7431)
                && service().is_some_and(|content| !content.has(1) && !content.has(2))
        }
    }
}

/// Returns the session description in a frame.
fn description(group: MeshGroup, data: &RecordedData) -> Option<String> {
    let at = data.bytes.windows(4).position(|window| window == b"v=0\r" || window == b"v=0\\")?;
    if group.is_protobuf() {
        return Some(String::from_utf8(data.bytes[at..].to_vec()).unwrap());
    }
    let json: serde_json::Value = serde_json::from_slice(&data.bytes[9..]).unwrap();
    let data = &json["data"];
    Some(data["offer"]["sdp"].as_str().or(data["answer"]["sdp"].as_str()).unwrap().to_owned())
}

/// Returns a frame without what the versions of a group write differently, and none of them reads.
fn normalized(version: &str, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let text = String::from_utf8_lossy(&frame[frame.len().min(9)..]).into_owned();
    if text.contains("\"connectors\":[0]") {
        let end = text.find("[0]").unwrap() + 3;
        frame.truncate(9 + end);
    }
    if version == "0.10.8" && text == "{\"serviceId\":3,\"data\":{\"code\":3}}" {
        frame[5..9].fill(0);
    }
    // The header's sender, before the member has given the id.
    if version == "0.10.3" && frame[0] == 10 {
        frame[1..5].fill(0);
    }
    frame
}

struct Play {
    version: &'static str,
    group: MeshGroup,
    peer: MeshPeer,
    now: Instant,
    channels: BTreeMap<u64, MeshChannel>,
    /// Channels that the peer began, and that the recording has not yet.
    begun: VecDeque<(MeshChannel, Option<String>)>,
    described: usize,
    sent: VecDeque<(MeshChannel, ChannelFrame)>,
    members: BTreeSet<u32>,
    left: BTreeSet<u32>,
    received: BTreeMap<u32, Vec<(bool, bool, Vec<u8>)>>,
    writers: BTreeMap<(u64, u32), ChunkWriter>,
}

impl Play {
    fn new(version: &'static str, group: MeshGroup, id: u32) -> Self {
        Play {
            version,
            group,
            peer: MeshPeer::new(group, 1, id),
            now: Instant::now(),
            channels: BTreeMap::new(),
            begun: VecDeque::new(),
            described: 0,
            sent: VecDeque::new(),
            members: BTreeSet::new(),
            left: BTreeSet::new(),
            received: BTreeMap::new(),
            writers: BTreeMap::new(),
        }
    }

    fn collect(&mut self) {
        for action in self.peer.take_actions() {
            match action {
                PeerAction::Offer { channel, label } => self.begun.push_back((channel, Some(label))),
                PeerAction::Answer { channel, .. } => self.begun.push_back((channel, None)),
                PeerAction::Send { channel, frame, .. } => match &frame {
                    ChannelFrame::Binary(bytes) if is_left_out(self.group, bytes) => {}
                    _ => self.sent.push_back((channel, frame)),
                },
                PeerAction::MemberJoined { member } => assert!(self.members.insert(member)),
                PeerAction::MemberLeft { member } => assert!(self.left.insert(member)),
                PeerAction::Received { member, chunk } => self.take(member, &chunk),
                PeerAction::Accept { .. }
                | PeerAction::Joined
                | PeerAction::Departed { .. }
                | PeerAction::Close { .. } => {}
                PeerAction::Failed | PeerAction::Forward { .. } | PeerAction::ReceivedEarly { .. } => {
                    panic!("{action:?}")
                }
            }
        }
    }

    fn take(&mut self, member: u32, chunk: &MessageChunk) {
        let messages = self.received.entry(member).or_default();
        if chunk.offset == 0 {
            messages.push((chunk.is_text, chunk.is_broadcast, Vec::new()));
        }
        let data = &mut messages.last_mut().unwrap().2;
        assert_eq!(data.len(), chunk.offset as usize);
        data.extend_from_slice(&chunk.data);
    }

    /// Has the peer do what the recorded client did without being asked.
    fn provoke(&mut self, channel: u64, data: &RecordedData) {
        if let Some(sdp) = description(self.group, data)
            && self.described < self.channels.len().max(self.begun.len() + 1)
        {
            let pending = self.begun.front().map(|(channel, _)| *channel);
            let pending = pending.or(self.channels.get(&2).copied());
            if let Some(pending) = pending.filter(|_| self.sent.is_empty()) {
                self.peer.described(pending, &sdp);
                self.described += 1;
            }
        } else if let Some((recipient, written)) = user_part(self.group, &data.bytes) {
            let chunk = MessageChunk::decode(self.group, &written, recipient == 0).unwrap();
            let group = self.group;
            let new = || ChunkWriter::new(group, 1 << 20, (chunk.message as u16).wrapping_sub(1));
            let mut out = Vec::new();
            self.writers.entry((channel, chunk.message)).or_insert_with(new).push(&chunk, &mut out).unwrap();
            let (member, _) =
                self.peer.members().find(|(_, known)| *known == self.channels[&channel]).unwrap();
            for written in out {
                assert!(self.peer.send(member, recipient == 0, &written));
            }
        } else if self.version == "0.10.3" && data.bytes[0] == 3 {
            self.peer.leave();
        } else if let Some(due) = self.peer.deadline() {
            self.now = due;
            self.peer.tick(due);
        }
        self.collect();
    }

    fn expect(&mut self, channel: u64, data: &RecordedData) {
        if !data.is_text && is_left_out(self.group, &data.bytes) {
            return;
        }
        if self.sent.is_empty() {
            self.provoke(channel, data);
        }
        let context = || format!("{} {:?}", self.version, String::from_utf8_lossy(&data.bytes));
        let (on, frame) = self.sent.pop_front().unwrap_or_else(|| panic!("nothing sent: {}", context()));
        let (is_text, bytes) = match &frame {
            ChannelFrame::Text(text) => (true, text),
            ChannelFrame::Binary(bytes) => (false, bytes),
        };
        assert_eq!((on, is_text), (self.channels[&channel], data.is_text), "{} not {frame:?}", context());
        let (ours, recorded) = (normalized(self.version, bytes), normalized(self.version, &data.bytes));
        let length = data.recorded.min(recorded.len());
        let is_same = ours.get(..length) == Some(&recorded[..length]) && ours.len() + 4 >= recorded.len();
        assert!(is_same, "{}\nnot {:?}", context(), String::from_utf8_lossy(bytes));
    }

    fn run(&mut self, client: &RecordedClient, lets_in: &[u32]) {
        let mut lets_in = lets_in.iter();
        for event in &client.events {
            match &event.what {
                Recorded::New { label, is_own } => {
                    if self.begun.is_empty() {
                        match lets_in.next() {
                            Some(id) => self.peer.called(String::new(), *id, self.now),
                            None => self.peer.join(self.now),
                        };
                        self.collect();
                    }
                    let (channel, our_label) = self.begun.pop_front().unwrap();
                    self.channels.insert(event.channel, channel);
                    if !is_own {
                        self.open(event.channel);
                    }
                    if let (true, Some(ours)) = (is_own, our_label) {
                        assert!(ours == *label || self.group == MeshGroup::Netflux2, "{ours} {label}");
                    }
                }
                Recorded::Open => self.open(event.channel),
                Recorded::Sent(data) => {
                    // Clients see a channel that the other end made as open before it is announced to them.
                    self.open(event.channel);
                    self.expect(event.channel, data);
                }
                Recorded::Received(data) => {
                    let bytes = Bytes::from(data.bytes.clone());
                    let frame =
                        if data.is_text { ChannelFrame::Text(bytes) } else { ChannelFrame::Binary(bytes) };
                    self.peer.received(self.channels[&event.channel], frame, self.now);
                }
                Recorded::Closed => self.peer.closed(self.channels[&event.channel]),
            }
            self.collect();
        }
        assert!(self.sent.is_empty(), "{}: also sent {:?}", self.version, self.sent);
    }

    fn open(&mut self, channel: u64) {
        self.peer.opened(self.channels[&channel], self.now);
        self.collect();
    }
}

fn text(text: &str, is_broadcast: bool) -> (bool, bool, Vec<u8>) {
    (true, is_broadcast, text.as_bytes().to_vec())
}

fn play(version: &'static str, group: MeshGroup, recording: &str, place: usize) {
    let clients = clients(group, recording);
    let ids: Vec<u32> = clients.iter().map(|client| own_id(group, client)).collect();
    let mut play = Play::new(version, group, ids[place]);
    let lets_in: &[u32] = if place == 0 {
        play.peer.open_entry(network(group, recording));
        play.collect();
        &ids[1..]
    } else {
        &[]
    };
    play.run(&clients[place], lets_in);
    let others: BTreeSet<u32> = ids.iter().copied().filter(|id| *id != ids[place]).collect();
    assert_eq!(play.members, others, "{version}: members of {place}");
    let left = match place {
        // This one leaves by itself.
        2 if version == "0.10.3" => BTreeSet::new(),
        2 => others,
        _ => BTreeSet::from([ids[2]]),
    };
    assert_eq!(play.left, left, "{version}: left {place}");
    assert_eq!(play.peer.id(), ids[place]);
    let long = text(&"L".repeat(40_000), true);
    let of_first = vec![text("m0", true), (false, true, vec![1, 2, 3]), long];
    let of_second = vec![text("m1", true), text("private", false)];
    let of_third = vec![text("m2", true)];
    let expected = match place {
        0 => [(ids[1], of_second), (ids[2], of_third)],
        1 => [(ids[0], of_first), (ids[2], of_third)],
        _ => [(ids[0], of_first), (ids[1], vec![text("m1", true)])],
    };
    assert_eq!(play.received, BTreeMap::from(expected), "{version}: received by {place}");
}

fn network(group: MeshGroup, recording: &str) -> u32 {
    let first = &clients(group, recording)[0];
    first
        .events
        .iter()
        .find_map(|event| match &event.what {
            Recorded::Sent(data) => {
                let text = String::from_utf8_lossy(&data.bytes).into_owned();
                let rest = text.split_once("\"wcId\":")?.1.to_owned();
                rest.trim_end_matches('}').parse().ok()
            }
            _ => None,
        })
        .unwrap()
}

#[test]
fn peer_in_the_place_of_a_second_and_a_third_client_sends_what_they_sent() {
    for (version, group, recording) in RECORDINGS {
        play(version, *group, recording, 1);
        play(version, *group, recording, 2);
    }
}

#[test]
fn peer_that_lets_others_in_sends_what_the_first_client_sent() {
    for (version, group, recording) in RECORDINGS {
        if group.facts().some_joiners_accept_none {
            play(version, *group, recording, 0);
        }
    }
}

/// netflux 3 and 4 send through the entry what they send to a joiner before they have a channel to it.
#[test]
fn message_that_a_member_relayed_is_its_senders() {
    for (version, group, recording) in RECORDINGS.iter().filter(|(_, group, _)| group.is_protobuf()) {
        let clients = clients(*group, recording);
        let ids: Vec<u32> = clients.iter().map(|client| own_id(*group, client)).collect();
        let mut play = Play::new(version, *group, ids[2]);
        let mut events = clients[2].events.clone();
        // Until the entry has listed the members.
        let listed = events.iter().position(|event| matches!(event.what, Recorded::Sent(_))).unwrap();
        events.truncate(listed + 2);
        play.run_silently(&RecordedClient { events });
        let service = if *group == MeshGroup::Netflux4 { 743 } else { 0 };
        for sender in [ids[0], ids[1], ids[1].wrapping_add(1), ids[2]] {
            let message = Fields::new().number(1, 1).number(2, 0).bytes(3, b"m");
            let head = Fields::new().number(1, sender).number(2, play.peer.id()).number(3, service);
            let frame = ChannelFrame::Binary(head.message(4, message).into_bytes());
            play.peer.received(play.way_in(), frame, play.now);
        }
        play.collect();
        let received: BTreeMap<u32, usize> =
            play.received.iter().map(|(member, messages)| (*member, messages.len())).collect();
        let expected = match group.facts().relays_messages {
            true => BTreeMap::from([(ids[0], 1), (ids[1], 1)]),
            false => BTreeMap::from([(ids[0], 4)]),
        };
        assert_eq!(received, expected, "{version}");
    }
}

#[test]
fn silent_member_is_lost_after_three_heartbeats() {
    for (version, group, recording) in RECORDINGS {
        let clients = clients(*group, recording);
        let mut play = Play::new(version, *group, own_id(*group, &clients[1]));
        let mut events = clients[1].events.clone();
        events.truncate(8);
        play.run_silently(&RecordedClient { events });
        let before = play.left.len();
        for _ in 0..5 {
            play.now += Duration::from_secs(3);
            play.peer.tick(play.now);
            play.collect();
        }
        let lost = play.left.len() > before;
        assert_eq!(lost, group.facts().heartbeat.is_some(), "{version}");
    }
}

impl Play {
    /// Returns the channel that signaling opened.
    fn way_in(&self) -> MeshChannel {
        MeshChannel { peer: 1, number: 0 }
    }

    /// Plays without a comparison of what is sent.
    fn run_silently(&mut self, client: &RecordedClient) {
        self.peer.join(self.now);
        self.collect();
        let (channel, _) = self.begun.pop_front().unwrap();
        self.peer.opened(channel, self.now);
        for event in &client.events {
            if let Recorded::Received(data) = &event.what {
                let bytes = Bytes::from(data.bytes.clone());
                let frame =
                    if data.is_text { ChannelFrame::Text(bytes) } else { ChannelFrame::Binary(bytes) };
                self.peer.received(channel, frame, self.now);
            }
        }
        self.collect();
    }
}
