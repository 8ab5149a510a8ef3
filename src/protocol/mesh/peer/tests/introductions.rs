//! Two peers of the bridge in one group: the second is introduced to the clients of the first. The client is
//! a peer that lets others in; real ones are in the recordings.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::protocol::mesh::group::MeshGroup;
use crate::protocol::mesh::peer::{ChannelFrame, MeshChannel, MeshPeer, Neighbor, PeerAction};

/// Peers, with channels between them that open when both ends are described.
struct Mesh {
    peers: Vec<MeshPeer>,
    /// The two ends of each channel.
    ends: Vec<(MeshChannel, MeshChannel)>,
    /// Offers by the text of the description.
    offers: Vec<MeshChannel>,
    joined: BTreeSet<u32>,
    /// Peer that loses what it sends as the next channel opens that it was offered.
    losing: Option<u32>,
    seen: BTreeSet<(u32, u32)>,
    now: Instant,
}

impl Mesh {
    fn new(group: MeshGroup, ids: &[u32]) -> Self {
        let peers = ids.iter().zip(0u32..).map(|(id, number)| MeshPeer::new(group, number, *id)).collect();
        let now = Instant::now();
        let (joined, seen) = (BTreeSet::new(), BTreeSet::new());
        Mesh { peers, ends: vec![], offers: vec![], joined, losing: None, seen, now }
    }

    fn peer(&mut self, number: u32) -> &mut MeshPeer {
        &mut self.peers[number as usize]
    }

    fn other_end(&self, channel: MeshChannel) -> Option<MeshChannel> {
        self.ends.iter().find_map(|(one, other)| match channel {
            _ if channel == *one => Some(*other),
            _ if channel == *other => Some(*one),
            _ => None,
        })
    }

    /// A peer joins through the client.
    fn join(&mut self, number: u32, id: u32) {
        let now = self.now;
        let offer = format!("offer {}", self.offers.len());
        self.peer(number).join(now);
        for action in self.peer(number).take_actions() {
            self.perform(number, action);
        }
        self.peer(0).called(offer, id, now);
        self.run();
    }

    fn run(&mut self) {
        for _ in 0..100 {
            for number in 0..self.peers.len() as u32 {
                for action in self.peer(number).take_actions() {
                    self.perform(number, action);
                }
            }
        }
    }

    fn perform(&mut self, number: u32, action: PeerAction) {
        let now = self.now;
        match action {
            PeerAction::Offer { channel, .. } => {
                self.offers.push(channel);
                let text = format!("offer {}", self.offers.len() - 1);
                self.peer(number).described(channel, &text);
            }
            PeerAction::Answer { channel, offer } => {
                let offered = self.offers[offer.strip_prefix("offer ").unwrap().parse::<usize>().unwrap()];
                self.ends.push((offered, channel));
                self.peer(number).described(channel, "answer");
                if channel.peer == 0 && offered.number == 0 {
                    // By signaling.
                    self.peer(offered.peer).answered(offered, "answer".into());
                }
            }
            PeerAction::Accept { channel, .. } => {
                let other = self.other_end(channel).unwrap();
                self.peer(other.peer).opened(other, now);
                if self.losing.take_if(|losing| *losing == other.peer).is_some() {
                    self.peer(other.peer).take_actions();
                }
                self.peer(channel.peer).opened(channel, now);
            }
            PeerAction::Send { channel, frame, .. } => {
                if let Some(other) = self.other_end(channel) {
                    self.peer(other.peer).received(other, frame, now);
                }
            }
            PeerAction::Forward { recipient, channel, frame } => {
                let to = self.peers.iter_mut().find(|peer| peer.id() == recipient).unwrap();
                to.forwarded(channel, frame, now);
            }
            PeerAction::Close { channel } => {
                if let Some(other) = self.other_end(channel) {
                    self.ends.retain(|(one, two)| *one != channel && *two != channel);
                    self.peer(other.peer).closed(other);
                }
            }
            PeerAction::Joined => assert!(self.joined.insert(number)),
            PeerAction::MemberJoined { member } => assert!(self.seen.insert((number, member))),
            PeerAction::MemberLeft { member } => assert!(self.seen.remove(&(number, member))),
            PeerAction::Departed { .. } => {}
            PeerAction::Received { .. } | PeerAction::ReceivedEarly { .. } | PeerAction::Failed => {
                panic!("{action:?}")
            }
        }
    }
}

/// A client that keeps its entry (0), the peer that joined through it (1), and another peer of the
/// bridge (2).
fn client_and_its_neighbor(group: MeshGroup) -> Mesh {
    let mut mesh = Mesh::new(group, &[1000, 2000, 3000]);
    mesh.peer(0).open_entry(9);
    mesh.join(1, 2000);
    assert_eq!(mesh.seen, BTreeSet::from([(0, 2000), (1, 1000)]));
    mesh.peer(1).add_sibling(3000, false);
    mesh.peer(2).add_sibling(2000, true);
    mesh
}

fn neighbor(mesh: &Mesh) -> Neighbor {
    let (member, channel) = mesh.peers[1].members().next().unwrap();
    Neighbor { member, channel, owner: 2000 }
}

const GROUPS: [MeshGroup; 2] = [MeshGroup::Netflux0, MeshGroup::Netflux1];

#[test]
fn peer_joins_through_the_line_of_another() {
    for group in GROUPS {
        let mut mesh = client_and_its_neighbor(group);
        let (neighbor, now) = (neighbor(&mesh), mesh.now);
        mesh.peer(2).join_through(&[neighbor], 9, true, now);
        mesh.run();
        assert_eq!(mesh.seen, BTreeSet::from([(0, 2000), (0, 3000), (1, 1000), (2, 1000)]), "{group:?}");
        mesh.peer(1).leave();
        mesh.run();
        mesh.seen.retain(|(peer, _)| *peer != 1);
        assert_eq!(mesh.seen, BTreeSet::from([(0, 3000), (2, 1000)]), "{group:?}");
    }
}

/// netflux 0.10.3 still opens channels that were asked for before it left.
#[test]
fn client_that_left_gets_no_channel_any_more() {
    let mut mesh = client_and_its_neighbor(MeshGroup::Netflux0);
    let (neighbor, now) = (neighbor(&mesh), mesh.now);
    let mut asked = |sender: u32| {
        let mut frame = [&[2][..], &sender.to_be_bytes(), &2_000u32.to_be_bytes()].concat();
        let data = format!(r#"{{"connectors":["WebRTCService"],"sender":{sender},"oneMsg":true}}"#);
        frame.extend(format!(r#"{{"serviceName":"ChannelBuilderService","data":{data}}}"#).into_bytes());
        mesh.peer(1).received(neighbor.channel, ChannelFrame::Binary(frame.into()), now);
        let actions = mesh.peer(1).take_actions();
        mesh.peer(1).departed(sender);
        actions.iter().any(|action| matches!(action, PeerAction::Offer { .. }))
    };
    assert!(asked(5_000));
    assert!(!asked(5_000));
    let leave = [&[3][..], &1_000u32.to_be_bytes(), &[0; 4], b"{}"].concat();
    mesh.peer(1).received(neighbor.channel, ChannelFrame::Binary(leave.into()), now);
    assert!(mesh.peer(1).take_actions().contains(&PeerAction::Departed { member: 1_000 }));
}

/// A client can have a channel in the name of another, through the peers that it introduces.
#[test]
fn member_is_not_cut_by_what_was_said_over_another_channel() {
    let mut mesh = client_and_its_neighbor(MeshGroup::Netflux0);
    mesh.peer(1).departed(1_000);
    mesh.run();
    assert_eq!(mesh.seen, BTreeSet::from([(0, 2000), (1, 1000)]));
    let (channel, now) = (neighbor(&mesh).channel, mesh.now);
    let leave = [&[3][..], &1_000u32.to_be_bytes(), &[0; 4], b"{}"].concat();
    mesh.peer(1).received(channel, ChannelFrame::Binary(leave.into()), now);
    mesh.run();
    assert_eq!(mesh.seen, BTreeSet::new(), "its own channel is believed");
}

/// netflux 1.0 waits for ever for the answer to a question that its browser lost.
#[test]
fn joiner_whose_question_is_lost_is_answered() {
    let mut mesh = Mesh::new(MeshGroup::Netflux1, &[1000, 2000, 3000]);
    mesh.peer(0).open_entry(9);
    mesh.join(1, 2000);
    mesh.losing = Some(2);
    mesh.join(2, 3000);
    assert_eq!(mesh.losing, None);
    assert!(!mesh.joined.contains(&2));
    let later = mesh.peer(1).deadline().unwrap();
    mesh.peer(1).tick(later);
    mesh.run();
    assert_eq!(mesh.joined, BTreeSet::from([0, 1, 2]));
    assert!(mesh.seen.is_superset(&BTreeSet::from([(1, 3000), (2, 2000)])), "{:?}", mesh.seen);
    assert_eq!(mesh.peer(1).deadline(), None, "it is answered once");
}

/// A client that asks for channels of peers that it invents gets few at the same time.
#[test]
fn channels_that_one_client_asks_for_are_bounded() {
    let mut mesh = client_and_its_neighbor(MeshGroup::Netflux1);
    let (neighbor, mut now) = (neighbor(&mesh), mesh.now);
    let asked = |mesh: &mut Mesh, now: Instant| {
        for invented in 5_000..5_100u32 {
            let mut frame = [&[2][..], &invented.to_be_bytes(), &2_000u32.to_be_bytes()].concat();
            frame.extend_from_slice(br#"{"serviceId":2,"data":{"connectors":[0]}}"#);
            mesh.peer(1).received(neighbor.channel, ChannelFrame::Binary(frame.into()), now);
        }
        let actions = mesh.peer(1).take_actions();
        actions.iter().filter(|action| matches!(action, PeerAction::Offer { .. })).count()
    };
    assert_eq!(asked(&mut mesh, now), 16);
    assert_eq!(asked(&mut mesh, now), 0);
    now += Duration::from_secs(15);
    mesh.peer(1).tick(now);
    assert_eq!(asked(&mut mesh, now), 16, "those that did not open are closed");
}

#[test]
fn placeholder_has_a_line_and_is_no_member() {
    for group in GROUPS {
        let mut mesh = client_and_its_neighbor(group);
        let (neighbor, now) = (neighbor(&mesh), mesh.now);
        mesh.peer(2).join_through(&[neighbor], 9, false, now);
        mesh.run();
        assert_eq!(mesh.seen, BTreeSet::from([(0, 2000), (1, 1000), (2, 1000)]), "{group:?}");
    }
}

#[test]
fn member_is_introduced_to_a_client_that_joined_later() {
    for group in GROUPS {
        let mut mesh = client_and_its_neighbor(group);
        mesh.peer(2).open_entry(9);
        let (neighbor, now) = (neighbor(&mesh), mesh.now);
        mesh.peer(2).introduce_to(&[neighbor], now);
        mesh.run();
        assert_eq!(mesh.seen, BTreeSet::from([(0, 2000), (0, 3000), (1, 1000), (2, 1000)]), "{group:?}");
    }
}

#[test]
fn frame_kinds_are_distinguished() {
    let mut peer = MeshPeer::new(MeshGroup::Netflux4, 0, u32::MAX);
    peer.received(
        MeshChannel { peer: 0, number: 0 },
        ChannelFrame::Text(b"ok".as_slice().into()),
        Instant::now(),
    );
    assert_eq!(peer.take_actions(), []);
}
