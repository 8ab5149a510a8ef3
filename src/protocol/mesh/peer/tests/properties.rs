//! Frames that no client sends: nothing panics, and nothing grows without a bound.

use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;

use super::recording::{RECORDINGS, Recorded, clients};
use crate::protocol::mesh::group::MeshGroup;
use crate::protocol::mesh::peer::{ChannelFrame, MAX_PEER_CHANNELS, MeshChannel, MeshPeer, PeerAction};

/// All frames that any client of a group got.
fn received_frames(group: MeshGroup) -> Vec<ChannelFrame> {
    let recordings = RECORDINGS.iter().filter(|(_, of, _)| *of == group);
    let events = recordings.flat_map(|(_, group, recording)| clients(*group, recording));
    let frames = events.flat_map(|client| client.events).filter_map(|event| match event.what {
        Recorded::Received(data) if data.is_text => Some(ChannelFrame::Text(data.bytes.into())),
        Recorded::Received(data) => Some(ChannelFrame::Binary(data.bytes.into())),
        _ => None,
    });
    frames.collect()
}

#[derive(Clone, Debug)]
enum Step {
    /// A recorded frame, with one byte changed.
    Frame {
        index: prop::sample::Index,
        at: prop::sample::Index,
        change: u8,
        channel: u32,
        forwarded: bool,
    },
    Garbage(Vec<u8>),
    Open(u32),
    Closed(u32),
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>();
    let change = prop_oneof![2 => Just(0), 1 => any::<u8>()];
    prop_oneof![
        8 => (index.clone(), index, change, 0u32..3, any::<bool>()).prop_map(|(index, at, change, channel, forwarded)| {
            Step::Frame { index, at, change, channel, forwarded }
        }),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Garbage),
        2 => (0u32..4).prop_map(Step::Open),
        1 => (0u32..4).prop_map(Step::Closed),
        1 => (0u64..9_000).prop_map(Step::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_frames_in_any_order_are_survived(
        group in select(MeshGroup::ALL.to_vec()),
        is_entry in any::<bool>(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let frames = received_frames(group);
        let mut now = Instant::now();
        let mut peer = MeshPeer::new(group, 1, *group.facts().ids.end());
        if is_entry {
            peer.open_entry(7);
            peer.called("offer".into(), 8, now);
        } else {
            peer.join(now);
        }
        peer.opened(MeshChannel { peer: 1, number: 0 }, now);
        let (mut joined, mut left) = (0u32, 0u32);
        for step in steps {
            let on = |number| MeshChannel { peer: 1, number };
            match step {
                Step::Frame { index, at, change, channel, forwarded } => {
                    let frame = match index.get(&frames) {
                        ChannelFrame::Binary(bytes) => {
                            let mut bytes = bytes.to_vec();
                            let at = at.index(bytes.len());
                            bytes[at] ^= change;
                            ChannelFrame::Binary(bytes.into())
                        }
                        text => text.clone(),
                    };
                    match frame {
                        ChannelFrame::Binary(bytes) if forwarded => {
                            peer.forwarded(MeshChannel { peer: 2, number: 0 }, bytes, now);
                        }
                        frame => peer.received(on(channel), frame, now),
                    }
                }
                Step::Garbage(bytes) => peer.received(on(0), ChannelFrame::Binary(Bytes::from(bytes)), now),
                Step::Open(number) => peer.opened(on(number), now),
                Step::Closed(number) => peer.closed(on(number)),
                Step::Pause(milliseconds) => {
                    now += Duration::from_millis(milliseconds);
                    peer.tick(now);
                }
            }
            for action in peer.take_actions() {
                match action {
                    PeerAction::MemberJoined { .. } => joined += 1,
                    PeerAction::MemberLeft { .. } => left += 1,
                    PeerAction::Offer { channel, .. } | PeerAction::Answer { channel, .. } => {
                        peer.described(channel, "v=0");
                    }
                    _ => {}
                }
            }
            prop_assert!(peer.channels.len() <= MAX_PEER_CHANNELS);
            prop_assert!(peer.awaited.len() <= super::super::MAX_LISTED);
            prop_assert!(left <= joined, "nobody leaves who has not joined");
        }
        let members = peer.members().count() as u32;
        peer.leave();
        for action in peer.take_actions() {
            left += u32::from(matches!(action, PeerAction::MemberLeft { .. }));
        }
        prop_assert!(peer.deadline().is_none(), "nothing is due after the end");
        prop_assert!(joined - left == members, "each member leaves once: {joined} {left} {members}");
    }
}
