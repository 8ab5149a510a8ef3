//! Clients that join through one peer of the bridge at once. Frames of one channel keep their order; all
//! other orders are those of a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use crate::protocol::mesh::group::MeshGroup;
use crate::protocol::mesh::peer::{ChannelFrame, MeshChannel, MeshPeer, PeerAction};

/// The peer that lets the others in.
const ENTRY: u32 = 0;
/// Network of all.
const NETWORK: u32 = 9;

struct Crowd {
    peers: Vec<MeshPeer>,
    ends: BTreeMap<MeshChannel, MeshChannel>,
    offers: Vec<MeshChannel>,
    /// Channels that are negotiated.
    opening: Vec<MeshChannel>,
    /// Frames by the end that will receive them.
    frames: BTreeMap<MeshChannel, VecDeque<ChannelFrame>>,
    rng: fastrand::Rng,
    now: Instant,
}

impl Crowd {
    fn new(group: MeshGroup, joiners: u32, seed: u64) -> Self {
        let mut crowd = Crowd {
            peers: (0..=joiners).map(|number| MeshPeer::new(group, number, 1_000 + number)).collect(),
            ends: BTreeMap::new(),
            offers: Vec::new(),
            opening: Vec::new(),
            frames: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(seed),
            now: Instant::now(),
        };
        crowd.peers[0].open_entry(NETWORK);
        for joiner in 1..=joiners {
            let now = crowd.now;
            crowd.peer(joiner).join(now);
        }
        crowd
    }

    fn peer(&mut self, number: u32) -> &mut MeshPeer {
        &mut self.peers[number as usize]
    }

    fn act(&mut self) {
        loop {
            let mut actions = Vec::new();
            for peer in &mut self.peers {
                actions.extend(peer.take_actions());
            }
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: PeerAction) {
        let now = self.now;
        match action {
            PeerAction::Offer { channel, .. } => {
                let offer = self.offers.len().to_string();
                self.offers.push(channel);
                self.peer(channel.peer).described(channel, &offer);
                // The first one goes by signaling.
                if channel.peer != ENTRY && channel.number == 0 {
                    self.peer(ENTRY).called(offer, 2_000 + channel.peer, now).unwrap();
                }
            }
            PeerAction::Answer { channel, offer } => {
                let offered = self.offers[offer.parse::<usize>().unwrap()];
                self.ends.insert(offered, channel);
                self.ends.insert(channel, offered);
                self.peer(channel.peer).described(channel, "answer");
                if channel.peer == ENTRY && offered.number == 0 {
                    self.peer(offered.peer).answered(offered, "answer".into());
                }
            }
            PeerAction::Accept { channel, .. } => self.opening.push(channel),
            PeerAction::Send { channel, frame, .. } => {
                self.frames.entry(self.ends[&channel]).or_default().push_back(frame);
            }
            PeerAction::Joined | PeerAction::MemberJoined { .. } => {}
            action => panic!("{action:?}"),
        }
    }

    /// Has one thing happen that may be next. Returns false if there is none.
    fn step(&mut self) -> bool {
        let waiting: Vec<MeshChannel> = self
            .frames
            .iter()
            .filter(|(_, frames)| !frames.is_empty())
            .map(|(channel, _)| *channel)
            .collect();
        let choices = self.opening.len() + waiting.len();
        if choices == 0 {
            return false;
        }
        let (choice, now) = (self.rng.usize(..choices), self.now);
        if choice < self.opening.len() {
            let channel = self.opening.swap_remove(choice);
            let other = self.ends[&channel];
            self.peer(other.peer).opened(other, now);
            self.peer(channel.peer).opened(channel, now);
        } else {
            let channel = waiting[choice - self.opening.len()];
            let frame = self.frames.get_mut(&channel).unwrap().pop_front().unwrap();
            self.peer(channel.peer).received(channel, frame, now);
        }
        true
    }

    fn members(&self) -> BTreeSet<(u32, u32)> {
        let ids: Vec<u32> = self.peers.iter().map(MeshPeer::id).collect();
        let of = |peer: &MeshPeer| {
            let id = peer.id();
            peer.members().map(move |(member, _)| (id, member)).collect::<Vec<_>>()
        };
        let members: Vec<(u32, u32)> = self.peers.iter().flat_map(of).collect();
        assert!(members.iter().all(|(_, member)| ids.contains(member)), "{members:?} of {ids:?}");
        members.into_iter().collect()
    }
}

#[test]
fn clients_that_join_at_once_see_each_other() {
    for group in [MeshGroup::Netflux0, MeshGroup::Netflux1] {
        for seed in 0..200 {
            let joiners = 2 + seed as u32 % 3;
            let mut crowd = Crowd::new(group, joiners, seed);
            crowd.act();
            while crowd.step() {
                crowd.act();
            }
            let ids: Vec<u32> = crowd.peers.iter().map(MeshPeer::id).collect();
            let all = ids.iter().flat_map(|one| ids.iter().map(move |other| (*one, *other)));
            let expected: BTreeSet<(u32, u32)> = all.filter(|(one, other)| one != other).collect();
            assert_eq!(crowd.members(), expected, "{group:?}, seed {seed}");
        }
    }
}
