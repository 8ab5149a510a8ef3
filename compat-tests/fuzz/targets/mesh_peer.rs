//! A peer of the bridge in one group: frames of a client, calls of the room and times, in any order.

#![no_main]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sigver::protocol::mesh::{
    ChannelFrame, ChunkWriter, MAX_PEER_CHANNELS, MeshChannel, MeshGroup, MeshPeer, MessageChunk, Neighbor,
    PeerAction,
};
use sigver_fuzz::input::Input;

/// Number of the peer.
const NUMBER: u32 = 1;
/// Most ids that one frame may name.
const MAX_LISTED: usize = 256;
/// Session description that the caller gives.
const SDP: &str = "v=0\r\na=ice-ufrag:abcd\r\n";

/// Members and channels that the peer reported, and the bounds of what it asks for.
struct Observer {
    members: BTreeSet<u32>,
    channels: BTreeSet<MeshChannel>,
    /// Channels that the caller reported as open. Frames arrive over no others.
    open: BTreeSet<MeshChannel>,
    has_ended: bool,
}

impl Observer {
    /// Does what the peer asks for, until it asks for nothing. `length` is that of the frame that led to it.
    fn observe(&mut self, peer: &mut MeshPeer, length: usize) {
        let mut actions = peer.take_actions();
        while !actions.is_empty() {
            // A list of members, an announcement to each channel, and the end of each.
            assert!(actions.len() <= 2 * MAX_LISTED + 8 * MAX_PEER_CHANNELS, "{} actions", actions.len());
            for action in actions {
                self.take(peer, action, length);
            }
            actions = peer.take_actions();
        }
        let now: BTreeSet<u32> = peer.members().map(|(member, _)| member).collect();
        if !self.has_ended {
            assert_eq!(now, self.members);
        }
        assert!(self.channels.len() <= MAX_PEER_CHANNELS);
    }

    fn take(&mut self, peer: &mut MeshPeer, action: PeerAction, length: usize) {
        match action {
            PeerAction::Offer { channel, .. } | PeerAction::Answer { channel, .. } => {
                assert_eq!(channel.peer, NUMBER);
                assert!(self.channels.insert(channel), "a channel is created once");
                peer.described(channel, SDP);
            }
            PeerAction::Close { channel } => {
                assert!(self.channels.remove(&channel), "closed once");
                self.open.remove(&channel);
            }
            PeerAction::MemberJoined { member } => assert!(self.members.insert(member), "joined once"),
            PeerAction::MemberLeft { member } => assert!(self.members.remove(&member), "left once"),
            PeerAction::Received { chunk, .. } | PeerAction::ReceivedEarly { chunk } => {
                check_chunk(peer.group(), &chunk);
            }
            PeerAction::Send { frame: ChannelFrame::Text(bytes) | ChannelFrame::Binary(bytes), .. }
            | PeerAction::Forward { frame: bytes, .. } => {
                // Its own list of members, or what was received, with escapes of JSON.
                assert!(bytes.len() <= 6 * length + 8 * MAX_LISTED + 1024, "{} bytes", bytes.len());
            }
            PeerAction::Accept { channel, .. } => assert!(self.channels.contains(&channel)),
            PeerAction::Failed => self.has_ended = true,
            PeerAction::Joined | PeerAction::Departed { .. } => {}
        }
    }
}

/// Asserts that a chunk is within its message, and that every group's form of it is read back.
fn check_chunk(from: MeshGroup, chunk: &MessageChunk) {
    let length = chunk.data.len();
    assert!(length <= from.facts().chunk_length as usize);
    assert!(chunk.offset as usize + length <= chunk.total as usize);
    if chunk.offset > 0 {
        return;
    }
    for &group in MeshGroup::ALL {
        let mut written = Vec::new();
        let mut writer = ChunkWriter::new(group, 16 << 20, 7);
        let pushed = writer.push(chunk, &mut written);
        assert_eq!(pushed.is_ok(), chunk.total <= 16 << 20);
        assert!(writer.buffered() <= length);
        let mut data = Vec::new();
        for part in &written {
            let part = MessageChunk::decode(group, part, chunk.is_broadcast).expect("it is read back");
            assert_eq!((part.is_text, part.total), (chunk.is_text, chunk.total));
            assert_eq!((part.is_broadcast, part.offset as usize), (chunk.is_broadcast, data.len()));
            data.extend_from_slice(&part.data);
        }
        assert_eq!(&data[..], &chunk.data[..data.len()]);
        if length == chunk.total as usize && pushed.is_ok() {
            assert_eq!(data.len(), length, "a whole message is written at once");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let group = MeshGroup::ALL[input.below(MeshGroup::ALL.len())];
    let mut now = Instant::now();
    let mut peer = MeshPeer::new(group, NUMBER, *group.facts().ids.end());
    let (channels, open) = (BTreeSet::new(), BTreeSet::new());
    let mut observer = Observer { members: BTreeSet::new(), channels, open, has_ended: false };
    let of_other = |member: u8| Neighbor {
        member: u32::from(member) + 2,
        channel: MeshChannel { peer: 2, number: u32::from(member) },
        owner: 9,
    };
    match input.below(3) {
        0 => drop(peer.join(now)),
        1 => {
            peer.open_entry(7);
            peer.called(SDP.to_owned(), 8, now);
        }
        _ => {
            let neighbors: Vec<Neighbor> = (0..input.byte() % 4).map(of_other).collect();
            peer.join_through(&neighbors, 7, input.flag(), now);
        }
    }
    observer.observe(&mut peer, 0);
    while !input.is_empty() {
        let step = input.byte();
        let on = MeshChannel { peer: NUMBER, number: u32::from(step >> 5) };
        let mut length = 0;
        match step & 15 {
            0..=3 if observer.open.contains(&on) => {
                let bytes = Bytes::copy_from_slice(input.bytes());
                length = bytes.len();
                peer.received(on, ChannelFrame::Binary(bytes), now);
            }
            4 if observer.open.contains(&on) => {
                peer.received(on, ChannelFrame::Text(Bytes::copy_from_slice(input.bytes())), now)
            }
            5 => {
                let bytes = Bytes::copy_from_slice(input.bytes());
                length = bytes.len();
                peer.forwarded(MeshChannel { peer: 2, number: 0 }, bytes, now);
            }
            0..=4 => drop(input.bytes()),
            6 | 7 => {
                if observer.channels.contains(&on) {
                    observer.open.insert(on);
                }
                peer.opened(on, now);
            }
            8 => {
                observer.channels.remove(&on);
                observer.open.remove(&on);
                peer.closed(on);
            }
            9 => {
                now += Duration::from_millis(input.u16().into());
                peer.tick(now);
                assert!(peer.deadline().is_none_or(|due| due > now), "what is due is done");
            }
            10 => {
                let chunk = Bytes::copy_from_slice(input.bytes());
                length = chunk.len();
                let member = observer.members.first().copied().unwrap_or(5);
                assert_eq!(peer.send(member, step & 16 != 0, &chunk), observer.members.contains(&member));
            }
            11 => peer.add_sibling(u32::from(input.byte()) + 2, step & 16 != 0),
            12 => peer.remove_sibling(u32::from(input.byte()) + 2),
            13 => peer.introduce_to(&[of_other(input.byte())], now),
            14 if step & 16 != 0 => peer.announce(),
            14 => drop(peer.called(SDP.to_owned(), input.byte().into(), now)),
            _ => match observer.members.first() {
                Some(member) => peer.disconnect(*member),
                None => peer.answered(on, SDP.to_owned()),
            },
        }
        observer.observe(&mut peer, length);
    }
    // The caller of `leave` knows that it has no members any more.
    observer.has_ended = true;
    peer.leave();
    observer.observe(&mut peer, 0);
    assert_eq!(peer.members().count(), 0);
    assert!(observer.channels.is_empty(), "every channel is closed at the end");
});
